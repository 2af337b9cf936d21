//! Views in the cache cluster, where every instance finds them (plan section 4.1, "L3").
//!
//! A view is kept under its user and the last write that it is known to show, `view:{user}:mark`. Nothing has to be deleted: a write
//! raises the user's mark, and nobody asks for the older view any more. What is kept under a mark shows every write up to it,
//! not only what happened to be committed when it was read.
//!
//! Views of users who have no mark are kept under mark 0. That can't be an old view of a user whose mark was forgotten: marks are
//! remembered for an hour, views live for minutes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use redis::cmd;
use task_api_cluster::redis::{Patience, Redis, RedisFailure};
use task_api_domain::mark::Mark;
use task_api_resilience::breaker::Breaker;
use task_api_sessions::WROTE_TTL;
use task_api_telemetry::metrics::LevelMetrics;

use super::view::{Entry, View};
/// A cache that is slower than this is slower than the database.
const PATIENCE: Patience = Patience { total: Duration::from_millis(100), node: Duration::from_millis(80), retries: 1 };
/// Changes with the layout, so that an instance does not misread what another version of it wrote.
const LAYOUT: u32 = 2;
/// By how much the clocks of two instances may differ, in milliseconds.
const CLOCKS: i64 = 1000;
/// The longest that a view may live: less than a mark is remembered, with room for clocks that differ.
const LONGEST: Duration = Duration::from_secs(WROTE_TTL.as_secs() / 2);

/// See the module.
#[derive(Clone, Debug)]
pub struct SharedViews(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    redis: Redis,
    breaker: Breaker,
    ttl: Duration,
    /// What was loaded before, in milliseconds since 1970, may lack a write that nobody will ever tell of.
    not_before: AtomicI64,
    metrics: LevelMetrics,
}

impl SharedViews {
    /// Views in the cluster that the node at `url` belongs to, for `ttl` each.
    pub fn new(url: &str, ttl: Duration, metrics: LevelMetrics, breaker: Breaker) -> Result<Self, RedisFailure> {
        let redis = Redis::new("cache", url, PATIENCE)?;
        Ok(Self(Arc::new(Inner { redis, breaker, ttl: ttl.min(LONGEST), not_before: AtomicI64::new(0), metrics })))
    }

    /// A user's view that shows their writes up to `mark`, and up to which one it shows them, if it is there.
    pub(super) async fn get(&self, user_id: i64, mark: Option<Mark>) -> Option<(View, Mark)> {
        let Inner { redis, breaker, metrics, not_before, .. } = &*self.0;
        let mut get = cmd("GET");
        get.arg(key(user_id, mark));
        // The breaker says when something is wrong.
        let found: Option<Vec<u8>> = breaker.call(redis.run(&get)).await.ok().flatten();
        let not_before = not_before.load(Ordering::Acquire);
        let view = found.and_then(|bytes| read(&bytes)).filter(|(_, _, loaded_at)| *loaded_at >= not_before);
        let view = view.map(|(view, shows, _)| (view, shows));
        if view.is_some() {
            metrics.hits.inc()
        } else {
            metrics.misses.inc()
        };
        view
    }

    /// Gives no view any more that was loaded up to now.
    pub(super) fn distrust(&self) {
        self.0.not_before.store(Timestamp::now().as_millisecond() + CLOCKS, Ordering::Release);
    }

    /// Keeps a view that was loaded at this time or later and shows its user's writes up to `shows`, for those who ask for `mark`, unless it does
    /// not show that. Nobody has to wait for it.
    pub(super) fn put(&self, user_id: i64, mark: Option<Mark>, view: &View, shows: Mark, loaded_at: Timestamp) {
        if mark.is_some_and(|mark| mark > shows) {
            return;
        }
        let Ok(bytes) = serde_json::to_vec(&(LAYOUT, shows, loaded_at.as_millisecond(), view.entries())) else {
            return;
        };
        let shared = self.clone();
        tokio::spawn(async move {
            let Inner { redis, breaker, ttl, .. } = &*shared.0;
            let mut set = cmd("SET");
            set.arg(key(user_id, mark)).arg(bytes).arg("EX").arg(ttl.as_secs().max(1));
            // Without it the next one asks the database.
            let _ = breaker.call(redis.run::<()>(&set)).await;
        });
    }
}

// What stands in braces decides on the slot.
fn key(user_id: i64, mark: Option<Mark>) -> String {
    let Mark(mark) = mark.unwrap_or_default();
    format!("view:{{{user_id}}}:{mark}")
}

/// A view, up to which write it shows everything, and when it was loaded.
fn read(bytes: &[u8]) -> Option<(View, Mark, i64)> {
    let (layout, shows, loaded_at, entries): (u32, Mark, i64, Vec<Entry>) = serde_json::from_slice(bytes).ok()?;
    (layout == LAYOUT).then(|| (View::new(entries), shows, loaded_at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::view::tests::some_task;

    #[test]
    fn a_view_reads_back() {
        let view = View::new((1..5).map(|id| Entry::new(&some_task(id)).unwrap()).collect());
        let bytes = serde_json::to_vec(&(LAYOUT, Mark(7), 9, view.entries())).unwrap();
        let (read_back, shows, loaded_at) = read(&bytes).unwrap();
        assert_eq!((read_back.entries(), shows, loaded_at), (view.entries(), Mark(7), 9));
        let other = serde_json::to_vec(&(LAYOUT + 1, Mark(7), 9, view.entries())).unwrap();
        assert!(read(&other).is_none() && read(b"").is_none());
    }
}
