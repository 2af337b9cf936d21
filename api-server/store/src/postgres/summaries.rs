//! The summaries' upkeep: see the migration that makes `task_summaries`.

use std::time::Duration;

use tokio_postgres::Config;

use super::{
    StoreError, column,
    own::OwnConnection,
    pool::{Failure, UNLIMITED},
};

/// The longest that a refresh may take.
const PATIENCE: Duration = Duration::from_mins(10);

/// The summaries of one shard.
pub struct Summaries(OwnConnection);

impl Summaries {
    pub(super) fn new(config: Config) -> Self {
        Self(OwnConnection::new(config))
    }

    /// Makes them anew if tasks have changed since they were made, and says whether it did. While another process does, it leaves it to that one.
    pub async fn refresh(&mut self) -> Result<bool, StoreError> {
        self.0
            .with(PATIENCE, async |client| {
                let transaction = client.transaction().await.map_err(Failure::from)?;
                transaction.batch_execute(UNLIMITED).await.map_err(Failure::from)?;
                let row = transaction.query_typed_one("SELECT refresh_task_summaries()", &[]).await;
                let refreshed = column(&row.map_err(Failure::from)?, 0)?;
                transaction.commit().await.map_err(Failure::from)?;
                Ok(refreshed)
            })
            .await
    }
}
