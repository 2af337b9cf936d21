//! Threads that own a connection each and work off what they are sent: SQLite blocks, and takes one writer at a time.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::store::StoreError;

/// How many jobs may wait for a thread; whoever comes then waits to hand theirs in.
const QUEUE: usize = 256;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Threads that do the same.
#[derive(Debug)]
pub(super) struct Threads {
    queues: Vec<mpsc::Sender<Job>>,
    next: AtomicUsize,
}

impl Threads {
    /// A thread a connection.
    pub(super) fn start(name: &str, connections: Vec<Connection>) -> Result<Self, StoreError> {
        let queues = connections.into_iter().map(|connection| start_one(name, connection)).collect::<Result<_, _>>()?;
        Ok(Self { queues, next: AtomicUsize::new(0) })
    }

    /// Has one of them do something.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let ended = || StoreError::Broken("a database thread has ended; restart the process".to_owned());
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Whoever asked may have hung up.
            let _ = answer.send(job(connection));
        });
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        self.queues[turn].send(job).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())
    }
}

fn start_one(name: &str, mut connection: Connection) -> Result<mpsc::Sender<Job>, StoreError> {
    let (queue, mut jobs) = mpsc::channel::<Job>(QUEUE);
    let work = move || {
        while let Some(job) = jobs.blocking_recv() {
            job(&mut connection);
        }
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| StoreError::Unavailable(format!("can't start a database thread: {error}")))?;
    Ok(queue)
}
