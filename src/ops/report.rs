//! The figures of /metrics, sent to a collector by OTLP: the same text, read and told in another form, so that
//! both can never differ.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for the collector.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Sends figures to a collector.
pub struct Reports {
    client: MetricsServiceClient<Channel>,
    /// When counters began, in nanoseconds since 1970.
    since: u64,
    failing: bool,
}

impl Reports {
    /// To this collector; connects with the first report. An error is an address that is none.
    pub fn new(endpoint: &str) -> Result<Reports, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(endpoint.to_owned())?;
        let channel = endpoint.connect_timeout(TIMEOUT).timeout(TIMEOUT).connect_lazy();
        let client = MetricsServiceClient::new(channel);
        Ok(Reports { client, since: now(), failing: false })
    }

    /// Sends what the page of figures says. A collector that does not take it is told once.
    pub async fn send(&mut self, page: &str) {
        let request = request(page, self.since, now());
        let sent = self.client.export(Request::new(request)).await;
        match (&sent, self.failing) {
            (Err(error), false) => tracing::warn!(%error, "the collector takes no figures"),
            (Ok(_), true) => tracing::info!("the collector takes figures again"),
            _ => {}
        }
        self.failing = sent.is_err();
    }
}

fn now() -> u64 {
    u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or_default()
}

fn request(page: &str, since: u64, now: u64) -> ExportMetricsServiceRequest {
    let resource = Resource {
        attributes: vec![
            text("service.name", "tollgate"),
            text("service.version", env!("CARGO_PKG_VERSION")),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope { name: "tollgate".to_owned(), ..Default::default() };
    let metrics = families(page).into_iter().map(|family| family.metric(since, now)).collect();
    let scope = ScopeMetrics { scope: Some(scope), metrics, ..ScopeMetrics::default() };
    let of = ResourceMetrics {
        resource: Some(resource),
        scope_metrics: vec![scope],
        ..ResourceMetrics::default()
    };
    ExportMetricsServiceRequest { resource_metrics: vec![of] }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// Figures of one name.
#[derive(Debug, Default)]
struct Family<'a> {
    name: &'a str,
    kind: &'a str,
    help: &'a str,
    samples: Vec<Sample<'a>>,
}

/// One line: what follows the name of the family (`_total`, `_bucket`), labels, value.
#[derive(Debug)]
struct Sample<'a> {
    part: &'a str,
    labels: Vec<(&'a str, String)>,
    value: &'a str,
}

/// What the page says, line by line; what is no figure is left out.
fn families(page: &str) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = vec![];
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            families.push(Family { name, help, ..Family::default() });
            continue;
        }
        let Some(family) = families.last_mut() else { continue };
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family.kind = rest.split_once(' ').map_or("", |(_, kind)| kind);
        } else if !line.starts_with('#') {
            let sample = line.strip_prefix(family.name).and_then(sample);
            family.samples.extend(sample);
        }
    }
    families
}

/// `_total{a="b"} 5 # {trace_id="…"} 0.1`: an exemplar is left out.
fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(['{', ' '])?;
    let (part, mut rest) = line.split_at(end);
    let mut labels = vec![];
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while let Some((key, after)) = rest.split_once("=\"") {
            let (value, after) = unquoted(after)?;
            labels.push((key.trim_start_matches(','), value));
            rest = after;
            if rest.starts_with('}') {
                break;
            }
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.split_ascii_whitespace().next()?;
    Some(Sample { part, labels, value })
}

/// A text up to its quote, and what follows that.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    loop {
        match characters.next()? {
            (at, '"') => return Some((value, text.get(at + 1..)?)),
            (_, '\\') => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            (_, other) => value.push(other),
        }
    }
}

