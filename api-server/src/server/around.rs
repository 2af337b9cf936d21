//! What happens around every request: an id, a time limit, a line in the log and a place in the metrics.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use tokio::time::{Instant, timeout};
use tower_layer::Layer;
use tower_service::Service;
use tracing::{Instrument, Span, field};

use crate::{
    App,
    error::{ApiError, Cause},
    http::{headers, limits},
    memory::Held,
    metrics::Route,
    problem,
    server::{
        body::KeptBody,
        compress::{Encoding, compress},
        current::{self, Current, REQUEST_ID},
        exchange::Came,
    },
    trace::{self, span},
};

/// The longest that a request may take; every part of it has a shorter limit of its own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// A request that takes longer is logged.
const SLOW: Duration = Duration::from_secs(1);

/// The status in the metrics of a request whose client has hung up before it was answered, as nginx has it.
const HUNG_UP: u16 = 499;

/// Puts [`Around`] around a router's routes.
#[derive(Clone, Debug)]
pub struct AroundLayer(pub Arc<App>);

impl<S> Layer<S> for AroundLayer {
    type Service = Around<S>;

    fn layer(&self, inner: S) -> Around<S> {
        Around { app: Arc::clone(&self.0), inner }
    }
}

/// What happens around every request, by hand: `from_fn` would take two more allocations for each.
#[derive(Clone, Debug)]
pub struct Around<S> {
    app: Arc<App>,
    inner: S,
}

impl<S> Service<Request> for Around<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let app = Arc::clone(&self.app);
        let current = Current::of(request.headers());
        let seen = Seen::of(&request);
        let id = current.request_id().clone();
        // How long it took is what its client saw, so the wait for its turn counts.
        let begun = request.extensions().get::<Came>().map_or_else(Instant::now, |Came(came)| *came);
        let span = seen.span(request.headers());
        let accepted = Encoding::accepted(request.headers());
        let checked = limits::check(request.uri(), request.headers());
        let counted =
            Counted { app: Arc::clone(&app), method: seen.method, route: seen.route.clone(), begun, status: HUNG_UP };
        let answer = self.inner.call(request).instrument(span.clone());
        Box::pin(current.scope(async move {
            let answer = async {
                checked?;
                let response = answer_in_time(&app, &seen, answer).await?;
                hold_answer(&app, &seen, response).await
            };
            let (mut response, held) =
                answer.await.unwrap_or_else(|error: ApiError| (error.into_response(), Held::default()));
            problem::name_request(&mut response, &id);
            headers::complete(&mut response);
            response.headers_mut().insert(REQUEST_ID, id);
            if app.lifecycle.is_draining() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            let response = keep_held(compress(response, accepted).await, held);
            let took = begun.elapsed();
            note_answer(&span, response.status());
            span.in_scope(|| seen.log(&response, took));
            counted.answered(response.status());
            Ok(response)
        }))
    }
}

/// Counts a request when it is answered, or given up.
struct Counted {
    app: Arc<App>,
    method: &'static str,
    route: Route,
    begun: Instant,
    status: u16,
}

impl Counted {
    fn answered(mut self, status: StatusCode) {
        self.status = status.as_u16();
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.app.metrics.request(self.method, self.route.clone(), self.status, self.begun.elapsed());
    }
}

async fn answer_in_time(
    app: &App,
    seen: &Seen,
    answer: impl Future<Output = Result<Response, Infallible>>,
) -> Result<Response, ApiError> {
    if !app.lifecycle.is_started() && !seen.is_probe() {
        return Err(ApiError::unavailable("this instance starts: it waits for its database; try again"));
    }
    match timeout(REQUEST_TIMEOUT, answer).await {
        Ok(Ok(response)) => Ok(response),
        Err(_) if seen.is_read() => Err(ApiError::unavailable("this took too long; try again")),
        Err(_) => Err(ApiError::unavailable(
            "this took too long: the change may or may not be there; look before you repeat it",
        )),
    }
}

/// Counts the memory of an answer until it is sent. What was changed is told, whatever that takes.
async fn hold_answer(app: &App, seen: &Seen, response: Response) -> Result<(Response, Held), ApiError> {
    current::release();
    let bytes = response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or_default();
    match app.memory.hold(current::user(), bytes).await {
        Ok(held) => Ok((response, held)),
        Err(full) if seen.is_read() => Err(full.into()),
        Err(_) => Ok((response, Held::default())),
    }
}

fn keep_held(response: Response, held: Held) -> Response {
    if held.is_empty() {
        return response;
    }
    response.map(|body| Body::new(KeptBody::new(body, held)))
}

/// What log and metrics tell of a request.
struct Seen {
    method: &'static str,
    route: Route,
    uri: Uri,
}

impl Seen {
    fn of(request: &Request) -> Self {
        Self {
            method: method_label(request.method()),
            route: Route(request.extensions().get::<MatchedPath>().cloned()),
            uri: request.uri().clone(),
        }
    }

    fn is_read(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS")
    }

    /// Probes come every few seconds; what they find is logged when it changes.
    fn is_probe(&self) -> bool {
        matches!(self.route.as_str(), "/api/health" | "/api/ready")
    }

    /// The server's part in a trace, after that of the caller.
    fn span(&self, headers: &HeaderMap) -> Span {
        if self.is_probe() {
            return Span::none();
        }
        let span = span!(
            "request",
            otel.name = format!("{} {}", self.method, self.route.as_str()),
            otel.kind = "server",
            http.request.method = self.method,
            http.route = self.route.as_str(),
            url.path = self.uri.path(),
            http.response.status_code = field::Empty,
        );
        trace::continue_from(&span, headers);
        span
    }

    fn log(&self, response: &Response, took: Duration) {
        let status = response.status();
        // The level has to be known where the line is, so there is a line for each.
        macro_rules! line {
            ($level:ident, $message:literal) => {
                tracing::$level!(
                    http.request.method = self.method,
                    url.path = self.uri.path(),
                    http.response.status_code = status.as_u16(),
                    event.duration = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
                    error.message = response.extensions().get::<Cause>().map(|Cause(cause)| cause.as_str()),
                    $message
                )
            };
        }
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            line!(error, "request failed");
        } else if status.is_server_error() && !self.is_probe() {
            line!(warn, "request refused");
        } else if took > SLOW {
            line!(info, "slow request");
        } else {
            line!(debug, "request");
        }
    }
}

fn note_answer(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// Clients may make up methods; metrics have room for those that exist.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
