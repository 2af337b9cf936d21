//! `/moves`, for the operator, and `/metrics`.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{
    Request, Response, StatusCode, body::Incoming, header::CONTENT_TYPE, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::moves::Moves;

/// Nobody asks for more at once.
const MOST_CONNECTIONS: usize = 16;
/// An answer is short, and a client that asks no more is left.
const LONGEST_CONNECTION: Duration = Duration::from_secs(10);
/// A file descriptor is free again soon, as a rule.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Listens on every address that the kernel has: without IPv6, those of IPv4.
pub(crate) async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    }
}

/// Answers for ever.
pub(crate) async fn serve(listener: TcpListener, moves: Arc<Mutex<Moves>>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "no connection is accepted");
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let moves = Arc::clone(&moves);
        tokio::spawn(async move {
            let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &moves))));
            let mut connection = http1::Builder::new();
            connection.timer(TokioTimer::new());
            let served = timeout(LONGEST_CONNECTION, connection.serve_connection(TokioIo::new(stream), service)).await;
            if let Ok(Err(error)) = served {
                debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, moves: &Mutex<Moves>) -> Response<String> {
    let moves = moves.lock().unwrap_or_else(PoisonError::into_inner);
    let (status, kind, body) = match request.uri().path() {
        "/moves" => match serde_json::to_string(moves.last()) {
            Ok(body) => (StatusCode::OK, "application/json", body),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string()),
        },
        "/metrics" => (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", moves.metrics()),
        _ => (StatusCode::NOT_FOUND, "text/plain", "there are /moves and /metrics\n".to_owned()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