impl Family<'_> {
    fn metric(self, since: u64, now: u64) -> Metric {
        let temporality = AggregationTemporality::Cumulative.into();
        let (name, description) =
            (self.name.to_owned(), self.help.trim_end_matches('.').to_owned());
        let data = match self.kind {
            "counter" => Data::Sum(Sum {
                data_points: self.numbers(since, now),
                aggregation_temporality: temporality,
                is_monotonic: true,
            }),
            "histogram" => Data::Histogram(Histogram {
                data_points: self.histograms(since, now),
                aggregation_temporality: temporality,
            }),
            _ => Data::Gauge(Gauge { data_points: self.numbers(0, now) }),
        };
        Metric { name, description, data: Some(data), ..Metric::default() }
    }

    fn numbers(&self, since: u64, now: u64) -> Vec<NumberDataPoint> {
        let point = |sample: &Sample<'_>| {
            let whole = sample.value.parse().ok().map(Value::AsInt);
            Some(NumberDataPoint {
                attributes: attributes(&sample.labels),
                start_time_unix_nano: since,
                time_unix_nano: now,
                value: Some(whole.or_else(|| sample.value.parse().ok().map(Value::AsDouble))?),
                ..NumberDataPoint::default()
            })
        };
        self.samples.iter().filter_map(point).collect()
    }

    /// Buckets are cumulative in the text, and each by itself in OTLP.
    fn histograms(&self, since: u64, now: u64) -> Vec<HistogramDataPoint> {
        let mut points: BTreeMap<Vec<(&str, &str)>, (HistogramDataPoint, u64)> = BTreeMap::new();
        for sample in &self.samples {
            let own = sample.labels.iter().filter(|(key, _)| *key != "le");
            let own: Vec<(&str, &str)> = own.map(|(key, value)| (*key, value.as_str())).collect();
            let (point, below) = points.entry(own).or_default();
            match sample.part {
                "_sum" => point.sum = sample.value.parse().ok(),
                "_count" => point.count = sample.value.parse().unwrap_or_default(),
                "_bucket" => {
                    let upto: u64 = sample.value.parse().unwrap_or_default();
                    point.bucket_counts.push(upto.saturating_sub(*below));
                    *below = upto;
                    let bound = sample.labels.iter().find(|(key, _)| *key == "le");
                    if let Some(bound) = bound.filter(|(_, bound)| bound != "+Inf")
                        && let Ok(bound) = bound.1.parse()
                    {
                        point.explicit_bounds.push(bound);
                    }
                }
                _ => {}
            }
        }
        let told = points.into_iter().map(|(labels, (point, _))| HistogramDataPoint {
            attributes: labels.iter().map(|(key, value)| text(key, value)).collect(),
            start_time_unix_nano: since,
            time_unix_nano: now,
            ..point
        });
        told.collect()
    }
}

fn attributes(labels: &[(&str, String)]) -> Vec<KeyValue> {
    labels.iter().map(|(key, value)| text(key, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP tollgate_requests Answered.\n# TYPE tollgate_requests counter\n\
        tollgate_requests_total{rpc=\"A\",code=\"O\\\"K\"} 3\n\
        # HELP tollgate_up Whether.\n# TYPE tollgate_up gauge\ntollgate_up 0.5\n\
        # HELP tollgate_took Time.\n# TYPE tollgate_took histogram\n\
        tollgate_took_sum{rpc=\"A\"} 1.5\ntollgate_took_count{rpc=\"A\"} 5\n\
        tollgate_took_bucket{le=\"0.1\",rpc=\"A\"} 2\n\
        tollgate_took_bucket{le=\"1.0\",rpc=\"A\"} 4 # {trace_id=\"4b\"} 0.4\n\
        tollgate_took_bucket{le=\"+Inf\",rpc=\"A\"} 5\n# EOF\n";

    #[test]
    fn a_page_is_told_as_sums_gauges_and_histograms() {
        let request = request(PAGE, 1, 2);
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let names: Vec<_> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names, ["tollgate_requests", "tollgate_up", "tollgate_took"]);
        let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("{metrics:#?}") };
        let point = &sum.data_points[0];
        assert_eq!((point.value, point.start_time_unix_nano), (Some(Value::AsInt(3)), 1));
        assert_eq!(point.attributes, [text("rpc", "A"), text("code", "O\"K")]);
        assert!(sum.is_monotonic);
        let Some(Data::Gauge(gauge)) = &metrics[1].data else { panic!("{metrics:#?}") };
        assert_eq!(gauge.data_points[0].value, Some(Value::AsDouble(0.5)));
        let Some(Data::Histogram(took)) = &metrics[2].data else { panic!("{metrics:#?}") };
        let point = &took.data_points[0];
        assert_eq!((point.count, point.sum), (5, Some(1.5)));
        assert_eq!(point.bucket_counts, [2, 2, 1]);
        assert_eq!(point.explicit_bounds, [0.1, 1.0]);
        assert_eq!(point.attributes, [text("rpc", "A")]);
        assert_eq!(took.data_points.len(), 1);
    }
}
