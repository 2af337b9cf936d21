//! What every request goes through to its handler, and its answer on the way back, in one ordered list: see [`Middleware::call`]. A file for
//! each.
//!
//! They are functions that one service calls, and not services around each other: `axum::middleware::from_fn` allocates twice for every layer and
//! request.

pub mod compression;
mod deadline;
mod headers;
mod lifecycle;
pub mod limits;
mod log;
mod memory;
mod metrics;
mod seen;
mod traces;

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use task_api_resilience::memory::Held;
use task_api_telemetry::context::{REQUEST_ID, RequestContext};
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Instrument;

use self::{compression::Encoding, metrics::Counted, seen::Seen};
use crate::{app::App, error::ApiError, problem, server::exchange::Came};

/// Puts [`Middleware`] around a router's routes.
#[derive(Clone, Debug)]
pub struct MiddlewareLayer(pub Arc<App>);

impl<S> Layer<S> for MiddlewareLayer {
    type Service = Middleware<S>;

    fn layer(&self, inner: S) -> Middleware<S> {
        Middleware { app: Arc::clone(&self.0), inner }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Middleware<S> {
    app: Arc<App>,
    inner: S,
}

impl<S> Service<Request> for Middleware<S>
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
        // The request's id and trace, which everything that is done for it can tell.
        let context = RequestContext::of(request.headers());
        let id = context.request_id().clone();
        let seen = Seen::of(&request);
        // How long it took is what its client saw, so the wait for its turn counts.
        let begun = request.extensions().get::<Came>().map_or_else(Instant::now, |Came(came)| *came);
        // Counted however it ends, also if its client hangs up.
        let counted = Counted::new(Arc::clone(&app), &seen, begun);
        let span = traces::begin(&seen, request.headers());
        let accepted = Encoding::accepted(request.headers());
        let checked = limits::check(request.uri(), request.headers());
        let answer = self.inner.call(request).instrument(span.clone());
        Box::pin(context.scope(async move {
            let answer = async {
                // What is too large is refused first: it costs the least.
                checked?;
                lifecycle::check(&app.lifecycle, &seen)?;
                let response = deadline::keep(&seen, answer).await?;
                // The handler's memory goes, and the answer's is counted.
                memory::hold(&app, &seen, response).await
            };
            let answered = answer.await;
            let (mut response, held) =
                answered.unwrap_or_else(|error: ApiError| (error.into_response(), Held::default()));
            // A problem names the request that it is about.
            problem::name_request(&mut response, &id);
            headers::complete(&mut response);
            response.headers_mut().insert(REQUEST_ID, id);
            lifecycle::part(&app.lifecycle, &mut response);
            // Compressed last, since an entity tag changes with it; its memory is kept until it is sent.
            let response = memory::keep(compression::compress(response, accepted).await, held);
            traces::end(&span, response.status());
            span.in_scope(|| log::write(&seen, &response, begun.elapsed()));
            counted.answered(response.status());
            Ok(response)
        }))
    }
}
