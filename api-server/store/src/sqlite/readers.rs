//! The threads that read. What waits for one of them is answered from one snapshot: to open one costs as much as a small read.

use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::Connection;
use task_api_domain::mark::Mark;
use tokio::sync::{mpsc, oneshot};

use super::{
    connection::execute,
    thread::{self, ended},
    writer::Commits,
};
use crate::StoreError;

/// How many jobs may wait for a thread; whoever comes then waits to hand theirs in.
const QUEUE: usize = 256;

/// How many jobs share a snapshot at most, so that none is held open for long: the log can't be begun anew before it is closed.
const BATCH: usize = 32;

type Job = Box<dyn FnOnce(&Snapshot<'_>) + Send>;

/// The file at one moment.
pub(super) struct Snapshot<'c> {
    pub(super) connection: &'c Connection,
    /// It shows every write up to this.
    pub(super) mark: Mark,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Readers {
    queues: Vec<mpsc::Sender<Job>>,
    next: AtomicUsize,
}

impl Readers {
    /// A thread a connection.
    pub(super) fn start(connections: Vec<Connection>, commits: &Commits) -> Result<Self, StoreError> {
        let start = |connection| start_one(connection, commits.clone());
        let queues = connections.into_iter().map(start).collect::<Result<_, _>>()?;
        Ok(Self { queues, next: AtomicUsize::new(0) })
    }

    /// Has one of them read something. It shows what was committed before this call.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Snapshot<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |snapshot| {
            // Whoever asked may have hung up.
            let _ = answer.send(job(snapshot));
        });
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        self.queues[turn].send(job).await.map_err(|_| ended())?;
        Ok(answered.await.map_err(|_| ended())??)
    }
}

fn start_one(connection: Connection, commits: Commits) -> Result<mpsc::Sender<Job>, StoreError> {
    let (queue, mut jobs) = mpsc::channel::<Job>(QUEUE);
    thread::spawn("sqlite-reader", move || {
        let mut waiting = Vec::with_capacity(BATCH);
        while jobs.blocking_recv_many(&mut waiting, BATCH) > 0 {
            // Before the snapshot is opened, which may show more than the mark says, but never less.
            let snapshot = Snapshot { connection: &connection, mark: commits.last() };
            // Without a transaction each job would have a snapshot of its own, which is as good.
            let begun = execute(&connection, "BEGIN");
            for job in waiting.drain(..) {
                job(&snapshot);
            }
            if let Err(error) = begun.and_then(|()| execute(&connection, "COMMIT")) {
                tracing::warn!("a snapshot of the database file was not opened or closed as it should: {error}");
            }
        }
    })?;
    Ok(queue)
}
