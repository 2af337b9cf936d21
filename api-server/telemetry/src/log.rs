//! Log lines on standard error: text on a terminal, otherwise one JSON object a line in the names of the Elastic Common Schema.
//! Neither bodies nor headers are logged, so no password, token or cookie is.

use std::{
    fmt,
    io::{self, IsTerminal},
    iter,
};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, filter_fn},
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::{
    context,
    trace::{self, Traces},
};

/// The version of the schema whose names are used.
const ECS_VERSION: &str = "8.11.0";

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Starts logging; `RUST_LOG` chooses what (`info` by default, `api_server=debug` shows every request, `task_api_store=debug` and the like what is below). `traces` get their spans, if
/// there are any to make.
pub fn init(format: Option<LogFormat>, traces: Option<&Traces>) {
    let terminal = io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let chosen = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,lapin=off"));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(terminal).with_target(false);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.event_format(Ecs).boxed(),
    };
    let lines = lines.with_filter(chosen.and(filter_fn(may_be_logged))).boxed();
    // A layer that is not there must not be a part of this: with `None` for one, every span is made, and then nobody takes it.
    let layers: Vec<_> = iter::once(lines).chain(traces.map(|traces| traces.layer().boxed())).collect();
    tracing_subscriber::registry().with(layers).init();
}

/// What libraries tell below the level of information may be what they send, and that may be secret.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let ours = ["api_server", "task_api"].iter().any(|name| metadata.target().starts_with(name));
    metadata.target() != trace::TARGET && (ours || *metadata.level() <= Level::INFO)
}

/// A JSON object a line.
struct Ecs;

impl<S, N> FormatEvent<S, N> for Ecs
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Line(Map::new());
        line.put("@timestamp", format!("{:.3}", Timestamp::now()));
        line.put("log.level", event.metadata().level().as_str().to_ascii_lowercase());
        line.put("log.logger", event.metadata().target());
        line.put("ecs.version", ECS_VERSION);
        line.put("service.name", trace::SERVICE);
        line.put("service.version", env!("CARGO_PKG_VERSION"));
        if let Some(id) = context::request_id() {
            line.put("http.request.id", String::from_utf8_lossy(id.as_bytes()));
        }
        if let Some((trace, span)) = trace::ids() {
            line.put("trace.id", trace);
            line.put("span.id", span);
        }
        event.record(&mut line);
        writeln!(writer, "{}", Value::Object(line.0))
    }
}

/// The fields of a line.
struct Line(Map<String, Value>);

impl Line {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::HeaderMap;
    use serde_json::json;

    use super::*;
    use crate::context::RequestContext;

    /// What `work` logs.
    fn lines_of(work: impl FnOnce()) -> Vec<Value> {
        #[derive(Clone, Default)]
        struct Kept(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend(bytes);
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept::default();
        let writer = kept.clone();
        let lines = tracing_subscriber::fmt::layer().event_format(Ecs).with_writer(move || writer.clone());
        let lines = tracing_subscriber::registry().with(lines.with_filter(filter_fn(may_be_logged)));
        tracing::subscriber::with_default(lines, work);
        let bytes = kept.0.lock().unwrap();
        bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    #[test]
    fn a_line_has_the_schemas_names() {
        let lines = lines_of(|| tracing::warn!(http.response.status_code = 503, url.path = "/\"x", "refused\nonce"));
        let line = &lines[0];
        assert_eq!(line["log.level"], "warn");
        assert_eq!(line["message"], "refused\nonce");
        assert_eq!(line["http.response.status_code"], 503);
        assert_eq!(line["url.path"], "/\"x");
        assert_eq!(line["service.name"], "task-api");
        assert_eq!(line["ecs.version"], ECS_VERSION);
        assert!(line["@timestamp"].as_str().unwrap().parse::<Timestamp>().is_ok());
        assert_eq!(line.get("trace.id"), None);
    }

    #[test]
    fn a_line_names_its_request_and_trace() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let headers = [("x-request-id", "abc"), ("traceparent", parent)];
        let headers =
            HeaderMap::from_iter(headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())));
        let lines = lines_of(|| RequestContext::of(&headers).sync_scope(|| tracing::info!("inside")));
        assert_eq!(lines[0]["http.request.id"], "abc");
        assert_eq!(lines[0]["trace.id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(lines[0]["span.id"], "00f067aa0ba902b7");
    }

    #[test]
    fn libraries_keep_their_details_to_themselves() {
        let lines = lines_of(|| {
            tracing::trace!(target: "h2::codec", "authorization: Bearer secret");
            tracing::warn!(target: "h2::codec", "broken");
            tracing::info!(target: trace::TARGET, "a span's business");
            tracing::trace!("ours");
        });
        assert_eq!(lines.iter().map(|line| &line["message"]).collect::<Vec<_>>(), [&json!("broken"), &json!("ours")]);
    }
}
