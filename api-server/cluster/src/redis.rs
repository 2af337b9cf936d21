//! A connection to a Redis Cluster that outlives the cluster.
//!
//! The client library follows failovers and resharding. What it can't get over is that every address it knows is gone; so when nothing
//! has succeeded for a while, and no node answers, the connection is given up, and the seed's name is looked up again. As long as other shards
//! answer it is kept: to connect anew would have everyone wait for the one that does not.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use redis::{
    Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError,
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    cluster_routing::{MultipleNodeRoutingInfo, ResponsePolicy, RoutingInfo},
};
use task_api_resilience::background;
use thiserror::Error;
use tokio::{net::lookup_host, sync::Mutex, time::timeout};

/// A connection over which nothing has succeeded for so long is given up when something fails.
const LAPSE: Duration = Duration::from_secs(1);
/// After a connection could not be made, requests fail at once for so long.
const REST: Duration = Duration::from_millis(250);

/// How many of the addresses behind the seed's name are tried at once.
const SEEDS: usize = 32;

/// How long a request waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the cluster, tries of several nodes together.
    pub total: Duration,
    /// For one node.
    pub node: Duration,
    /// How often a request is tried again.
    pub retries: u32,
}

/// Why a cluster did not do what it should.
#[derive(Debug, Error)]
pub enum RedisFailure {
    /// It does not answer, or refuses.
    #[error("{0}")]
    Unavailable(String),
    /// Its URL can't be used.
    #[error("no Redis URL ({0}); it looks like redis://:password@host:6379")]
    Url(String),
}

/// A cluster. It is connected to when it is first needed.
pub struct Redis {
    /// What the log calls it.
    name: &'static str,
    seed: ConnectionInfo,
    patience: Patience,
    connection: Mutex<State>,
    began: Instant,
    /// When something last succeeded, in milliseconds after `began`.
    succeeded: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The connection, and the how-manieth it is.
    live: Option<(ClusterConnection, u64)>,
    made: u64,
    failed: Option<(Instant, String)>,
}

impl fmt::Debug for Redis {
    // The client holds a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Connects by whichever of the addresses behind the seed's name answers. The client library would take the first that accepts, as the kernel of a
/// node that stands still does.
async fn connect(seed: ConnectionInfo, patience: Patience) -> Result<ClusterConnection, RedisError> {
    let ConnectionAddr::Tcp(host, port) = seed.addr().clone() else {
        return client([seed], patience)?.get_async_connection().await;
    };
    let addresses = lookup_host((host, port)).await?.take(SEEDS);
    let seeds = addresses.map(|address| seed.clone().set_addr(ConnectionAddr::Tcp(address.ip().to_string(), port)));
    client(seeds, patience)?.get_async_connection().await
}

fn client(seeds: impl IntoIterator<Item = ConnectionInfo>, patience: Patience) -> Result<ClusterClient, RedisError> {
    ClusterClient::builder(seeds)
        .connection_timeout(patience.node)
        .response_timeout(patience.node)
        .overall_response_timeout(Some(patience.total))
        .retries(patience.retries)
        .min_retry_wait(50)
        .max_retry_wait(500)
        .build()
}

impl Redis {
    /// The cluster that the node at `url` belongs to.
    pub fn new(name: &'static str, url: &str, patience: Patience) -> Result<Self, RedisFailure> {
        // The error may quote the URL, which holds a password.
        let invalid = |error: RedisError| RedisFailure::Url(format!("{:?}", error.kind()));
        let seed = url.into_connection_info().map_err(invalid)?;
        client([seed.clone()], patience).map_err(invalid)?;
        let (connection, began, succeeded) = (Mutex::default(), Instant::now(), AtomicU64::new(0));
        Ok(Self { name, seed, patience, connection, began, succeeded })
    }

