//! Reads on the replicas, as far as these are there and show what they must.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use task_api_domain::mark::Mark;
use tokio::time::Instant;
use tokio_postgres::{Config, Row};

use super::{
    SEEN,
    pool::{Params, Pool},
};
use crate::metrics::PoolMetrics;

/// What a read waits for a replica before it asks the primary.
const REPLICA_PATIENCE: Duration = Duration::from_secs(1);
/// How long replicas that failed are left alone. After that one read tries them, and the others follow if it succeeds.
const REPLICA_REST: Duration = Duration::from_secs(2);
/// How many connections there are. A pooler gives each a server while a statement runs: more would only queue there.
const CONNECTIONS: usize = 4;

#[derive(Debug)]
pub(super) struct Replicas {
    pool: Pool,
    began: Instant,
    /// Milliseconds after `began` until which they are left alone.
    rest_until: AtomicU64,
}

impl Replicas {
    /// `config` is [`super::pool::tuned`].
    pub(super) fn new(config: Config, metrics: PoolMetrics) -> Self {
        Self { pool: Pool::new(config, CONNECTIONS, metrics), began: Instant::now(), rest_until: AtomicU64::new(0) }
    }

    /// The rows, unless the replicas are away or lag behind `wrote`.
    pub(super) async fn read(
        &self,
        sql: &(dyn Fn(&str) -> String + Sync),
        params: Params<'_>,
        wrote: Option<Mark>,
    ) -> Option<Vec<Row>> {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let rest_until = self.rest_until.load(Ordering::Relaxed);
        if now < rest_until {
            return None;
        }
        let rest_ms = u64::try_from(REPLICA_REST.as_millis()).unwrap_or(u64::MAX);
        // The first read after a rest goes alone: until it is back, the replicas rest for the others.
        let alone = rest_until > 0;
        if alone
            && self
                .rest_until
                .compare_exchange(rest_until, now.saturating_add(rest_ms), Ordering::Relaxed, Ordering::Relaxed)
                .is_err()
        {
            return None;
        }
        let deadline = Instant::now() + REPLICA_PATIENCE;
        let result = match wrote {
            None => self.pool.query(&sql(""), params, deadline).await,
            Some(Mark(mark)) => {
                let params: Vec<_> = params.iter().copied().chain([&mark as _]).collect();
                let fresh = format!(" AND {SEEN} >= ${}", params.len());
                self.pool.query(&sql(&fresh), &params, deadline).await
            }
        };
        match result {
            Ok(rows) => {
                if alone {
                    self.rest_until.store(0, Ordering::Relaxed);
                    tracing::info!("the replicas answer again");
                }
                // No row, and the replica may be behind: only the primary can tell.
                (wrote.is_none() || !rows.is_empty()).then_some(rows)
            }
            Err(failure) => {
                tracing::warn!("reads go to the primary for {REPLICA_REST:?}, the replicas fail: {failure}");
                self.rest_until.store(now.saturating_add(rest_ms), Ordering::Relaxed);
                None
            }
        }
    }
}
