//! Connections: accepts them, keeps their number bounded, and lets each finish.

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
    App,
    server::exchange::{After, Exchange},
};

/// After the host had no file descriptor left for a connection, the next is accepted this much later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// As long as that lasts, it is not said again.
const ACCEPT_SILENCE: Duration = Duration::from_secs(30);

/// A request that was sent when the connection was told to close arrives within this.
const LAST_CALL: Duration = Duration::from_millis(50);

/// The open connections of a listener.
#[derive(Clone, Debug)]
pub struct Connections {
    /// Each connection watches this; its count of receivers says how many there are.
    close: watch::Sender<bool>,
}

/// How many connections are served, and what becomes of more.
#[derive(Clone, Debug)]
pub struct Bound {
    /// So many at once.
    pub most: usize,
    /// Answers those beyond them, a request each.
    pub beyond: Router,
    /// Where they are counted.
    pub app: Arc<App>,
}

impl Default for Connections {
    fn default() -> Self {
        Self { close: watch::Sender::new(false) }
    }
}

impl Connections {
    /// Accepts connections until it is told to [finish](Self::finish).
    pub async fn accept(self, listener: TcpListener, router: Router, bound: Option<Bound>) {
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
            let over = bound.as_ref().filter(|bound| self.close.receiver_count() > bound.most);
            let exchange = match over {
                None => Exchange::new(router.clone()),
                Some(bound) => {
                    bound.app.metrics.shed.connections.inc();
                    Exchange::only_one(bound.beyond.clone())
                }
            };
            let close = self.close.subscribe();
            tokio::spawn(async move {
                serve(stream, exchange, close).await;
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

/// Serves a connection until it ends.
///
/// Between two requests it holds nothing but the socket. HTTP's buffers, some 20 KiB, come with the first byte of a request and go
/// after the last of the answer, so ten thousand connections of which a few hundred are busy take the memory of a few hundred.
async fn serve(mut stream: TcpStream, exchange: Exchange, mut close: watch::Receiver<bool>) {
    let mut closing = pin!(closing(&mut close).fuse());
    // What came together with the request before.
    let mut read = Bytes::new();
    loop {
        if read.is_empty() && !wake(&stream, exchange.patience(), closing.as_mut()).await {
            return;
        }
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
mod tests {
    use axum::{
        http::StatusCode,
        routing::{get, post},
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::http::JsonBody;

    use crate::server::exchange::IDLE_TIMEOUT;

    const ANSWER: &str = "a small answer";
    /// More than the sockets' buffers hold.
    const LARGE: usize = 64 << 20;

    /// A client, and the connections that it is one of. Nobody really waits: time passes when nothing else can happen, but in small
    /// steps, so that what is on its way between the sockets arrives before much of it has passed.
    async fn connect() -> (TcpStream, Connections) {
        tokio::spawn(async {
            loop {
                sleep(Duration::from_millis(2)).await;
                std::thread::yield_now();
            }
        });
        let router = Router::new()
            .route("/", get(async || ANSWER))
            .route("/large", get(async || "x".repeat(LARGE)))
            .route("/read", post(async |_: JsonBody| StatusCode::OK));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Connections::default();
        tokio::spawn(connections.clone().accept(listener, router, None));
        (TcpStream::connect(address).await.unwrap(), connections)
    }

    /// Everything until the connection ends, and how long that took.
    async fn rest(mut client: TcpStream) -> (String, Duration) {
        let began = Instant::now();
        let mut bytes = Vec::new();
        // A reset ends it as well.
        let _ = client.read_to_end(&mut bytes).await;
        (String::from_utf8(bytes).unwrap(), began.elapsed())
    }

    async fn answers(client: &mut TcpStream, count: usize) {
        let mut text = String::new();
        while text.matches(ANSWER).count() < count {
            let mut bytes = [0; 4096];
            let read = client.read(&mut bytes).await.unwrap();
            assert!(read > 0, "{text}");
            text += std::str::from_utf8(&bytes[..read]).unwrap();
        }
    }

    #[tokio::test]
    async fn a_connection_serves_one_request_after_the_other() {
        let (mut client, _connections) = connect().await;
        for _ in 0..3 {
            client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            answers(&mut client, 1).await;
        }
        // Three at once, of which the last comes in two parts.
        let three = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(3);
        client.write_all(&three[..70]).await.unwrap();
        answers(&mut client, 2).await;
        client.write_all(&three[70..]).await.unwrap();
        answers(&mut client, 1).await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let (last, took) = rest(client).await;
        assert!(last.ends_with(ANSWER) && took < IDLE_TIMEOUT, "{last} after {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_closed_after_a_while() {
        let (mut client, _connections) = connect().await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let (_, took) = rest(client).await;
        assert!((IDLE_TIMEOUT..IDLE_TIMEOUT * 2).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_drips_is_cut_off() {
        let (client, _connections) = connect().await;
        let (read, mut write) = client.into_split();
        let drip = tokio::spawn(async move {
            for byte in b"GET / HTTP/1.1\r\nhost: a-long-name.example.com\r\n\r\n" {
                write.write_all(&[*byte]).await?;
                sleep(Duration::from_secs(1)).await;
            }
            Ok::<_, std::io::Error>(write)
        });
        let began = Instant::now();
        let mut bytes = Vec::new();
        let _ = { read }.read_to_end(&mut bytes).await;
        assert_eq!(bytes, b"", "there is no request to answer");
        assert!((9..20).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        drop(drip);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let (mut client, _connections) = connect().await;
        let head = "POST /read HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
        client.write_all(head.as_bytes()).await.unwrap();
        let (answer, took) = rest(client).await;
        assert!(answer.starts_with("HTTP/1.1 408") && took < Duration::from_secs(20), "{answer} after {took:?}");
    }

    #[tokio::test]
    async fn a_body_that_nobody_reads_is_not_in_the_way() {
        let (mut client, _connections) = connect().await;
        for _ in 0..3 {
            client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 19\r\n\r\n").await.unwrap();
            tokio::task::yield_now().await;
            client.write_all(b"GET /large HTTP/1.1").await.unwrap();
            answers(&mut client, 1).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_reads_is_not_waited_for_either() {
        let (mut client, _connections) = connect().await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nGET /large").await.unwrap();
        let (answer, took) = rest(client).await;
        assert!(answer.contains("connection: close") && answer.ends_with(ANSWER), "{answer}");
        assert!(took < IDLE_TIMEOUT, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_cut_off() {
        let (mut client, connections) = connect().await;
        let began = Instant::now();
        client.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        client.readable().await.unwrap();
        // One more watches: the loop that accepts.
        while connections.close.receiver_count() > 1 {
            sleep(Duration::from_secs(1)).await;
        }
        assert!((29..60).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        assert!(rest(client).await.0.len() < LARGE);
    }

    #[tokio::test]
    async fn the_end_waits_for_an_answer_and_not_for_the_idle() {
        let (mut busy, connections) = connect().await;
        busy.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        busy.readable().await.unwrap();
        let finish = tokio::spawn(connections.finish());
        let (answer, took) = rest(busy).await;
        assert!(answer.len() > LARGE && took < IDLE_TIMEOUT, "{} after {took:?}", answer.len());
        finish.await.unwrap();
    }
}
