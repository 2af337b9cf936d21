//! Connections: accepts them, speaks HTTP/1.1 on each, and lets each finish.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

use crate::App;

/// How long a connection may be idle or a request's head take to arrive. nginx closes idle connections after 60 s: if this side
/// were first, a request could meet the closing one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// After the host had no file descriptor left for a connection, the next is accepted this much later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The open connections of a listener.
#[derive(Clone, Debug)]
pub struct Connections {
    /// Each connection watches this; its count of receivers says how many there are.
    close: watch::Sender<bool>,
}

impl Default for Connections {
    fn default() -> Self {
        Self { close: watch::Sender::new(false) }
    }
}

impl Connections {
    /// Accepts connections for as long as it is polled. They are counted in `counted`'s metrics.
    pub async fn accept(self, listener: TcpListener, router: Router, counted: Option<Arc<App>>) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let guard = counted.as_ref().map(|app| app.metrics.connection());
                    let serving = serve(stream, router.clone(), self.close.subscribe());
                    tokio::spawn(async move {
                        serving.await;
                        drop(guard);
                    });
                }
                Err(error) => {
                    tracing::warn!("can't accept a connection: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Closes idle connections and waits for the others to finish their request.
    pub async fn finish(self) {
        self.close.send_replace(true);
        self.close.closed().await;
    }
}

async fn serve(stream: TcpStream, router: Router, mut close: watch::Receiver<bool>) {
    // Answers are small: waiting to fill a packet only delays them.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = closing(&mut close) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!("connection ended: {error}");
    }
}

async fn closing(close: &mut watch::Receiver<bool>) {
    // Fails only when the listener is gone, and then there is nothing to serve either.
    let _ = close.wait_for(|close| *close).await;
}
