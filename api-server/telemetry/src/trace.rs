//! Traces: spans of requests, sent to an OpenTelemetry collector over OTLP.
//!
//! They are made only where `OTEL_EXPORTER_OTLP_ENDPOINT` says where to send them; elsewhere a [`span!`] costs a look at a flag.
//! `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` choose which requests are traced (all, by default, whose caller does not
//! say otherwise), `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say more about this process.

use std::env;

use http::HeaderMap;
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator},
    trace::{SpanContext, TraceContextExt, TracerProvider},
};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use thiserror::Error;
use tracing::{Instrument, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use crate::context;

/// The target of every span that is sent; the log has no part in them.
pub const TARGET: &str = "trace";

/// What this process calls itself.
pub const SERVICE: &str = "task-api";

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// A span with this name and these fields. [`traced`] tells it how its work ended.
#[macro_export]
macro_rules! span {
    ($name:literal $(, $($fields:tt)*)?) => {
        ::tracing::info_span!(
            target: $crate::trace::TARGET,
            $name,
            otel.status_code = ::tracing::field::Empty,
            otel.status_description = ::tracing::field::Empty
            $(, $($fields)*)?
        )
    };
}
pub use span;

/// Does `work` in a [`span!`], which is marked if the work fails.
pub async fn traced<T, E: ToString>(span: Span, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    if span.is_disabled() {
        return work.await;
    }
    let result = work.instrument(span.clone()).await;
    if let Err(error) = &result {
        span.record("otel.status_code", "ERROR").record("otel.status_description", error.to_string());
    }
    result
}

/// The exporter can't be made.
#[derive(Debug, Error)]
#[error(
    "can't send traces to OTEL_EXPORTER_OTLP_ENDPOINT: {0}; it takes the URL of an OTLP/gRPC collector, such as http://collector:4317"
)]
pub struct TraceError(String);

/// Where spans go.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// As the environment says; nowhere if it says nothing. Has to be called in a Tokio runtime, which does the sending.
    pub fn from_env() -> Result<Option<Self>, TraceError> {
        if env::var_os(ENDPOINT).is_none_or(|endpoint| endpoint.is_empty()) {
            return Ok(None);
        }
        let exporter = SpanExporter::builder().with_tonic().build().map_err(|error| TraceError(error.to_string()))?;
        let mut resource = Resource::builder();
        if env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(SERVICE);
        }
        let provider =
            SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter).build();
        Ok(Some(Self(provider)))
    }

    /// Takes the spans out of the process's events.
    pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer(SERVICE))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == TARGET))
    }

    /// Sends what was not sent yet. Blocks.
    pub fn finish(self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!("the last spans were not sent: {error}");
        }
    }
}

/// Makes the caller's span the parent of `span`, if the caller named one.
pub fn continue_from(span: &Span, headers: &HeaderMap) {
    if span.is_disabled() || !headers.contains_key("traceparent") {
        return;
    }
    let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
    // Fails only where no span is sent anyway.
    let _ = span.set_parent(parent);
}

/// The ids of the trace and the span at hand: this process's where spans are made, else the caller's.
pub fn ids() -> Option<(String, String)> {
    if let Some(span) = own() {
        return Some((span.trace_id().to_string(), span.span_id().to_string()));
    }
    let parent = context::traceparent()?;
    let mut parts = parent.to_str().ok()?.split('-').skip(1).map(str::to_owned);
    Some((parts.next()?, parts.next()?))
}

/// The W3C `traceparent` for what the request at hand sets off elsewhere.
pub fn traceparent() -> Option<String> {
    if let Some(span) = own() {
        return Some(format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags()));
    }
    context::traceparent()?.to_str().ok().map(str::to_owned)
}

fn own() -> Option<SpanContext> {
    let context = Context::current();
    Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
}

/// Headers, as the propagator reads them.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
