//! Sessions in a Redis Cluster.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use redis::{Cmd, FromRedisValue, cmd};
use task_api_cluster::redis::{Redis, RedisFailure};
use task_api_domain::{mark::Mark, session::Digest};
use task_api_resilience::breaker::Breaker;

use crate::{Session, SessionError, WROTE_TTL};

/// Of two writes at once, the later one is remembered, in whatever order they get here. Compared as text: Lua rounds numbers of so many digits.
const REMEMBER: &str = "local last = redis.call('GET', KEYS[1]) \
     if not last or #last < #ARGV[1] or #last == #ARGV[1] and last < ARGV[1] then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end";

/// A session belongs to the generation that it begins in. Those of a user that were never ended together are of none.
const BEGIN: &str = "redis.call('SET', KEYS[1], redis.call('GET', KEYS[2]) or '1', 'EX', ARGV[1])";

/// By how much a generation outlives the sessions before it.
const SLACK: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(super) struct Remote {
    redis: Redis,
    /// One that hangs is not waited for by request after request.
    breaker: Breaker,
}

impl Remote {
    pub(super) fn new(redis: Redis, breaker: Breaker) -> Self {
        Self { redis, breaker }
    }

    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, SessionError> {
        let result = self.breaker.call(self.redis.run(command)).await;
        result.map_err(|broken| SessionError::Unavailable(broken.to_string()))
    }

    pub(super) async fn begin(&self, session: Digest, ttl: Duration) -> Result<(), SessionError> {
        let mut eval = cmd("EVAL");
        eval.arg(BEGIN).arg(2).arg(session_key(session)).arg(generation_key(session.user_id)).arg(ttl.as_secs());
        self.run(&eval).await
    }

    pub(super) async fn find(&self, session: Digest) -> Result<Option<Session>, SessionError> {
        let mut mget = cmd("MGET");
        mget.arg(session_key(session)).arg(wrote_key(session.user_id)).arg(generation_key(session.user_id));
        let (live, wrote, generation): (Option<String>, Option<i64>, Option<String>) = self.run(&mget).await?;
        let live = live.filter(|begun_in| generation.is_none_or(|generation| generation == *begun_in));
        Ok(live.map(|_| Session { wrote: wrote.map(Mark) }))
    }

    /// Ends all of a user's: what begins from now on is of another generation, which is known for as long as one of those may last.
    pub(super) async fn end_all(&self, user_id: i64, ttl: Duration) -> Result<(), SessionError> {
        let generation = format!("{:x}", getrandom::u64()?);
        let until = ttl.saturating_add(SLACK).as_secs();
        self.run(cmd("SET").arg(generation_key(user_id)).arg(generation).arg("EX").arg(until)).await
    }

    pub(super) async fn end(&self, session: Digest) -> Result<(), SessionError> {
        self.run(cmd("DEL").arg(session_key(session))).await
    }

    pub(super) async fn remember(&self, user_id: i64, Mark(mark): Mark) -> Result<(), SessionError> {
        let mut eval = cmd("EVAL");
        eval.arg(REMEMBER).arg(1).arg(wrote_key(user_id)).arg(mark).arg(WROTE_TTL.as_secs());
        self.run(&eval).await
    }

    pub(super) async fn wrote(&self, user_id: i64) -> Result<Option<Mark>, SessionError> {
        let wrote: Option<i64> = self.run(cmd("GET").arg(wrote_key(user_id))).await?;
        Ok(wrote.map(Mark))
    }

    /// Whoever asks wants to know it now, whatever happened before.
    pub(super) async fn check(&self) -> Result<(), SessionError> {
        let value = getrandom::u64()?;
        // The key is another one each time, so in the long run every shard is asked.
        let key = format!("ready:{value:x}");
        self.redis.run::<()>(cmd("SET").arg(&key).arg(value).arg("EX").arg(10)).await?;
        let found: Option<u64> = self.redis.run(cmd("GET").arg(&key)).await?;
        if found == Some(value) {
            return Ok(());
        }
        Err(SessionError::Unavailable("a value that was just set is not there".to_owned()))
    }
}

impl From<RedisFailure> for SessionError {
    fn from(failure: RedisFailure) -> Self {
        Self::Unavailable(failure.to_string())
    }
}

// What stands in braces decides on the slot: a user's keys are all in one.
fn session_key(Digest { user_id, hash }: Digest) -> String {
    format!("session:{{{user_id}}}:{}", URL_SAFE_NO_PAD.encode(hash))
}

fn generation_key(user_id: i64) -> String {
    format!("generation:{{{user_id}}}")
}

fn wrote_key(user_id: i64) -> String {
    format!("wrote:{{{user_id}}}")
}
