//! `/healthz`, `/readyz` and `/metrics`.

use std::{collections::BTreeSet, convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{
    Request, Response, StatusCode, body::Incoming, header::CONTENT_TYPE, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{sync::watch, task::JoinHandle};
use tracing::debug;

use crate::{listen::listen, metrics::Metrics, world::Watched};

/// The server cannot be started or has ended.
#[derive(Debug, thiserror::Error)]
#[error("the server for health and metrics cannot listen on {address}: is the port taken? LISTEN names another one")]
pub(crate) struct Error {
    address: SocketAddr,
    source: std::io::Error,
}

/// Serves until the process ends. A replica is ready once every kind is listed, whether it leads or waits for the lease.
pub(crate) fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    unlisted: watch::Receiver<BTreeSet<Watched>>,
) -> Result<JoinHandle<Result<(), Error>>, Error> {
    let listener = listen(address).map_err(|source| Error { address, source })?;
    Ok(tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.map_err(|source| Error { address, source })?;
            let (metrics, unlisted) = (Arc::clone(&metrics), unlisted.clone());
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    std::future::ready(Ok::<_, Infallible>(answer(&request, &metrics, &unlisted.borrow())))
                });
                let mut connection = http1::Builder::new();
                connection.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
                if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
                    debug!(%error, "a connection ended early");
                }
            });
        }
    }))
}

fn answer(request: &Request<Incoming>, metrics: &Metrics, unlisted: &BTreeSet<Watched>) -> Response<String> {
    let mut response = Response::new(String::new());
    match request.uri().path() {
        "/readyz" if !unlisted.is_empty() => {
            let kinds: Vec<&str> = unlisted.iter().map(|kind| kind.name()).collect();
            *response.body_mut() = format!(
                "not listed yet: {}. If that lasts, look at the log: may the operator's ClusterRole list and watch them?\n",
                kinds.join(", ")
            );
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        "/healthz" | "/readyz" => "ok\n".clone_into(response.body_mut()),
        "/metrics" => match metrics.text() {
            Ok(text) => {
                *response.body_mut() = text;
                let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(format));
            }
            Err(_) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
        },
        _ => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    response
}
