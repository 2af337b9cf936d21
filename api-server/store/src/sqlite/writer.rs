//! The one thread that writes. What waits for it is committed together: a commit costs more than most of what is in it.
//!
//! Every job runs in a savepoint, so that one which fails takes nothing but itself back. Nobody is answered before the commit.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use jiff::Timestamp;
use rusqlite::Connection;
use task_api_domain::mark::Mark;
use tokio::sync::{mpsc, oneshot};

use super::{
    connection::execute,
    thread::{self, ended},
};
use crate::StoreError;

/// How many jobs may wait; whoever comes then waits to hand theirs in.
const QUEUE: usize = 1024;

/// How many jobs are committed together at most. It bounds how long the first of them waits for the last.
const GROUP: usize = 256;

/// A job is given the connection, or the reason why there is no transaction to do it in.
type Job = Box<dyn FnOnce(Result<&Connection, &rusqlite::Error>) -> Done + Send>;

/// Tells whoever asked: the mark of the commit, or why there was none.
type Answer = Box<dyn FnOnce(Result<Mark, &rusqlite::Error>)>;

/// A job that ran, but is not committed yet.
struct Done {
    /// Whether its changes are wanted.
    keep: bool,
    answer: Answer,
}

/// What is done at the end of a transaction. Where it fails, nothing of the transaction is kept.
pub(super) type Finish = fn(&Connection) -> rusqlite::Result<()>;

/// See the module.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Job>,
    commits: Commits,
}

/// The mark of the last commit that everyone can see.
///
/// It counts commits, from the microsecond of the process's start on: marks that outlive the process, with sessions in Redis, stay below those
/// of the next.
#[derive(Clone, Debug)]
pub(super) struct Commits(Arc<AtomicI64>);

impl Commits {
    fn new() -> Self {
        Self(Arc::new(AtomicI64::new(Timestamp::now().as_microsecond())))
    }

    /// A snapshot that is taken after this call shows every write up to the mark.
    pub(super) fn last(&self) -> Mark {
        Mark(self.0.load(Ordering::Acquire))
    }

    /// To be called between a commit and its answers.
    fn advance(&self) -> Mark {
        Mark(self.0.fetch_add(1, Ordering::AcqRel) + 1)
    }
}

impl Writer {
    /// Before each commit, `finish` does what has to be done once for all that is in it; after each, `committed` is called.
    pub(super) fn start(
        connection: Connection,
        finish: Finish,
        committed: impl Fn() + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (queue, mut jobs) = mpsc::channel::<Job>(QUEUE);
        let commits = Commits::new();
        let counter = commits.clone();
        thread::spawn("sqlite-writer", move || {
            let mut waiting = Vec::with_capacity(GROUP);
            while jobs.blocking_recv_many(&mut waiting, GROUP) > 0 {
                commit_together(&connection, &mut waiting, finish, &counter);
                committed();
            }
        })?;
        Ok(Self { queue, commits })
    }

    pub(super) fn commits(&self) -> Commits {
        self.commits.clone()
    }

    /// Does something in a transaction, and returns the mark of its commit. If it fails, it has changed nothing.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<(T, Mark), StoreError> {
        let (sender, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = connection.map_err(StoreError::from).and_then(job);
            let keep = result.is_ok();
            let answer = Box::new(move |committed: Result<Mark, &rusqlite::Error>| {
                let committed = committed.map_err(StoreError::from);
                // Whoever asked may have hung up.
                let _ = sender.send(result.and_then(|value| committed.map(|mark| (value, mark))));
            });
            Done { keep, answer }
        });
        self.queue.send(job).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

fn commit_together(connection: &Connection, jobs: &mut Vec<Job>, finish: Finish, commits: &Commits) {
    let mut transaction = execute(connection, "BEGIN IMMEDIATE");
    let answers: Vec<_> = jobs.drain(..).map(|job| run_in_savepoint(connection, job, &mut transaction)).collect();
    if transaction.is_ok() {
        transaction = finish(connection).and_then(|()| execute(connection, "COMMIT"));
    }
    if transaction.is_err()
        && !connection.is_autocommit()
        && let Err(error) = execute(connection, "ROLLBACK")
    {
        tracing::error!("can't roll back a transaction of the database file: {error}");
    }
    let committed = transaction.as_ref().map(|()| commits.advance());
    for answer in answers {
        answer(committed);
    }
}

