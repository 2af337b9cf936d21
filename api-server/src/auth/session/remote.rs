//! Sessions in a Redis Cluster.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use redis::cmd;

use crate::{
    auth::session::{Digest, Session, SessionError, WROTE_TTL},
    redis::{Redis, RedisFailure},
    store::Mark,
};

/// Of two writes at once, the later one is remembered, in whatever order they get here.
const REMEMBER: &str = "local last = redis.call('GET', KEYS[1]) \
     if not last or tonumber(last) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end";

#[derive(Debug)]
pub(super) struct Remote(pub(super) Redis);

impl Remote {
    pub(super) async fn begin(&self, session: Digest, ttl: Duration) -> Result<(), SessionError> {
        Ok(self.0.run(cmd("SET").arg(session_key(session)).arg(1).arg("EX").arg(ttl.as_secs())).await?)
    }

    pub(super) async fn find(&self, session: Digest) -> Result<Option<Session>, SessionError> {
        let mut mget = cmd("MGET");
        let (live, wrote): (Option<String>, Option<i64>) =
            self.0.run(mget.arg(session_key(session)).arg(wrote_key(session.user_id))).await?;
        Ok(live.map(|_| Session { wrote: wrote.map(Mark) }))
    }

    pub(super) async fn end(&self, session: Digest) -> Result<(), SessionError> {
        Ok(self.0.run(cmd("DEL").arg(session_key(session))).await?)
    }

    pub(super) async fn remember(&self, user_id: i64, Mark(mark): Mark) -> Result<(), SessionError> {
        let mut eval = cmd("EVAL");
        eval.arg(REMEMBER).arg(1).arg(wrote_key(user_id)).arg(mark).arg(WROTE_TTL.as_secs());
        Ok(self.0.run(&eval).await?)
    }

    pub(super) async fn wrote(&self, user_id: i64) -> Result<Option<Mark>, SessionError> {
        let wrote: Option<i64> = self.0.run(cmd("GET").arg(wrote_key(user_id))).await?;
        Ok(wrote.map(Mark))
    }

    pub(super) async fn check(&self) -> Result<(), SessionError> {
        let value = getrandom::u64()?;
        // The key is another one each time, so in the long run every shard is asked.
        let key = format!("ready:{value:x}");
        self.0.run::<()>(cmd("SET").arg(&key).arg(value).arg("EX").arg(10)).await?;
        let found: Option<u64> = self.0.run(cmd("GET").arg(&key)).await?;
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

fn wrote_key(user_id: i64) -> String {
    format!("wrote:{{{user_id}}}")
}
