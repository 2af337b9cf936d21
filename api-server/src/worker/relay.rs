//! Moves events from a shard's outbox to the broker: at least once, in order for each task.
//!
//! Rows are deleted once the broker has confirmed their messages. If a worker dies in between, the next one tells them again, with the same
//! message ids. Every worker tells a shard's events from the oldest on, on one channel, so the *first* messages about a task arrive in order even if a
//! worker that lost its turn goes on telling for a while; consumers that drop ids they have seen see each task's changes once and in order.

use std::time::Duration;

use lapin::uri::AMQPUri;
use task_api_store::{Outbox, Relayed};
use tokio::time::sleep;

use super::{
    broker::{Publisher, RelayError},
    metrics::ShardMetrics,
};
use crate::server::lifecycle::Lifecycle;

/// How long an empty outbox is left alone. Notifications do not get through a pooler in transaction mode.
const IDLE: Duration = Duration::from_millis(200);
/// The pause after a failure: it doubles from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The relay of one shard.
pub(super) struct Relay {
    pub(super) shard: usize,
    pub(super) outbox: Outbox,
    pub(super) broker: AMQPUri,
    pub(super) publisher: Option<Publisher>,
    pub(super) metrics: ShardMetrics,
}

impl Relay {
    /// Relays until the process is told to stop, and then what it had begun.
    pub(super) async fn run(mut self, lifecycle: &Lifecycle) {
        let mut works = None;
        let mut retry = RETRY.0;
        while !lifecycle.is_draining() {
            let pause = match self.step().await {
                Ok(relayed) => {
                    if works.replace(true) != Some(true) {
                        tracing::info!(shard = self.shard, "events are relayed");
                    }
                    retry = RETRY.0;
                    self.metrics.published(relayed);
                    match relayed {
                        Relayed::Some(_) => continue,
                        Relayed::Nothing | Relayed::Elsewhere => IDLE,
                    }
                }
                Err(error) => {
                    if works.replace(false) != Some(false) {
                        tracing::warn!(shard = self.shard, "events wait in the outbox until this works again: {error}");
                    }
                    let pause = retry;
                    retry = (retry * 2).min(RETRY.1);
                    pause
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = lifecycle.draining() => {}
            }
        }
    }

    async fn step(&mut self) -> Result<Relayed, RelayError> {
        let publisher = match self.publisher.take().filter(Publisher::is_connected) {
            Some(publisher) => publisher,
            None => Publisher::connect(&self.broker).await?,
        };
        let relayed = self.outbox.relay(async |events| publisher.publish(self.shard, events).await).await;
        // After a failure some messages may be under way, and others never be sent: the next try begins on a new connection. While the broker
        // is only blocked, new ones would pile up.
        if !matches!(relayed, Err(RelayError::Broker { .. })) || publisher.is_blocked() {
            self.publisher = Some(publisher);
        }
        relayed
    }
}
