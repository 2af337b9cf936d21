//! Sessions that were found lately, so that a request needs not ask for its own.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use task_api_domain::session::Digest;
use task_api_resilience::weighted_cache::WeightedCache;
use task_api_telemetry::metrics::LevelMetrics;

use crate::{Session, SessionError};

/// How long a session that was found is believed to live: so long one that ended lives on at an instance that was not told, and one whose
/// time is over.
const BELIEVED: Duration = Duration::from_secs(10);
/// How long one that was found is believed to live while its store does not answer: nobody can end one there meanwhile.
const GRACE: Duration = Duration::from_mins(5);
/// How much memory they may take, and one of them, about.
const MOST_BYTES: usize = 4 << 20;
const BYTES: usize = 160;

#[derive(Debug)]
pub(super) struct Known {
    found: WeightedCache<Digest, Found>,
    /// How often a session ended: what was asked for before may be answered with one that has.
    ended: AtomicU64,
    metrics: LevelMetrics,
}

#[derive(Clone, Copy, Debug)]
struct Found {
    session: Session,
    until: Instant,
}

impl Known {
    pub(super) fn new(metrics: LevelMetrics) -> Self {
        Self { found: WeightedCache::new(MOST_BYTES, |_| true), ended: AtomicU64::new(0), metrics }
    }

    /// The session, if it was found lately; else what `ask` finds.
    pub(super) async fn find(
        &self,
        digest: Digest,
        ask: impl Future<Output = Result<Option<Session>, SessionError>>,
    ) -> Result<Option<Session>, SessionError> {
        let known = self.found.get(digest, |found| *found).filter(|found| found.until > Instant::now());
        if let Some(Found { session, .. }) = known {
            self.metrics.hits.inc();
            return Ok(Some(session));
        }
        self.metrics.misses.inc();
        let ended = self.ended.load(Ordering::Acquire);
        let found = match ask.await {
            Ok(found) => found,
            Err(error) => {
                let in_grace = |found: &Found| found.until + GRACE > Instant::now();
                let known = self.found.get(digest, |found| *found).filter(in_grace);
                return known.map(|found| Some(found.session)).ok_or(error);
            }
        };
        self.found.remove(digest);
        if let Some(session) = found {
            let until = Instant::now() + BELIEVED;
            self.found.get_or_insert(digest, BYTES, || Found { session, until }, |_| ());
            // Looked at afterwards: whoever ends a session counts first, and removes it then.
            if self.ended.load(Ordering::Acquire) != ended {
                self.found.remove(digest);
            }
        }
        Ok(found)
    }

    pub(super) fn forget(&self, digest: Digest) {
        self.ended.fetch_add(1, Ordering::AcqRel);
        self.found.remove(digest);
    }

    pub(super) fn forget_those_of(&self, user_id: i64) {
        self.ended.fetch_add(1, Ordering::AcqRel);
        self.found.remove_all(|digest| digest.user_id == user_id);
    }

    pub(super) fn forget_all(&self) {
        self.ended.fetch_add(1, Ordering::AcqRel);
        self.found.clear();
    }

    pub(super) fn sweep(&self) {
        self.found.sweep(GRACE);
        self.metrics.measured(self.found.size());
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::Token;
    use task_api_telemetry::metrics::CacheMetrics;

    fn known() -> Known {
        Known::new(CacheMetrics::new(&mut Registry::default()).session)
    }

    fn lives() -> Ready<Result<Option<Session>, SessionError>> {
        ready(Ok(Some(Session::default())))
    }

    fn is_dead() -> Ready<Result<Option<Session>, SessionError>> {
        ready(Ok(None))
    }

    #[tokio::test]
    async fn it_is_asked_for_once() {
        let (known, digest) = (known(), Token::new(1).unwrap().digest());
        assert!(known.find(digest, is_dead()).await.unwrap().is_none());
        assert!(known.find(digest, lives()).await.unwrap().is_some());
        assert!(known.find(digest, is_dead()).await.unwrap().is_some(), "it is known");
        known.forget(digest);
        assert!(known.find(digest, is_dead()).await.unwrap().is_none());
        assert!(known.find(digest, lives()).await.unwrap().is_some());
        known.forget_all();
        assert!(known.find(digest, is_dead()).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn while_the_store_is_away_it_is_believed_for_longer_but_not_for_ever() {
        let (known, digest) = (known(), Token::new(1).unwrap().digest());
        let is_away = || ready(Err(SessionError::Unavailable("away".to_owned())));
        assert!(known.find(digest, is_away()).await.is_err());
        let found = |ago: Duration| {
            let found = Found { session: Session::default(), until: Instant::now().checked_sub(ago).unwrap() };
            known.found.remove(digest);
            known.found.get_or_insert(digest, BYTES, || found, |_| ());
        };
        found(Duration::from_secs(1));
        assert!(known.find(digest, is_away()).await.unwrap().is_some());
        assert!(known.find(digest, is_dead()).await.unwrap().is_none(), "once it answers, that counts");
        found(GRACE);
        assert!(known.find(digest, is_away()).await.is_err());
        found(Duration::from_secs(1));
        known.forget(digest);
        assert!(known.find(digest, is_away()).await.is_err(), "it has ended");
    }

    #[tokio::test]
    async fn one_that_ends_while_it_is_asked_for_is_not_believed() {
        let (known, digest) = (known(), Token::new(1).unwrap().digest());
        let ends_meanwhile = async {
            known.forget(digest);
            lives().await
        };
        assert!(known.find(digest, ends_meanwhile).await.unwrap().is_some(), "it lived when it was asked for");
        assert!(known.find(digest, is_dead()).await.unwrap().is_none());
    }
}
