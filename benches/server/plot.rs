//! Two plain kinds of plot, as SVG.

use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 48.0;
const TOP: f64 = 36.0;
const RIGHT: f64 = 220.0;
const COLOURS: [&str; 4] = ["#1b6ca8", "#c8553d", "#4a8f4a", "#7a5ba6"];

type Series<X> = (String, Vec<(X, f64)>);

/// Lines over a numeric axis; both axes begin at 0.
pub fn lines(title: &str, across: &str, up: &str, series: &[Series<f64>]) -> String {
    let points = || series.iter().flat_map(|(_, points)| points);
    let most_x = round_up(points().map(|(x, _)| *x).fold(0.0, f64::max));
    let most_y = round_up(points().map(|(_, y)| *y).fold(0.0, f64::max));
    let mut svg = frame(title, up, most_y);
    let right = WIDTH - RIGHT;
    for step in 0..=4 {
        let (share, x) = share(step, LEFT, right);
        let value = label(most_x * share);
        text(&mut svg, x, HEIGHT - BOTTOM + 16.0, "middle", &value);
    }
    text(&mut svg, (LEFT + right) / 2.0, HEIGHT - 10.0, "middle", across);
    for (nth, (name, points)) in series.iter().enumerate() {
        let colour = COLOURS[nth % COLOURS.len()];
        let at = |&(x, y): &(f64, f64)| {
            format!("{:.1},{:.1}", LEFT + (right - LEFT) * x / most_x, height(y / most_y))
        };
        let path: Vec<String> = points.iter().map(at).collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            path.join(" ")
        );
        key(&mut svg, nth, colour, name);
    }
    svg + "</svg>\n"
}

/// Stacked bars, one a name.
pub fn bars(title: &str, up: &str, bars: &[Series<&str>]) -> String {
    let sum = |parts: &[(&str, f64)]| parts.iter().map(|(_, value)| value).sum::<f64>();
    let most = round_up(bars.iter().map(|(_, parts)| sum(parts)).fold(0.0, f64::max));
    let mut svg = frame(title, up, most);
    let room = (WIDTH - RIGHT - LEFT) / bars.len().max(1) as f64;
    for (nth, (name, parts)) in bars.iter().enumerate() {
        let x = LEFT + room * nth as f64 + room * 0.2;
        let mut below = 0.0;
        for ((_, value), colour) in parts.iter().zip(COLOURS) {
            let (top, bottom) = (height((below + value) / most), height(below / most));
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
                room * 0.6,
                bottom - top
            );
            below += value;
        }
        text(&mut svg, x + room * 0.3, HEIGHT - BOTTOM + 16.0, "middle", name);
    }
    for (nth, (name, _)) in bars.first().map(|(_, parts)| parts).into_iter().flatten().enumerate() {
        key(&mut svg, nth, COLOURS[nth % COLOURS.len()], name);
    }
    svg + "</svg>\n"
}

fn frame(title: &str, up: &str, most: f64) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
    );
    text(&mut svg, LEFT, 20.0, "start", &format!("{title} ({up})"));
    for step in 0..=4 {
        let (share, _) = share(step, 0.0, 1.0);
        let y = height(share);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#d0d0d0\"/>",
            WIDTH - RIGHT
        );
        text(&mut svg, LEFT - 6.0, y + 4.0, "end", &label(most * share));
    }
    svg
}

fn share(step: u32, from: f64, to: f64) -> (f64, f64) {
    let share = f64::from(step) / 4.0;
    (share, from + (to - from) * share)
}

fn height(share: f64) -> f64 {
    HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share
}

fn key(svg: &mut String, nth: usize, colour: &str, name: &str) {
    let (x, y) = (WIDTH - RIGHT + 16.0, TOP + 18.0 * nth as f64);
    let _ = writeln!(
        svg,
        "<rect x=\"{x}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>",
        y - 9.0
    );
    text(svg, x + 16.0, y, "start", name);
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#222222\">{text}</text>"
    );
}

/// To the next 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    let mut step = 0.001;
    while step < 1e12 {
        for times in [1.0, 2.0, 5.0] {
            if step * times >= value {
                return step * times;
            }
        }
        step *= 10.0;
    }
    value
}

fn label(value: f64) -> String {
    match value {
        v if v >= 10.0 || v == 0.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    }
}