    /// Runs a command that may as well be run twice: one that finds the connection broken is run again over a new one.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisFailure> {
        let run = async {
            let began = Instant::now();
            loop {
                let (connection, number) = self.connection().await?;
                let error = match self.ask(command, connection.clone()).await {
                    Ok(value) => return Ok(value),
                    Err(error) => error,
                };
                // An error that the server sent came over a connection that works, unless the server speaks for a cluster that does not.
                let lost = error.is_io_error()
                    || error.is_cluster_error()
                    || error.kind() == ErrorKind::ClusterConnectionNotFound;
                // What breaks at once was broken before: everybody who served that connection is gone. What took long is down.
                let at_once = began.elapsed() < self.patience.total / 2;
                let is_gone = at_once && error.kind() == ErrorKind::ClusterConnectionNotFound;
                let again = lost && self.give_up(connection, number, is_gone).await && at_once;
                if !again {
                    return Err(RedisFailure::Unavailable(error.to_string()));
                }
            }
        };
        // To connect takes its time too.
        timeout(self.patience.total * 2, run)
            .await
            .unwrap_or_else(|_| Err(RedisFailure::Unavailable("no answer in time".to_owned())))
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd, mut connection: ClusterConnection) -> Result<T, RedisError> {
        let answer = timeout(self.patience.total, command.query_async(&mut connection)).await;
        let value = answer.unwrap_or_else(|_| Err(RedisError::from((ErrorKind::Io, "no answer in time"))))?;
        self.succeeded.store(self.now(), Ordering::Relaxed);
        Ok(value)
    }

    async fn connection(&self) -> Result<(ClusterConnection, u64), RedisFailure> {
        // Whoever comes while a connection is made waits here and gets the same one.
        let mut state = self.connection.lock().await;
        if let Some(live) = &state.live {
            return Ok(live.clone());
        }
        if let Some((at, cause)) = &state.failed
            && at.elapsed() < REST
        {
            return Err(RedisFailure::Unavailable(cause.clone()));
        }
        let (seed, patience) = (self.seed.clone(), self.patience);
        let made = background::spawn(async move { timeout(patience.total, connect(seed, patience)).await }).await;
        let made = made.map_err(|error| error.to_string());
        let made = made
            .and_then(|made| made.map_err(|_| "can't connect in time".to_owned()))
            .and_then(|made| made.map_err(|error| error.to_string()));
        match made {
            Ok(connection) => {
                state.made += 1;
                self.succeeded.store(self.now(), Ordering::Relaxed);
                state.failed = None;
                let live = (connection, state.made);
                state.live = Some(live.clone());
                tracing::info!("connected to the {}", self.name);
                Ok(live)
            }
            Err(cause) => {
                state.failed = Some((Instant::now(), cause.clone()));
                Err(RedisFailure::Unavailable(cause))
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Gives a connection up, unless something has just succeeded over it, or any node answers: where those that it knew are gone, it does not matter
    /// who answers. Returns whether the next is another.
    async fn give_up(&self, connection: ClusterConnection, number: u64, is_gone: bool) -> bool {
        let is_it = |live: &(ClusterConnection, u64)| live.1 == number;
        if !self.connection.lock().await.live.as_ref().is_some_and(is_it) {
            return true;
        }
        if !self.has_lapsed() || !is_gone && self.answers(connection).await {
            return false;
        }
        let mut state = self.connection.lock().await;
        state.live.take_if(|live| is_it(live));
        true
    }

    fn has_lapsed(&self) -> bool {
        u128::from(self.now().saturating_sub(self.succeeded.load(Ordering::Relaxed))) >= LAPSE.as_millis()
    }

    /// Whether any node answers over a connection. Where little is asked for, nothing may have succeeded for a while though one shard alone is
    /// away.
    async fn answers(&self, mut connection: ClusterConnection) -> bool {
        let any = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllNodes, Some(ResponsePolicy::OneSucceeded)));
        let answered = timeout(self.patience.node, connection.route_command(redis::cmd("PING"), any)).await;
        let answers = matches!(answered, Ok(Ok(_)));
        if answers {
            self.succeeded.store(self.now(), Ordering::Relaxed);
        }
        answers
    }
}
