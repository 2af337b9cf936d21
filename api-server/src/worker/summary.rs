//! Makes a shard's summaries anew when tasks have changed.

use std::time::Duration;

use task_api_store::Summaries;
use tokio::time::{Instant, sleep};

use super::metrics::ShardMetrics;
/// A refresh reads every task. It is left alone for so many times as long as it took, so that it takes no more than a tenth of a core.
const REST: u32 = 9;

/// Refreshes for as long as it is polled.
pub(super) async fn run(shard: usize, mut summaries: Summaries, interval: Duration, metrics: ShardMetrics) {
    let mut works = true;
    loop {
        let began = Instant::now();
        let result = summaries.refresh().await;
        let took = began.elapsed();
        match result {
            Ok(refreshed) => {
                if refreshed {
                    metrics.refreshed(took);
                }
                if !std::mem::replace(&mut works, true) {
                    tracing::info!(shard, "the summaries are refreshed again");
                }
            }
            Err(error) => {
                if std::mem::replace(&mut works, false) {
                    tracing::warn!(shard, "the summaries stay as they are until this works again: {error}");
                }
            }
        }
        sleep(interval.max(took * REST)).await;
    }
}
