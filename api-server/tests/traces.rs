//! Traces: what a collector receives over OTLP.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can not go on says so")]

mod common;

use std::sync::{Arc, Mutex};

use axum::http::{Method, StatusCode};
use common::{Api, eventually};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value,
    trace::v1::{Span, span::SpanKind, status::StatusCode as SpanStatus},
};
use serde_json::json;
use tokio::net::TcpListener;
use tonic::{Response, Status, transport::server::TcpIncoming};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Keeps every span that it receives, and says whose they are.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    services: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.unwrap().attributes;
            let service = attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
            self.services.lock().unwrap().push(text(service.value.as_ref().unwrap().value.as_ref().unwrap()));
            self.spans.lock().unwrap().extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// A collector that listens, and where.
    async fn listening() -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let service = TraceServiceServer::new(collector.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        (collector, endpoint)
    }

    async fn span(&self, name: &str) -> Span {
        eventually(&format!("the span {name}"), async || {
            self.spans.lock().unwrap().iter().find(|span| span.name == name).cloned()
        })
        .await
    }
}

fn text(value: &any_value::Value) -> String {
    match value {
        any_value::Value::StringValue(text) => text.clone(),
        any_value::Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    }
}

fn attribute(span: &Span, key: &str) -> String {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key);
    let value = attribute.and_then(|attribute| attribute.value.as_ref()?.value.as_ref());
    text(value.unwrap_or_else(|| panic!("{key} is not in {span:?}")))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

/// An instance that sends its spans at once.
async fn traced(endpoint: String) -> Api {
    let delay = ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned());
    Api::alone_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), delay]).await
}

#[tokio::test]
async fn a_request_is_a_part_of_its_callers_trace() {
    let (collector, endpoint) = Collector::listening().await;
    let api = traced(endpoint).await;
    let user = api.user().await;
    let authorization = format!("Bearer {}", user.token.as_ref().unwrap());
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
        ("traceparent", &traceparent),
        ("tracestate", "vendor=value"),
    ];
    let body = json!({"title": "traced", "priority": "high"}).to_string().into_bytes();
    let reply = user.send(Method::POST, "/api/tasks", &headers, body).await;
    assert_eq!(reply.header("traceparent"), "");
    reply.expect(StatusCode::CREATED);

    let request = collector.span("POST /api/tasks").await;
    assert_eq!((hex(&request.trace_id).as_str(), hex(&request.parent_span_id).as_str()), (TRACE, PARENT));
    assert_eq!(request.trace_state, "vendor=value");
    assert_eq!(request.kind(), SpanKind::Server);
    assert_eq!(attribute(&request, "http.route"), "/api/tasks");
    assert_eq!(attribute(&request, "http.response.status_code"), "201");
    let create = collector.span("createTask").await;
    assert_eq!((&create.trace_id, &create.parent_span_id), (&request.trace_id, &request.span_id));
    assert_eq!(
        (attribute(&create, "task.priority").as_str(), attribute(&create, "task.status").as_str()),
        ("high", "pending")
    );
    for (name, parent) in [("db.insert", &create), ("cache.invalidate", &create)] {
        let span = collector.span(name).await;
        assert_eq!((&span.trace_id, &span.parent_span_id), (&parent.trace_id, &parent.span_id), "{name}");
    }
    assert_eq!(attribute(&collector.span("db.insert").await, "db.system.name"), "sqlite");
    assert!(collector.services.lock().unwrap().iter().all(|service| service == "task-api"));
    let registration = collector.span("POST /api/auth/register").await;
    assert_ne!(hex(&registration.trace_id), TRACE, "its caller named none");
    let line = eventually("the request's line", async || {
        api.log().lines().find(|line| line.contains(TRACE)).map(str::to_owned)
    })
    .await;
    assert!(line.contains(&hex(&request.span_id)), "a line is found by its span: {line}");
}

#[tokio::test]
async fn the_caller_chooses_what_is_traced() {
    let (collector, endpoint) = Collector::listening().await;
    let api = traced(endpoint).await;
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    api.client().send(Method::GET, "/api/auth/me", &[("traceparent", &unsampled)], vec![]).await;
    api.client().get("/api/tasks").await.expect(StatusCode::UNAUTHORIZED);
    collector.span("GET /api/tasks").await;
    let spans = collector.spans.lock().unwrap();
    assert!(spans.iter().all(|span| hex(&span.trace_id) != TRACE && span.name != "GET /api/ready"), "{spans:?}");
    assert!(spans.iter().all(|span| span.status.as_ref().is_none_or(|status| status.code() == SpanStatus::Unset)));
}

#[tokio::test]
async fn the_last_spans_are_sent_before_the_end() {
    let (collector, endpoint) = Collector::listening().await;
    let mut api = Api::alone_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)]).await;
    api.client().get("/api/tasks").await.expect(StatusCode::UNAUTHORIZED);
    api.terminate();
    assert!(api.ended().await.success());
    assert!(collector.spans.lock().unwrap().iter().any(|span| span.name == "GET /api/tasks"));
}

#[tokio::test]
async fn a_collector_that_is_away_disturbs_nobody() {
    let mut api = traced("http://127.0.0.1:1".to_owned()).await;
    let user = api.user().await;
    user.task("served").await;
    api.terminate();
    assert!(api.ended().await.success());
}
