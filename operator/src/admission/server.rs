//! The HTTPS server that the API server asks.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use kube::Client;
use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::{eviction, review};
use crate::{
    listen,
    metrics::{EvictionLabel, Metrics, VerdictLabel},
    world::World,
};

/// The API server gives up after five seconds.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The API server stores nothing larger; a review has an object twice.
const LARGEST_REVIEW: usize = 8 << 20;

/// The server for the API server's questions cannot be started or has ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the admission webhook cannot listen on {address}: is the port taken? ADMISSION_LISTEN names another one")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// For so long the API server may still come to a replica that ends: Services lead past it only when every node knows.
const STILL_KNOWN: Duration = Duration::from_secs(5);

/// What is being answered, and whether the replica is about to end.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    is_closing: AtomicBool,
    under_way: AtomicUsize,
}

impl Desk {
    /// Answers until nobody comes any more: a question that breaks off counts as none, and a pod would go without the operator.
    pub(crate) async fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
        sleep(STILL_KNOWN).await;
        let all_answered = async {
            while self.under_way.load(Ordering::Relaxed) > 0 {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = timeout(TIMEOUT, all_answered).await;
    }
}

/// A question that is being answered.
struct UnderWay<'a>(&'a Desk);

impl<'a> UnderWay<'a> {
    fn at(desk: &'a Desk) -> Self {
        desk.under_way.fetch_add(1, Ordering::Relaxed);
        Self(desk)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The certificate that is served, which changes while the server runs.
#[derive(Debug, Default)]
pub(crate) struct Serving(RwLock<Option<Arc<CertifiedKey>>>);

impl Serving {
    pub(super) fn replace(&self, key: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(key));
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves until the process ends. Every replica does, whether it holds the lease or not.
pub(crate) fn listen(
    address: SocketAddr,
    certificate: Arc<Serving>,
    client: Client,
    world: Arc<World>,
    metrics: Arc<Metrics>,
    desk: Arc<Desk>,
) -> Result<JoinHandle<Result<(), Error>>, Error> {
    let failed = move |source| Error::Listen { address, source };
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = listen::listen(address).map_err(failed)?;
    let reviewer = Reviewer { client, world, turns: Arc::default(), metrics, desk };
    Ok(tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.map_err(failed)?;
            tokio::spawn(serve(stream, acceptor.clone(), reviewer.clone()));
        }
    }))
}

/// What it takes to answer.
#[derive(Clone)]
struct Reviewer {
    client: Client,
    world: Arc<World>,
    turns: Arc<eviction::Turns>,
    metrics: Arc<Metrics>,
    desk: Arc<Desk>,
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, reviewer: Reviewer) {
    let stream = match timeout(TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%error, "no TLS with who asks about a TaskPlatform"),
        Err(_) => return debug!("whoever connected to the admission webhook said nothing"),
    };
    let service = service_fn(|request| {
        let reviewer = reviewer.clone();
        async move {
            let _under_way = UnderWay::at(&reviewer.desk);
            let mut response = answer(request, &reviewer).await;
            if reviewer.desk.is_closing.load(Ordering::Relaxed) {
                // The next question goes to another replica, over another connection.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).header_read_timeout(Duration::from_mins(2));
    if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
        debug!(%error, "a connection of the admission webhook ended early");
    }
}

async fn answer(request: Request<Incoming>, reviewer: &Reviewer) -> Response<String> {
    let refusal = |status, why: &str| {
        let mut response = Response::new(format!("{why}\n"));
        *response.status_mut() = status;
        response
    };
    let path = request.uri().path().to_owned();
    if request.method() != Method::POST || !["/admission", "/eviction"].contains(&&*path) {
        return refusal(StatusCode::NOT_FOUND, "POST an AdmissionReview to /admission or /eviction");
    }
    let body = timeout(TIMEOUT, Limited::new(request.into_body(), LARGEST_REVIEW).collect()).await;
    let Ok(Ok(body)) = body else {
        return refusal(StatusCode::BAD_REQUEST, "the review did not come whole");
    };
    let (body, metrics) = (body.to_bytes(), &reviewer.metrics);
    let review = if path == "/eviction" {
        let (review, eviction) = eviction::answer(&reviewer.client, (&reviewer.world, &reviewer.turns), &body).await;
        metrics.evictions.get_or_create(&EvictionLabel { eviction }).inc();
        review
    } else {
        let (review, verdict) = review::answer(&body);
        metrics.reviews.get_or_create(&VerdictLabel { verdict }).inc();
        review
    };
    match serde_json::to_string(&review) {
        Ok(text) => {
            let mut response = Response::new(text);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}
