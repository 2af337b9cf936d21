//! Takes connections to where they may go, and ends them when that is lost.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::targets::{Pool, Targets};

/// A new connection is held for so long while nobody can take it.
const HOLD: Duration = Duration::from_mins(1);
/// An address that is alive answers within this time, also over a busy network.
const CONNECT: Duration = Duration::from_secs(1);
/// The wait after one that refused.
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// More than the largest pools that a spec can ask for.
const MOST_CONNECTIONS: usize = 4096;
/// A file descriptor is free again soon, as a rule.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How a client begins that wants another connection's query to end: length, code.
const CANCEL: [u8; 8] = [0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e];

/// Relays the connections of one pool.
#[derive(Clone)]
pub(crate) struct Relay {
    listener: Arc<TcpListener>,
    pool: Pool,
    targets: watch::Receiver<Targets>,
    /// How many connections each target has.
    open: Arc<Mutex<HashMap<SocketAddr, usize>>>,
}

impl Relay {
    pub(crate) fn new(listener: TcpListener, pool: Pool, targets: watch::Receiver<Targets>) -> Self {
        Self { listener: Arc::new(listener), pool, targets, open: Arc::default() }
    }

    /// Accepts for ever.
    pub(crate) async fn serve(self) {
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((client, _)) => {
                    let relay = self.clone();
                    tokio::spawn(async move {
                        if let Err(error) = relay.relay(client).await {
                            debug!(pool = ?relay.pool, %error, "a connection ends");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(%error, "no connection is accepted");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }

    async fn relay(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut beginning = [0; CANCEL.len()];
        client.readable().await?;
        let length = client.peek(&mut beginning).await?;
        if beginning[..length] == CANCEL {
            return self.cancel(client).await;
        }
        // A client that leaves meanwhile does not occupy a place.
        let (mut server, address) = tokio::select! {
            connected = timeout(HOLD, self.connect()) => connected.map_err(|_| io::ErrorKind::TimedOut)?,
            () = left(&client) => return Ok(()),
        };
        let _counted = self.count(address);
        server.set_nodelay(true)?;
        tokio::select! {
            copied = copy_bidirectional(&mut client, &mut server) => copied.map(drop),
            () = self.lost(address) => {
                debug!(pool = ?self.pool, %address, "a connection has no use any more");
                Ok(())
            }
        }
    }

    /// Until somebody can take it.
    async fn connect(&self) -> (TcpStream, SocketAddr) {
        let mut targets = self.targets.clone();
        let mut refused: Vec<SocketAddr> = Vec::new();
        loop {
            let candidates = targets.borrow_and_update().candidates(self.pool);
            let Some(address) = self.least_used(&candidates, &refused) else {
                refused.clear();
                let _ = timeout(TRY_AGAIN, targets.changed()).await;
                continue;
            };
            match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(server)) => return (server, address),
                // The others first.
                Ok(Err(_)) | Err(_) => refused.push(address),
            }
        }
    }

    fn least_used(&self, candidates: &[SocketAddr], refused: &[SocketAddr]) -> Option<SocketAddr> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let left = candidates.iter().filter(|address| !refused.contains(address));
        left.min_by_key(|address| open.get(address).copied().unwrap_or_default()).copied()
    }

    fn count(&self, address: SocketAddr) -> Counted {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        *open.entry(address).or_default() += 1;
        Counted { open: Arc::clone(&self.open), address }
    }

    /// Until a connection to this address has no use any more.
    async fn lost(&self, address: SocketAddr) {
        let mut targets = self.targets.clone();
        // An error: the router ends.
        let _ = targets.wait_for(|targets| targets.has_lost(self.pool, address)).await;
    }

    /// Which member runs the query is known to that member alone: the others take no notice.
    async fn cancel(&self, mut client: TcpStream) -> io::Result<()> {
        let mut request = [0; 16];
        timeout(CONNECT, tokio::io::AsyncReadExt::read_exact(&mut client, &mut request)).await??;
        let candidates = self.targets.borrow().candidates(self.pool);
        for address in candidates {
            let tell = async { TcpStream::connect(address).await?.write_all(&request).await };
            if let Err(error) = timeout(CONNECT, tell).await.map_err(io::Error::from).flatten() {
                debug!(%address, %error, "a query is not cancelled there");
            }
        }
        Ok(())
    }
}

/// A connection that is counted as long as it is there.
struct Counted {
    open: Arc<Mutex<HashMap<SocketAddr, usize>>>,
    address: SocketAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// Until the client has left. It has said something already, so that it has to be asked again and again.
async fn left(client: &TcpStream) {
    let mut byte = [0];
    loop {
        sleep(ACCEPT_AGAIN).await;
        if let Ok(Ok(0) | Err(_)) = timeout(Duration::ZERO, client.peek(&mut byte)).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{patroni::Sight, targets::Member};

    /// A server that says its name to whoever comes, and echoes.
    async fn server(name: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut question = [0; 64];
                    while let Ok(length @ 1..) = stream.read(&mut question).await {
                        let _ = stream.write_all(format!("{name}:").as_bytes()).await;
                        let _ = stream.write_all(&question[..length]).await;
                    }
                });
            }
        });
        address
    }

    fn leads(address: SocketAddr) -> Member {
        Member { address, sight: Sight::Leads { timeline: 1, position: 0 }, misses: 0 }
    }

    fn follows(address: SocketAddr) -> Member {
        Member { address, sight: Sight::Follows { position: 0 }, misses: 0 }
    }

    async fn relay(pool: Pool, members: &[Member]) -> (SocketAddr, watch::Sender<Targets>) {
        let (publish, targets) = watch::channel(Targets::of(members, 0));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(Relay::new(listener, pool, targets).serve());
        (address, publish)
    }

    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(b"hello").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            let mut some = [0; 64];
            let length = stream.read(&mut some).await.unwrap();
            if length == 0 {
                return "the end".to_owned();
            }
            answer.extend_from_slice(&some[..length]);
        }
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn a_connection_is_held_until_somebody_leads() {
        let (one, two) = (server("one").await, server("two").await);
        let (address, publish) = relay(Pool::Primary, &[follows(one)]).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"he").await.unwrap();
        let mut byte = [0];
        assert!(timeout(Duration::from_millis(200), client.read(&mut byte)).await.is_err(), "nobody leads yet");
        publish.send(Targets::of(&[follows(one), leads(two)], 0)).unwrap();
        assert!(ask(&mut client).await.starts_with("two:he"));
    }

    #[tokio::test]
    async fn connections_to_who_leads_no_more_end() {
        let (one, two) = (server("one").await, server("two").await);
        let (address, publish) = relay(Pool::Primary, &[leads(one), follows(two)]).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(&mut client).await, "one:hello");
        publish.send(Targets::of(&[follows(one), follows(two)], 0)).unwrap();
        let mut byte = [0];
        assert_eq!(client.read(&mut byte).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn reads_are_spread_over_the_replicas_that_answer() {
        let (one, two) = (server("one").await, server("two").await);
        let gone = { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };
        let members = [leads(one), follows(two), follows(gone)];
        let (address, _publish) = relay(Pool::Replicas, &members).await;
        let (mut first, mut second) =
            (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        assert_eq!(ask(&mut first).await, "two:hello");
        assert_eq!(ask(&mut second).await, "two:hello");
    }

    #[tokio::test]
    async fn a_request_to_cancel_reaches_every_replica() {
        let mut replicas = Vec::new();
        for _ in 0..2 {
            replicas.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let members: Vec<Member> = replicas.iter().map(|replica| follows(replica.local_addr().unwrap())).collect();
        let (address, _publish) = relay(Pool::Replicas, &members).await;
        let request = [&CANCEL[..], &[0, 0, 0, 7, 1, 2, 3, 4]].concat();
        TcpStream::connect(address).await.unwrap().write_all(&request).await.unwrap();
        for replica in replicas {
            let (mut stream, _) = replica.accept().await.unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, request);
        }
    }
}
