//! The log: on standard error, as text or JSON lines. What of it is told can change while the process runs.

use std::fmt;
use std::io::IsTerminal;
use std::sync::OnceLock;

use serde::Serialize;
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::Record;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::reload;

use crate::config::LogFormat;
use crate::ops::traces::{self, TracesError};

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is malformed.
    #[error("cannot read the log filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The process has a log already.
    #[error("cannot set up the log: {0}")]
    AlreadySet(#[from] tracing::subscriber::SetGlobalDefaultError),
    /// The filter cannot be changed any more.
    #[error("cannot change the log filter: {0}")]
    Refilter(#[from] reload::Error),
    /// There is no way to send traces.
    #[error(transparent)]
    Traces(#[from] TracesError),
}

/// Puts another filter in the place of that of the process.
type Refilter = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;

static REFILTER: OnceLock<Refilter> = OnceLock::new();

/// Sets up the log of the process; once.
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let colours = std::io::stderr().is_terminal();
    let (subscriber, refilter) = subscriber(format, filter, colours, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber)?;
    let _ = REFILTER.set(refilter);
    Ok(())
}

/// Changes what is told, from now on. Without a log there is nothing to change.
pub fn set_filter(filter: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(filter)?;
    match REFILTER.get() {
        Some(refilter) => Ok(refilter(filter)?),
        None => Ok(()),
    }
}

/// The same, with traces that are sent to a collector, of so many requests of a million. Within a runtime.
pub fn init_with_traces(
    format: LogFormat,
    filter: &str,
    endpoint: &str,
    share: u32,
) -> Result<(), TelemetryError> {
    let log = tracing_subscriber::fmt::layer();
    let log = log.with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
    let log = match format {
        LogFormat::Text => log.boxed(),
        LogFormat::Json => log.json().flatten_event(true).fmt_fields(SpanFields).boxed(),
    };
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(filter)?);
    let log = log.with_filter(filter);
    let all = tracing_subscriber::registry().with(log).with(traces::layer(endpoint, share)?);
    tracing::subscriber::set_global_default(all)?;
    let _ = REFILTER.set(Box::new(move |filter| handle.reload(filter)));
    Ok(())
}

fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    colours: bool,
    writer: W,
) -> Result<(Box<dyn Subscriber + Send + Sync>, Refilter), TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(filter)?)
        .with_ansi(colours)
        .with_writer(writer);
    Ok(match format {
        LogFormat::Text => {
            let log = log.with_filter_reloading();
            let handle = log.reload_handle();
            (Box::new(log.finish()), Box::new(move |filter| handle.reload(filter)))
        }
        LogFormat::Json => {
            let log = log.json().flatten_event(true).fmt_fields(SpanFields);
            let log = log.with_filter_reloading();
            let handle = log.reload_handle();
            (Box::new(log.finish()), Box::new(move |filter| handle.reload(filter)))
        }
    })
}

/// Writes the fields of a span as the JSON that lines of the log repeat, in one go. The library's own sorts them into a
/// map of values first, which is most of what a span costs; a request has one, and is hardly ever told of.
struct SpanFields;

impl<'writer> FormatFields<'writer> for SpanFields {
    fn format_fields<R: RecordFields>(&self, mut to: Writer<'writer>, fields: R) -> fmt::Result {
        // Those of most requests are shorter: it need not grow.
        let mut object = Object(Vec::with_capacity(256));
        object.0.push(b'{');
        fields.record(&mut object);
        to.write_str(&object.finish())
    }

    /// A field that is there already is written again: who reads it takes the last.
    fn add_fields(
        &self,
        current: &'writer mut FormattedFields<Self>,
        new: &Record<'_>,
    ) -> fmt::Result {
        let mut object = Object(std::mem::take(&mut current.fields).into_bytes());
        object.0.pop();
        new.record(&mut object);
        current.fields = object.finish();
        Ok(())
    }
}

/// An object of JSON that is not closed yet.
struct Object(Vec<u8>);

impl Object {
    fn put(&mut self, field: &Field, value: impl Serialize) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        // Neither a text nor a number can fail to be written to memory.
        let _ = serde_json::to_writer(&mut self.0, field.name());
        self.0.push(b':');
        let _ = serde_json::to_writer(&mut self.0, &value);
    }

    fn finish(mut self) -> String {
        self.0.push(b'}');
        String::from_utf8(self.0).unwrap_or_default()
    }
}

impl Visit for Object {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no writer panics").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of one warning and one piece of information.
    fn logged(format: LogFormat, filter: &str) -> String {
        let log = Log::default();
        let writer = log.clone();
        let (subscriber, refilter) = subscriber(format, filter, false, move || writer.clone())
            .expect("the filter is well formed");
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(attempt = 2, "ledger away");
            tracing::info!("hidden");
            refilter(EnvFilter::new("off")).expect("it is there");
            tracing::warn!("nobody hears this");
        });
        let bytes = log.0.lock().expect("no writer panics").clone();
        String::from_utf8(bytes).expect("the log is text")
    }

    #[test]
    fn the_filter_hides_and_the_form_is_as_asked() {
        let text = logged(LogFormat::Text, "warn");
        assert!(text.contains("WARN") && text.contains("ledger away attempt=2"), "{text}");
        assert_eq!(text.lines().count(), 1);

        let json = logged(LogFormat::Json, "warn");
        let line: serde_json::Value = serde_json::from_str(&json).expect("a line is JSON");
        assert_eq!((line["level"].as_str(), line["attempt"].as_i64()), (Some("WARN"), Some(2)));
        assert_eq!(logged(LogFormat::Text, "info").lines().count(), 2);
    }

    #[test]
    fn a_line_repeats_the_fields_of_its_span_whenever_they_became_known() {
        let log = Log::default();
        let writer = log.clone();
        let (subscriber, _) = subscriber(LogFormat::Json, "info", false, move || writer.clone())
            .expect("the filter is well formed");
        tracing::subscriber::with_default(subscriber, || {
            let (tenant, absent) = ("a \"b\"\n", None::<u32>);
            let span = tracing::info_span!(
                "rpc", tenant, absent, attempt = Some(2), late = tracing::field::Empty, shown = ?Some(1)
            );
            span.record("late", "at first");
            span.record("late", true);
            span.in_scope(|| tracing::warn!("told"));
            tracing::info_span!("rpc").in_scope(|| tracing::warn!("nothing known"));
        });
        let bytes = log.0.lock().expect("no writer panics").clone();
        let lines: Vec<serde_json::Value> = String::from_utf8(bytes)
            .expect("the log is text")
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line is JSON"))
            .collect();
        let expected = serde_json::json!({
            "name": "rpc", "tenant": "a \"b\"\n", "attempt": 2, "late": true, "shown": "Some(1)"
        });
        assert_eq!(lines[0]["span"], expected);
        assert_eq!(lines[1]["span"], serde_json::json!({ "name": "rpc" }));
    }
}