/// Once `transaction` is an error, it stays one, and jobs are only told.
fn run_in_savepoint(connection: &Connection, job: Job, transaction: &mut rusqlite::Result<()>) -> Answer {
    if transaction.is_ok() {
        *transaction = execute(connection, "SAVEPOINT job");
    }
    let Done { keep, answer } = job(transaction.as_ref().map(|()| connection));
    if transaction.is_ok() {
        // Going back to a savepoint does not end it. Where SQLite has given the whole transaction up, on a full disk, both fail.
        let undone = if keep { Ok(()) } else { execute(connection, "ROLLBACK TO job") };
        *transaction = undone.and_then(|()| execute(connection, "RELEASE job"));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> Writer {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE numbers (n INTEGER PRIMARY KEY)").unwrap();
        Writer::start(connection, |_| Ok(()), || {}).unwrap()
    }

    fn insert(connection: &Connection, n: i64) -> Result<(), StoreError> {
        Ok(connection.execute("INSERT INTO numbers VALUES (?1)", [n]).map(|_| ())?)
    }

    async fn numbers(writer: &Writer) -> Vec<i64> {
        let read = |connection: &Connection| {
            let mut statement = connection.prepare("SELECT n FROM numbers ORDER BY n")?;
            Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
        };
        writer.run(read).await.unwrap().0
    }

    /// Keeps the writer busy until the returned sender is dropped, so that what comes meanwhile is one group.
    async fn hold(writer: &Writer) -> (std::sync::mpsc::Sender<()>, impl Future<Output = ()>) {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (begins, begun) = oneshot::channel();
        let mut holding = Box::pin(writer.run(move |_| {
            let _ = begins.send(());
            let _ = held.recv();
            Ok(())
        }));
        tokio::select! {
            _ = &mut holding => unreachable!("it is held"),
            _ = begun => {}
        }
        (release, async move { holding.await.map(|_| ()).unwrap() })
    }

    #[tokio::test]
    async fn a_job_that_fails_takes_back_itself_alone() {
        let writer = writer();
        let (release, held) = hold(&writer).await;
        let (first, failing, last, ()) = tokio::join!(
            writer.run(|connection| insert(connection, 1)),
            writer.run(|connection| insert(connection, 2).and_then(|()| insert(connection, 1))),
            writer.run(|connection| insert(connection, 3)),
            async {
                drop(release);
                held.await;
            }
        );
        assert!(matches!(failing, Err(StoreError::Broken(_))), "{failing:?}");
        assert_eq!(first.unwrap(), last.unwrap(), "they are one commit");
        assert_eq!(numbers(&writer).await, [1, 3]);
    }

    #[tokio::test]
    async fn everyone_is_told_when_the_commit_fails() {
        let writer = writer();
        let (release, held) = hold(&writer).await;
        let before = writer.commits().last();
        let (first, second, last, ()) = tokio::join!(
            writer.run(|connection| insert(connection, 1)),
            // As SQLite does by itself where it can't go on.
            writer.run(|connection| Ok(connection.execute_batch("ROLLBACK")?)),
            writer.run(|connection| insert(connection, 3)),
            async {
                drop(release);
                held.await;
            }
        );
        assert!(first.is_err() && second.is_err() && last.is_err());
        assert_eq!(writer.commits().last(), Mark(before.0 + 1), "only what held the writer was committed");
        assert_eq!(numbers(&writer).await, [0; 0]);
        writer.run(|connection| insert(connection, 4)).await.unwrap();
        assert_eq!(numbers(&writer).await, [4]);
    }

    #[tokio::test]
    async fn marks_rise() {
        let writer = writer();
        let ((), first) = writer.run(|connection| insert(connection, 1)).await.unwrap();
        let ((), second) = writer.run(|connection| insert(connection, 2)).await.unwrap();
        assert!(first < second);
        assert_eq!(second, writer.commits().last());
    }
}
