//! Writes, on connections of their own: a commit waits for the disk, and what is sent after it on its connection waits with it.
//!
//! Changes of tasks that come while others are being written gather, and go to the database together, as one statement with one
//! commit. Nobody is made to wait for company: whoever comes when there is nothing in flight goes at once, alone.

use std::{
    collections::VecDeque,
    fmt, slice,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicI64},
    time::Duration,
};

use prometheus_client::metrics::gauge::Gauge;
use task_api_resilience::{background, breaker::Breaker};
use task_api_telemetry::trace;
use tokio::{sync::oneshot, time::Instant};
use tokio_postgres::{Config, Row};

use super::{
    PATIENCE, Tries,
    changes::{self, Applied, Asked, Columns, repeatable},
    pool::{Effect, Failure, Params, Pool},
};
use crate::{Operation, StoreError, Writes, metrics::WriterMetrics};

/// How many operations go together at most; a request is never divided.
const MOST_TOGETHER: usize = 128;
/// How many groups are in flight at once. The larger a group, the less of the database's time each of its writes takes: another one goes beside
/// the first only when it is full, or when the first hangs.
const MOST_GROUPS: usize = 4;
/// A group that lets the next one wait for so long hangs.
const HANGS: Duration = Duration::from_millis(100);
/// How many requests may wait. With more, the last would wait longer than a client does.
const MOST_WAITING: usize = 2048;
/// How many connections there are: for the groups, and for what is written beside them.
const CONNECTIONS: usize = 6;

/// Whether a failed write may be tried again when nobody knows what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeatable {
    Yes,
    No,
}

/// Writes to one primary.
pub(super) struct Writer {
    pool: Pool,
    rules: Writes,
    queue: Mutex<Queue>,
    waiting: Gauge<i64, AtomicI64>,
    breaker: Breaker,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Request>,
    /// Of those that wait.
    operations: usize,
    /// How many tasks work it off.
    working: usize,
}

/// The operations of one user's request.
struct Request {
    user_id: i64,
    operations: Vec<Operation>,
    /// The trace that they belong to.
    traceparent: Option<String>,
    deadline: Instant,
    answer: oneshot::Sender<Result<Applied, StoreError>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    /// `config` is [`super::pool::tuned`].
    pub(super) fn new(config: Config, rules: Writes, metrics: WriterMetrics) -> Self {
        let WriterMetrics { pool, waiting, breaker } = metrics;
        let breaker = Breaker::new("database that is written to", breaker);
        Self { pool: Pool::new(config, CONNECTIONS, pool), rules, queue: Mutex::default(), waiting, breaker }
    }

    /// What is heeded.
    pub(super) fn rules(&self) -> &Writes {
        &self.rules
    }

    /// The trace that the request at hand belongs to, where changes are told.
    pub(super) fn traceparent(&self) -> Option<String> {
        self.rules.events.then(trace::traceparent).flatten()
    }

