//! What the threads that write and read have in common: SQLite blocks, so none of it happens on the threads that serve requests.

use std::thread;

use crate::StoreError;

pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    let started = thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(|_| ()).map_err(|error| StoreError::Unavailable(format!("can't start the thread {name}: {error}")))
}

/// Its queue is closed, or an answer was dropped.
pub(super) fn ended() -> StoreError {
    StoreError::Broken("a database thread has ended; restart the process".to_owned())
}
