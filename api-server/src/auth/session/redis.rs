//! Sessions in a Redis Cluster.
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
use tokio::{sync::Mutex, time::timeout};

use crate::{
    auth::session::{Session, SessionError, Token, WROTE_TTL},
    store::Mark,
};

/// What a request waits for the store at most.
const TIMEOUT: Duration = Duration::from_secs(2);
/// What it waits for one node, so that there is time to ask another.
const NODE_TIMEOUT: Duration = Duration::from_millis(700);
/// A connection over which nothing has succeeded for so long is given up when something fails.
const LAPSE: Duration = Duration::from_secs(1);
/// After a connection could not be made, requests fail at once for so long.
const REST: Duration = Duration::from_millis(250);

/// Of two writes at once, the later one is remembered, in whatever order they get here.
const REMEMBER: &str = "local last = redis.call('GET', KEYS[1]) \
     if not last or tonumber(last) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end";

pub(super) struct Redis {
    client: ClusterClient,
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
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}

impl Redis {
    pub(super) fn new(url: &str) -> Result<Self, SessionError> {
        let client = ClusterClient::builder([url])
            .connection_timeout(NODE_TIMEOUT)
            .response_timeout(NODE_TIMEOUT)
            .overall_response_timeout(Some(TIMEOUT))
            .retries(3)
            .min_retry_wait(50)
            .max_retry_wait(500)
            .build()
            // The error may quote the URL, which holds a password.
            .map_err(|error| SessionError::Url(format!("{:?}", error.kind())))?;
        Ok(Self { client, connection: Mutex::default(), began: Instant::now(), succeeded: AtomicU64::new(0) })
    }

    pub(super) async fn begin(&self, token: &Token, ttl: Duration) -> Result<(), SessionError> {
        self.run(redis::cmd("SET").arg(session_key(token)).arg(1).arg("EX").arg(ttl.as_secs())).await
    }

    pub(super) async fn find(&self, token: &Token) -> Result<Option<Session>, SessionError> {
        let mut mget = redis::cmd("MGET");
        let (live, wrote): (Option<String>, Option<i64>) =
            self.run(mget.arg(session_key(token)).arg(wrote_key(token.user_id()))).await?;
        Ok(live.map(|_| Session { wrote: wrote.map(Mark) }))
    }

    pub(super) async fn end(&self, token: &Token) -> Result<(), SessionError> {
        self.run(redis::cmd("DEL").arg(session_key(token))).await
    }

    pub(super) async fn remember(&self, user_id: i64, Mark(mark): Mark) -> Result<(), SessionError> {
        let mut eval = redis::cmd("EVAL");
        self.run(eval.arg(REMEMBER).arg(1).arg(wrote_key(user_id)).arg(mark).arg(WROTE_TTL.as_secs())).await
    }

    pub(super) async fn check(&self) -> Result<(), SessionError> {
        let value = getrandom::u64()?;
        // The key is another one each time, so in the long run every shard is asked.
        let key = format!("ready:{value:x}");
        self.run::<()>(redis::cmd("SET").arg(&key).arg(value).arg("EX").arg(10)).await?;
        let found: Option<u64> = self.run(redis::cmd("GET").arg(&key)).await?;
        if found == Some(value) {
            return Ok(());
        }
        Err(SessionError::Unavailable("a value that was just set is not there".to_owned()))
    }

    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, SessionError> {
        let run = async {
            let (mut connection, number) = self.connection().await?;
            let result = timeout(TIMEOUT, command.query_async(&mut connection)).await;
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
            Err(SessionError::Unavailable(error.to_string()))
        };
        timeout(TIMEOUT + TIMEOUT, run)
            .await
            .unwrap_or_else(|_| Err(SessionError::Unavailable("no answer in time".to_owned())))
    }

    async fn connection(&self) -> Result<(ClusterConnection, u64), SessionError> {
        // Whoever comes while a connection is made waits here and gets the same one.
        let mut state = self.connection.lock().await;
        if let Some(live) = &state.live {
            return Ok(live.clone());
        }
        if let Some((at, cause)) = &state.failed
            && at.elapsed() < REST
        {
            return Err(SessionError::Unavailable(cause.clone()));
        }
        let made = timeout(TIMEOUT, self.client.get_async_connection()).await;
        let made = made
            .map_err(|_| "can't connect in time".to_owned())
            .and_then(|made| made.map_err(|error| error.to_string()));
        match made {
            Ok(connection) => {
                state.made += 1;
                self.succeeded.store(self.now(), Ordering::Relaxed);
                state.failed = None;
                let live = (connection, state.made);
                state.live = Some(live.clone());
                tracing::info!("connected to the session store");
                Ok(live)
            }
            Err(cause) => {
                state.failed = Some((Instant::now(), cause.clone()));
                Err(SessionError::Unavailable(cause))
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

// What stands in braces decides on the slot: a user's keys are all in one.
fn session_key(token: &Token) -> String {
    format!("session:{{{}}}:{}", token.user_id(), token.digest())
}

fn wrote_key(user_id: i64) -> String {
    format!("wrote:{{{user_id}}}")
}
