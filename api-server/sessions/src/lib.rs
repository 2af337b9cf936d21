//! Sessions: random tokens, kept hashed; and beside them what each user wrote last, so that every instance can show it to them.

mod known;
mod local;
mod remote;

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use task_api_cluster::{
    bus::{InvalidationBus, News},
    redis::{Patience, Redis, RedisFailure},
};
use task_api_domain::{mark::Mark, session::Digest};
use task_api_resilience::breaker::Breaker;
use task_api_store::{KeptSession, Store, StoreError};
use task_api_telemetry::metrics::LevelMetrics;
use thiserror::Error;

/// How long a write is remembered. A replica that lags further behind would be read as if nothing had been written; that is far beyond
/// what a platform leaves in service.
pub const WROTE_TTL: Duration = Duration::from_hours(1);

/// What a request waits for a Redis Cluster that keeps sessions.
const PATIENCE: Patience = Patience { total: Duration::from_secs(2), node: Duration::from_millis(700), retries: 3 };

/// Why the session store did not do what it should.
#[derive(Debug, Error)]
pub enum SessionError {
    /// It does not answer.
    #[error("session store: {0}")]
    Unavailable(String),
    /// Its URL can't be used.
    #[error("SESSIONS_URL is {0}")]
    Url(RedisFailure),
    /// The system's source of randomness failed.
    #[error("no random token: {0}")]
    Random(#[from] getrandom::Error),
}

/// What a client shows to be known: its user's id and 256 random bits.
///
/// The id is there for the store: a session and its user's last write hash to one slot of a Redis Cluster by it, so one request
/// reads both. It opens nothing, since the store is asked for the whole token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    user_id: i64,
    secret: [u8; 32],
}

impl Token {
    /// A new one.
    pub fn new(user_id: i64) -> Result<Self, SessionError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self { user_id, secret })
    }

    /// Whose session it would be, if there is one.
    pub fn user_id(&self) -> i64 {
        self.user_id
    }

    /// The token in clear, for its owner's eyes only.
    pub fn reveal(&self) -> String {
        format!("{}.{}", self.user_id, URL_SAFE_NO_PAD.encode(self.secret))
    }

    /// What is kept of it. Whoever reads the store can't log in with that.
    fn digest(&self) -> Digest {
        Digest { user_id: self.user_id, hash: Sha256::digest(self.secret).into() }
    }
}

impl FromStr for Token {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (user_id, secret) = text.split_once('.').ok_or(())?;
        let user_id = user_id.parse().map_err(|_| ())?;
        let secret = URL_SAFE_NO_PAD.decode(secret).map_err(|_| ())?;
        Ok(Self { user_id, secret: secret.try_into().map_err(|_| ())? })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("user_id", &self.user_id).finish_non_exhaustive()
    }
}

/// A session that lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Its user's last write, unless that is long ago.
    pub wrote: Option<Mark>,
}

/// The session store.
#[derive(Debug)]
pub struct Sessions {
    kind: Kind,
    ttl: Duration,
    /// What was found lately, where instances tell each other which sessions end.
    known: Option<(known::Known, Arc<InvalidationBus>)>,
}

#[derive(Debug)]
enum Kind {
    Local(local::Local, Arc<Store>),
    Redis(Box<remote::Remote>),
}

impl Sessions {
    /// Sessions in this process. They end with it, but for those that `store` keeps.
    pub fn local(ttl: Duration, store: Arc<Store>) -> Self {
        Self { kind: Kind::Local(local::Local::default(), store), ttl, known: None }
    }

    /// Takes up the sessions that outlived the process that they began in.
    pub async fn recall(&self) -> Result<(), StoreError> {
        let Kind::Local(local, store) = &self.kind else { return Ok(()) };
        let now = Timestamp::now();
        for KeptSession { user_id, hash, ends_at } in store.kept_sessions().await? {
            let left = Duration::try_from(ends_at.duration_since(now)).unwrap_or_default();
            local.begin(Digest { user_id, hash }, left);
        }
        Ok(())
    }

    /// Sessions in a Redis Cluster, shared by every instance. It is connected to when it is first needed.
    pub fn redis(url: &str, ttl: Duration, breaker: Breaker) -> Result<Self, SessionError> {
        let redis = Redis::new("session store", url, PATIENCE).map_err(SessionError::Url)?;
        Ok(Self { kind: Kind::Redis(Box::new(remote::Remote::new(redis, breaker))), ttl, known: None })
    }

    /// The same, but what is found is remembered for a moment: `bus` tells which sessions end at other instances.
    #[must_use]
    pub fn remembered(self, bus: Arc<InvalidationBus>, metrics: LevelMetrics) -> Self {
        Self { known: Some((known::Known::new(metrics), bus)), ..self }
    }

