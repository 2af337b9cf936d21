//! A connection of one's own, for work that takes longer than a request may or that needs a transaction.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, Config};

use super::{
    StoreError,
    pool::{self, Failure},
};

/// Connects when it is first used, and anew after a failure.
pub(super) struct OwnConnection {
    config: Config,
    client: Option<Client>,
}

impl OwnConnection {
    /// `config` is [`pool::tuned`].
    pub(super) fn new(config: Config) -> Self {
        Self { config, client: None }
    }

    /// Does something with the connection, which is given up if it fails or takes longer than `patience`: what it had begun is rolled back.
    pub(super) async fn with<T, E: From<StoreError>>(
        &mut self,
        patience: Duration,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, E>,
    ) -> Result<T, E> {
        // Taken, not borrowed: if this future is dropped on the way, so is the connection.
        let mut client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => pool::connect(&self.config).await.map_err(StoreError::from)?,
        };
        let late = || StoreError::from(Failure::timed_out("working on the database", patience));
        let done = timeout(patience, work(&mut client)).await.map_err(|_| late())??;
        self.client = Some(client);
        Ok(done)
    }
}