    /// Runs a write. During a failover it is tried again for as long as a client would wait, if it did nothing or may do it twice.
    pub(super) async fn write(
        &self,
        repeatable: Repeatable,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Failure> {
        self.write_until(Instant::now() + PATIENCE, repeatable, sql, params).await
    }

    async fn write_until(
        &self,
        deadline: Instant,
        repeatable: Repeatable,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Failure> {
        let mut tries = Tries::until(deadline, &self.breaker)?;
        loop {
            let result = self.pool.query(sql, params, tries.deadline).await;
            let again = match &result {
                Err(failure) if failure.effect == Effect::None || repeatable == Repeatable::Yes => {
                    // An id that is taken is a sequence that came round within a second: the next one is free.
                    let id_taken = failure.constraint.as_deref().is_some_and(|name| name.starts_with("tasks_"));
                    (failure.passing || id_taken) && tries.pause().await
                }
                Ok(_) | Err(_) => false,
            };
            if !again {
                return tries.end(result);
            }
        }
    }

    /// Does a request's operations, with those of other requests if there are any waiting.
    pub(super) async fn apply(
        self: &Arc<Self>,
        user_id: i64,
        operations: Vec<Operation>,
    ) -> Result<Applied, StoreError> {
        let (answer, answered) = oneshot::channel();
        let (traceparent, deadline) = (self.traceparent(), Instant::now() + PATIENCE);
        let request = Request { user_id, operations, traceparent, deadline, answer };
        if self.enqueue(request)? {
            // A task of its own: whoever began it may hang up, and the others in the group must not suffer from that.
            let writer = Arc::clone(self);
            background::spawn(async move {
                while let Some(group) = writer.next_group() {
                    writer.write_group(group).await;
                }
            });
        }
        let given_up = |_| Err(StoreError::Unknown("the process stopped writing".to_owned()));
        answered.await.unwrap_or_else(given_up)
    }

    /// Returns whether another task has to work the queue off.
    fn enqueue(&self, request: Request) -> Result<bool, StoreError> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.waiting.len() >= MOST_WAITING {
            return Err(StoreError::Overloaded);
        }
        queue.operations += request.operations.len();
        queue.waiting.push_back(request);
        self.note_waiting(&queue);
        let more = queue.wants_more(Instant::now());
        queue.working += usize::from(more);
        Ok(more)
    }

    /// What goes next; with nothing to go, the task that asks is no longer counted.
    fn next_group(&self) -> Option<Vec<Request>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut group = Vec::new();
        let mut operations = 0;
        while let Some(next) = queue.waiting.front() {
            operations += next.operations.len();
            if operations > MOST_TOGETHER && !group.is_empty() {
                break;
            }
            group.extend(queue.waiting.pop_front());
        }
        self.note_waiting(&queue);
        queue.operations -= group.iter().map(|request| request.operations.len()).sum::<usize>();
        if group.is_empty() {
            queue.working -= 1;
            return None;
        }
        Some(group)
    }

    fn note_waiting(&self, queue: &Queue) {
        self.waiting.set(i64::try_from(queue.waiting.len()).unwrap_or(i64::MAX));
    }

    async fn write_group(&self, group: Vec<Request>) {
        let now = Instant::now();
        let (group, late): (Vec<_>, Vec<_>) = group.into_iter().partition(|request| now < request.deadline);
        for request in late {
            request.answer(Err(StoreError::Unavailable(format!("the write did not get its turn within {PATIENCE:?}"))));
        }
        match self.write_together(&group).await {
            Ok(rows) => answer(group, &rows),
            Err(failure) if group.len() == 1 => group.into_iter().for_each(|request| request.fail(&failure)),
            Err(failure) => self.write_singly(group, &failure).await,
        }
    }

    async fn write_together(&self, group: &[Request]) -> Result<Vec<Row>, Failure> {
        let Some(deadline) = group.iter().map(|request| request.deadline).min() else { return Ok(Vec::new()) };
        let columns = Columns::of(group.iter().map(|Request { user_id, operations, traceparent, .. }| Asked {
            user_id: *user_id,
            operations,
            traceparent: traceparent.as_deref(),
        }));
        let repeatable = repeatable(group.iter().flat_map(|request| &request.operations));
        self.write_until(deadline, repeatable, &changes::APPLY, &columns.params(&self.rules)).await
    }

    /// After a group failed: its members that may well succeed alone, one by one.
    async fn write_singly(&self, group: Vec<Request>, failure: &Failure) {
        for request in group {
            let again = match failure.effect {
                // One of them can't be written, and it may be another.
                Effect::None => !failure.passing,
                Effect::Unknown => repeatable(&request.operations) == Repeatable::Yes,
            };
            if !again {
                request.fail(failure);
                continue;
            }
            match self.write_together(slice::from_ref(&request)).await {
                Ok(rows) => answer(vec![request], &rows),
                Err(failure) => request.fail(&failure),
            }
        }
    }
}

