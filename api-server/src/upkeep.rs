//! What a store needs beside requests: its schema before the first one, and care for as long as the process runs.

use std::time::Duration;

use task_api_store::Store;
use tokio::time::sleep;

/// The pause before the database is asked again whether it is there: it doubles from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// How often the store is cared for, and how soon again where that failed.
const UPKEEP: (Duration, Duration) = (Duration::from_hours(1), Duration::from_mins(5));

/// Waits for the database, and brings its schema up to date.
pub async fn prepare(store: &Store) {
    let (mut pause, longest) = RETRY;
    while let Err(error) = store.prepare().await {
        tracing::warn!(
            "waiting for the database, nothing is served before its schema is there: {error}; next try in {pause:?}"
        );
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
    tracing::info!("the schema is up to date");
}

/// Makes partitions ahead of time, and forgets what is out of date, again and again.
pub async fn keep_up(store: &Store) {
    let (usual, soon) = UPKEEP;
    let mut pause = usual;
    loop {
        sleep(pause).await;
        pause = match store.keep_up().await {
            Ok(()) => usual,
            Err(error) => {
                tracing::warn!("the upkeep of the database failed: {error}; next try in {soon:?}");
                soon
            }
        };
    }
}
