//! The server: listens, starts what runs beside it, drains.

pub mod admission;
pub(crate) mod exchange;
pub mod lifecycle;
pub mod listener;
pub mod probes;
pub mod router;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};

use crate::{
    Config,
    app::App,
    error::StartError,
    server::listener::{Bound, Listener},
    upkeep,
};

/// For so long after the process was told to stop, whoever is connected or still comes is answered, and told to connect elsewhere: a
/// connection closed at once might be closed on a request that is on its way.
const LINGER: Duration = Duration::from_secs(1);
/// How long requests may take after that. Kubernetes kills the process 30 s after it told it.
const FINISH: Duration = Duration::from_secs(24);

/// How many connections may wait to be accepted: as many as the kernel allows by default.
const BACKLOG: u32 = 4096;

/// Serves until SIGTERM or SIGINT, then finishes what was begun.
///
/// The ports are open at once: health answers while the database is waited for, and readiness says what is waited for.
pub async fn run(app: Arc<App>, config: &Config) -> Result<(), StartError> {
    allow_many_files();
    let (address, metrics_address) = (config.listen, config.metrics_listen);
    let api = listen(address)?;
    let metrics = listen(metrics_address)?;
    tracing::info!(address = %local(&api, address), metrics = %local(&metrics, metrics_address), "listening");
    let stop = stop_signal()?;

    let upkeep = tokio::spawn(prepare_and_keep_up(Arc::clone(&app)));
    let metrics = tokio::spawn(Listener::default().accept(metrics, router::metrics(Arc::clone(&app)), None));
    let caches = tokio::spawn(keep_caches(Arc::clone(&app)));
    let connections = Listener::default();
    let bound = Bound {
        connections: app.most_connections,
        beyond: router::refusing(Arc::clone(&app), "connections"),
        overloaded: router::refusing(Arc::clone(&app), "requests"),
        app: Arc::clone(&app),
    };
    tokio::spawn(connections.clone().accept(api, router::api(Arc::clone(&app))?, Some(bound)));

    stop.await;
    app.lifecycle.drain();
    tracing::info!(connections = app.metrics.open_connections(), "stopping: open requests are finished");
    if app.metrics.open_connections() > 0 {
        sleep(LINGER).await;
    }
    let finished = timeout(FINISH, connections.finish()).await.is_ok();
    if !finished {
        tracing::warn!(connections = app.metrics.open_connections(), "requests are cut off after {FINISH:?}");
    }
    app.tasks.leave().await;
    upkeep.abort();
    caches.abort();
    metrics.abort();
    tracing::info!("stopped");
    Ok(())
}

/// Every connection is a file, and the usual limit is 1024; the process may raise it to what its host allows.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(limit = limit.current, "no more files can be opened than by default: {error}");
    }
}

/// Opens a port. `[::]` is every address that the kernel has: without IPv6, those of IPv4.
pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let listen = || {
        let (socket, address) = match (TcpSocket::new_v6(), address) {
            (Err(_), SocketAddr::V6(every)) if every.ip().is_unspecified() => {
                (TcpSocket::new_v4()?, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), every.port()))
            }
            (socket, SocketAddr::V6(_)) => (socket?, address),
            (_, SocketAddr::V4(_)) => (TcpSocket::new_v4()?, address),
        };
        // A process that has just ended does not keep the next from its port.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|cause| StartError::Listen { address, cause })
}

/// Where a listener listens, if port 0 was asked for.
pub(crate) fn local(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

/// Comes true with the first SIGTERM or SIGINT.
pub(crate) fn stop_signal() -> Result<impl Future<Output = ()>, StartError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn keep_caches(app: Arc<App>) {
    app.tasks.keep().await;
}

/// Waits for the database and brings its schema up to date. A file that only this process uses has no worker, so this looks after it too.
async fn prepare_and_keep_up(app: Arc<App>) {
    upkeep::prepare(&app.store).await;
    if let Err(error) = app.sessions.recall().await {
        tracing::warn!("whoever was logged in has to log in again: {error}");
    }
    app.lifecycle.start();
    tracing::info!("serving");
    if app.store.is_embedded() {
        upkeep::keep_up(&app.store).await;
    }
}