impl Queue {
    /// Whether what waits has to be begun beside what is in flight.
    fn wants_more(&self, now: Instant) -> bool {
        let hangs = || self.waiting.front().is_some_and(|first| first.deadline + HANGS < now + PATIENCE);
        self.working == 0 || self.working < MOST_GROUPS && (self.operations >= MOST_TOGETHER || hangs())
    }
}

impl Request {
    fn answer(self, result: Result<Applied, StoreError>) {
        // Whoever asked may have hung up.
        let _ = self.answer.send(result);
    }

    fn fail(self, failure: &Failure) {
        self.answer(Err(failure.clone().into()));
    }
}

/// Gives each request the rows of its operations; they come in order.
fn answer(group: Vec<Request>, rows: &[Row]) {
    let mut rest = rows;
    for request in group {
        let (rows, others) = rest.split_at_checked(request.operations.len()).unwrap_or((&[], &[]));
        rest = others;
        let result = changes::read(rows, request.operations.len());
        request.answer(result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use task_api_domain::id::TaskId;

    fn request(operations: usize, deadline: Instant) -> Request {
        let id = TaskId::new(1 << 21).unwrap();
        let operations = vec![Operation::Delete { id, expected: None }; operations];
        Request { user_id: 1, operations, traceparent: None, deadline, answer: oneshot::channel().0 }
    }

    /// Whether each of these requests has a group begun.
    fn enqueue(writer: &Writer, sizes: &[usize]) -> Vec<bool> {
        let deadline = Instant::now() + PATIENCE;
        sizes.iter().map(|size| writer.enqueue(request(*size, deadline)).unwrap()).collect()
    }

    fn next(writer: &Writer) -> Option<Vec<usize>> {
        writer.next_group().map(|group| group.iter().map(|request| request.operations.len()).collect())
    }

    #[test]
    fn who_waits_goes_together_up_to_a_bound() {
        let writer = Writer::new(Config::new(), Writes::default(), WriterMetrics::default());
        assert_eq!(enqueue(&writer, &[1]), [true]);
        assert_eq!(next(&writer), Some(vec![1]));
        assert_eq!(enqueue(&writer, &[2, 100, 26]), [false, false, true], "the second group is full");
        assert_eq!(next(&writer), Some(vec![2, 100, 26]));
        assert_eq!(enqueue(&writer, &[100, 100, 500, 1, 1]), [false, true, true, false, false]);
        assert_eq!(next(&writer), Some(vec![100]));
        assert_eq!(next(&writer), Some(vec![100]));
        assert_eq!(next(&writer), Some(vec![500]), "a request is never divided");
        assert_eq!(next(&writer), Some(vec![1, 1]));
        assert_eq!([(); 4].map(|()| next(&writer)), [None, None, None, None]);
        assert_eq!(enqueue(&writer, &[1, 1]), [true, false], "all are at rest");
    }

    #[test]
    fn who_waits_for_a_group_that_hangs_goes_beside_it() {
        let writer = Writer::new(Config::new(), Writes::default(), WriterMetrics::default());
        enqueue(&writer, &[1]);
        next(&writer);
        let came = Instant::now() - HANGS * 2;
        assert!(!writer.enqueue(request(1, Instant::now() + PATIENCE)).unwrap());
        assert_eq!(next(&writer), Some(vec![1]));
        assert!(writer.enqueue(request(1, came + PATIENCE)).unwrap());
    }

    #[test]
    fn no_more_wait_than_get_their_turn() {
        let writer = Writer::new(Config::new(), Writes::default(), WriterMetrics::default());
        enqueue(&writer, &[1; MOST_WAITING]);
        assert!(matches!(writer.enqueue(request(1, Instant::now())), Err(StoreError::Overloaded)));
        writer.next_group();
        assert!(writer.enqueue(request(1, Instant::now())).is_ok());
    }
}