    /// How long a session lasts.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Begins a session.
    pub async fn begin(&self, token: &Token) -> Result<(), SessionError> {
        let digest = token.digest();
        match &self.kind {
            Kind::Local(local, store) => {
                let Digest { user_id, hash } = digest;
                let ends_at = Timestamp::now().saturating_add(self.ttl).unwrap_or(Timestamp::MAX);
                store.keep_session(KeptSession { user_id, hash, ends_at }).await.map_err(|error| not_kept(&error))?;
                local.begin(digest, self.ttl);
            }
            Kind::Redis(remote) => remote.begin(digest, self.ttl).await?,
        }
        Ok(())
    }

    /// The session of a token, if it lives.
    pub async fn find(&self, token: &Token) -> Result<Option<Session>, SessionError> {
        let digest = token.digest();
        match &self.kind {
            Kind::Local(local, _) => Ok(local.find(digest)),
            Kind::Redis(remote) => match &self.known {
                None => remote.find(digest).await,
                Some((known, _)) => known.find(digest, remote.find(digest)).await,
            },
        }
    }

    /// Ends a session.
    pub async fn end(&self, token: &Token) -> Result<(), SessionError> {
        let digest = token.digest();
        match &self.kind {
            Kind::Local(local, store) => {
                store.end_session(digest.user_id, digest.hash).await.map_err(|error| not_kept(&error))?;
                local.end(digest);
            }
            Kind::Redis(remote) => remote.end(digest).await?,
        }
        self.forget(digest);
        if let Some((_, bus)) = &self.known {
            bus.announce(News::Ended(digest)).await;
        }
        Ok(())
    }

    /// Ends all of a user's sessions.
    pub async fn end_all(&self, user_id: i64) -> Result<(), SessionError> {
        match &self.kind {
            Kind::Local(local, store) => {
                store.end_sessions(user_id).await.map_err(|error| not_kept(&error))?;
                local.end_all(user_id);
            }
            Kind::Redis(remote) => remote.end_all(user_id, self.ttl).await?,
        }
        self.forget_those_of(user_id);
        if let Some((_, bus)) = &self.known {
            bus.announce(News::EndedAll(user_id)).await;
        }
        Ok(())
    }

    /// Forgets that a user's sessions were found: they have ended.
    pub fn forget_those_of(&self, user_id: i64) {
        if let Some((known, _)) = &self.known {
            known.forget_those_of(user_id);
        }
    }

    /// Forgets that a session was found: it has ended.
    pub fn forget(&self, session: Digest) {
        if let Some((known, _)) = &self.known {
            known.forget(session);
        }
    }

    /// Forgets which sessions were found: some may have ended.
    pub fn forget_all(&self) {
        if let Some((known, _)) = &self.known {
            known.forget_all();
        }
    }

    /// Frees the memory of sessions that were not asked for lately.
    pub fn sweep(&self) {
        if let Some((known, _)) = &self.known {
            known.sweep();
        }
    }

    /// Remembers a user's write, if there was one. It has happened: should this fail, it is not for the client to repeat.
    pub async fn remember(&self, user_id: i64, mark: Option<Mark>) {
        match (&self.kind, mark) {
            (_, None) => {}
            (Kind::Local(local, _), Some(mark)) => local.remember(user_id, mark),
            (Kind::Redis(remote), Some(mark)) => {
                if let Err(error) = remote.remember(user_id, mark).await {
                    tracing::warn!(user_id, "this user's next reads may not show their last write: {error}");
                }
            }
        }
    }

    /// A user's last write, unless that is long ago.
    pub async fn wrote(&self, user_id: i64) -> Result<Option<Mark>, SessionError> {
        match &self.kind {
            Kind::Local(local, _) => Ok(local.wrote(user_id)),
            Kind::Redis(remote) => remote.wrote(user_id).await,
        }
    }

    /// Whether the store takes and gives back a value.
    pub async fn check(&self) -> Result<(), SessionError> {
        match &self.kind {
            Kind::Local(..) => Ok(()),
            Kind::Redis(remote) => remote.check().await,
        }
    }
}

fn not_kept(error: &StoreError) -> SessionError {
    SessionError::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_differ_and_hide() {
        let (a, b) = (Token::new(7).unwrap(), Token::new(7).unwrap());
        assert_ne!(a, b);
        let shown = format!("{a:?}");
        assert!(!shown.contains(a.reveal().split_once('.').unwrap().1), "{shown}");
        assert!(!a.reveal().contains(&URL_SAFE_NO_PAD.encode(a.digest().hash)));
    }

    proptest! {
        #[test]
        fn a_token_reads_back(user_id in any::<i64>(), secret in any::<[u8; 32]>()) {
            let token = Token { user_id, secret };
            prop_assert_eq!(token.reveal().parse(), Ok(token));
        }

        #[test]
        fn any_text_is_a_token_or_not(text in ".{0,80}") {
            if let Ok(token) = text.parse::<Token>() {
                prop_assert!(token.user_id().to_string().len() <= text.len());
            }
        }
    }
}
