//! A connection to a Redis Cluster that outlives the cluster.
//!
//! The client library follows failovers and resharding. What it can't get over is that every address it knows is gone; so when nothing
//! has succeeded for a while the connection is given up, and the next request looks the seed's name up again. As long as other shards
//! answer it is kept: to connect anew would have everyone wait for the one that does not.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, cluster::ClusterClient, cluster_async::ClusterConnection};
use thiserror::Error;
use tokio::{sync::Mutex, time::timeout};

use crate::background;

/// A connection over which nothing has succeeded for so long is given up when something fails.
const LAPSE: Duration = Duration::from_secs(1);
/// After a connection could not be made, requests fail at once for so long.
const REST: Duration = Duration::from_millis(250);

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
    client: ClusterClient,
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

impl Redis {
    /// The cluster that the node at `url` belongs to.
    pub fn new(name: &'static str, url: &str, patience: Patience) -> Result<Self, RedisFailure> {
        let client = ClusterClient::builder([url])
            .connection_timeout(patience.node)
            .response_timeout(patience.node)
            .overall_response_timeout(Some(patience.total))
            .retries(patience.retries)
            .min_retry_wait(50)
            .max_retry_wait(500)
            .build()
            // The error may quote the URL, which holds a password.
            .map_err(|error| RedisFailure::Url(format!("{:?}", error.kind())))?;
        let (connection, began, succeeded) = (Mutex::default(), Instant::now(), AtomicU64::new(0));
        Ok(Self { name, client, patience, connection, began, succeeded })
    }

    /// Runs a command.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisFailure> {
        let run = async {
            let (mut connection, number) = self.connection().await?;
            let result = timeout(self.patience.total, command.query_async(&mut connection)).await;
            let error = match result {
                Ok(Ok(value)) => {
                    self.succeeded.store(self.now(), Ordering::Relaxed);
                    return Ok(value);
                }
                Ok(Err(error)) => error,
                Err(_) => RedisError::from((ErrorKind::Io, "no answer in time")),
            };
            // An error that the server sent came over a connection that works, unless the server speaks for a cluster that does not.
            if error.is_io_error() || error.is_cluster_error() || error.kind() == ErrorKind::ClusterConnectionNotFound {
                self.give_up(number).await;
            }
            Err(RedisFailure::Unavailable(error.to_string()))
        };
        // To connect takes its time too.
        timeout(self.patience.total * 2, run)
            .await
            .unwrap_or_else(|_| Err(RedisFailure::Unavailable("no answer in time".to_owned())))
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
        let (client, total) = (self.client.clone(), self.patience.total);
        let made = background::spawn(async move { timeout(total, client.get_async_connection()).await }).await;
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

    async fn give_up(&self, number: u64) {
        if u128::from(self.now().saturating_sub(self.succeeded.load(Ordering::Relaxed))) < LAPSE.as_millis() {
            return;
        }
        let mut state = self.connection.lock().await;
        if state.live.as_ref().is_some_and(|(_, live)| *live == number) {
            state.live = None;
        }
    }
}
