//! The listener: accepts connections, keeps their number bounded, and lets each finish.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Bytes};
use futures::future::{FusedFuture, FutureExt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    app::App,
    server::{
        exchange::{After, Exchange, HEAD_TIMEOUT, IDLE_TIMEOUT},
        probes,
    },
};

/// After the host had no file descriptor left for a connection, the next is accepted this much later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// As long as that lasts, it is not said again.
const ACCEPT_SILENCE: Duration = Duration::from_secs(30);

/// A request that was sent when the connection was told to close arrives within this.
const LAST_CALL: Duration = Duration::from_millis(50);

/// The open connections of a listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Each connection watches this; its count of receivers says how many there are.
    close: watch::Sender<bool>,
}

/// How much is served at once, and what becomes of more.
#[derive(Debug)]
pub struct Bound {
    /// So many connections.
    pub connections: usize,
    /// Answers on those beyond them, a request each.
    pub beyond: Router,
    /// Answers requests for which there is no place.
    pub overloaded: Router,
    /// Admits requests, and counts.
    pub app: Arc<App>,
}

impl Default for Listener {
    fn default() -> Self {
        Self { close: watch::Sender::new(false) }
    }
}

impl Listener {
    /// Accepts connections until it is told to [finish](Self::finish).
    pub async fn accept(self, listener: TcpListener, router: Router, bound: Option<Bound>) {
        let bound = bound.map(Arc::new);
        let mut close = self.close.subscribe();
        let mut said: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                // Who was let in by the kernel is answered, even at the end.
                biased;
                accepted = listener.accept() => accepted,
                () = closing(&mut close) => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if said.is_none_or(|said| said.elapsed() > ACCEPT_SILENCE) {
                        tracing::warn!("can't accept connections: {error}; they wait until some have closed");
                        said = Some(Instant::now());
                    }
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Answers are small: waiting to fill a packet only delays them.
            let _ = stream.set_nodelay(true);
            let guard = bound.as_ref().map(|bound| bound.app.metrics.connection());
            let connection = match &bound {
                Some(bound) if self.close.receiver_count() > bound.connections => {
                    bound.app.metrics.shed.connections.inc();
                    Connection { router: bound.beyond.clone(), bound: None, keep_alive: false }
                }
                _ => Connection { router: router.clone(), bound: bound.clone(), keep_alive: true },
            };
            let close = self.close.subscribe();
            tokio::spawn(async move {
                serve(stream, connection, close).await;
                drop(guard);
            });
        }
    }

    /// Accepts no more, closes idle connections and waits for the others to finish their request.
    pub async fn finish(self) {
        self.close.send_replace(true);
        self.close.closed().await;
    }
}

/// How a connection is served.
struct Connection {
    /// Answers requests.
    router: Router,
    /// Where a request gets its place, if it needs one.
    bound: Option<Arc<Bound>>,
    /// Whether it is served for more than a request.
    keep_alive: bool,
}

impl Connection {
    /// Lets a request in that begins to come: `read` was read of it already. It waits for its turn here, where it costs
    /// nothing, since it is still in the socket's buffer.
    async fn admit(&self, stream: &TcpStream, read: &[u8]) -> Exchange<'_> {
        let exchange = Exchange::new(&self.router, self.keep_alive);
        let Some(bound) = &self.bound else { return exchange };
        let admission = &bound.app.admission;
        if let Some(permit) = admission.try_enter() {
            return exchange.with(permit);
        }
        // Whether this instance lives does not depend on how busy it is.
        if comes_a_probe(stream, read) {
            return exchange;
        }
        let came = Instant::now();
        let Ok(permit) = admission.enter().await else {
            bound.app.metrics.shed.requests.inc();
            return Exchange::new(&bound.overloaded, self.keep_alive).since(came);
        };
        exchange.with(permit).since(came)
    }

    /// How long a request may be waited for.
    fn patience(&self) -> Duration {
        if self.keep_alive { IDLE_TIMEOUT } else { HEAD_TIMEOUT }
    }
}

fn comes_a_probe(stream: &TcpStream, read: &[u8]) -> bool {
    if !read.is_empty() {
        return probes::is_one(read);
    }
    let mut beginning = [0; probes::LONGEST];
    let peeked = stream.peek(&mut beginning).now_or_never();
    peeked.and_then(Result::ok).is_some_and(|length| probes::is_one(&beginning[..length]))
}

/// Serves a connection until it ends.
///
/// Between two requests it holds nothing but the socket, and neither does it while a request waits for its turn. HTTP's buffers, some
/// 20 KiB, come with the turn and go after the last of the answer, so ten thousand connections take the memory of the few that are served.
async fn serve(mut stream: TcpStream, connection: Connection, mut close: watch::Receiver<bool>) {
    let mut closing = pin!(closing(&mut close).fuse());
    // What came together with the request before.
    let mut read = Bytes::new();
    loop {
        if read.is_empty() && !wake(&stream, connection.patience(), closing.as_mut()).await {
            return;
        }
        let exchange = connection.admit(&stream, &read).await;
        // In a box, or the state of an exchange would be a part of every idle connection's.
        match Box::pin(exchange.run(stream, read, closing.as_mut())).await {
            After::Rest(socket, rest) => (stream, read) = (socket, rest),
            After::Closed => return,
        }
    }
}

/// Waits for a request's first byte; false if the connection is to end instead.
async fn wake(stream: &TcpStream, patience: Duration, closing: Pin<&mut impl FusedFuture<Output = ()>>) -> bool {
    if closing.is_terminated() {
        return false;
    }
    let readable = tokio::select! {
        readable = timeout(patience, stream.readable()) => readable,
        () = closing => timeout(LAST_CALL, stream.readable()).await,
    };
    matches!(readable, Ok(Ok(())))
}

async fn closing(close: &mut watch::Receiver<bool>) {
    // Fails only when the listener is gone, and then there is nothing to serve either.
    let _ = close.wait_for(|close| *close).await;
}

#[cfg(test)]
mod tests;
