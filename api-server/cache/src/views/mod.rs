//! Views: all tasks of a user in memory, so that what they read costs no query (plan section 4.1, "L2").
//!
//! # Why a view is never stale
//!
//! A view is loaded once and then changed along with the store. What could go wrong is that a write gets lost between the two. Every
//! user has one [`Slot`], and these rules hold:
//!
//! 1. *A local write holds the slot's gate from before the store is asked until the view is changed*, and so does a load. Therefore a view
//!    sees one user's local writes in the store's order, and no load runs while one of them is on its way. The write runs in a task of its
//!    own, so that it gets to the view even if its client hangs up.
//! 2. *A write of another instance becomes known by its mark.* A view that was loaded at a version below the mark is dropped. A load that
//!    began before is thrown away, unless what it loaded shows the mark: it may have read the store before the write.
//! 3. *What is loaded shows every write that is known of*, here or in the session store: the greatest mark goes with the load, and a replica
//!    that lags behind it is not asked.
//! 4. *A slot leaves the map only while nobody holds it*, so there are never two of one user, and a write that is on its way finds the view
//!    that its user's reads see.
//! 5. *A write of which nobody knows whether it happened* (the connection broke) may happen later still, unannounced. Until it can't
//!    any more, its user's reads go to the store.
//! 6. *An instance that can't hear of other instances' writes has no views*: while the bus is down reads go to the store, and when
//!    it is back all slots begin anew.
//! 7. *A database that has lost writes says so by its timeline.* Nothing that was loaded before a write on a later one is believed any more.
//! 8. *An instance that goes without a word may have written what it has told nobody.* Nothing that was loaded before that is noticed, a second
//!    later, is believed any more.
//!
//! On SQLite there are no other instances, and only rules 1 and 4 matter.
//!
//! A view's own version stays what it was when it was loaded: local writes are added to it without raising that, because another instance's
//! write with a lesser mark may not have been announced yet.
//!
//! Users with more than [`MOST_TASKS`] tasks have no view; the store answers them.

mod shared;
mod slot;
mod view;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use task_api_cluster::bus::{Heard, InvalidationBus, News};
use task_api_domain::mark::Mark;
use task_api_resilience::{memory::Memory, weighted_cache::WeightedCache};
use task_api_sessions::Sessions;
use task_api_store::{Bound, Idempotency, Operation, Outcome, Piece, SearchRequest, Store, StoreError, Written};
use task_api_telemetry::{
    context::{self, RequestContext},
    metrics::LevelMetrics,
    trace::span,
};
use tokio::time::{sleep, timeout};
use tracing::Instrument;

pub use shared::SharedViews;
use slot::{Found, Slot};
pub use view::{Entry, View};

/// The most tasks in a view.
const MOST_TASKS: usize = 500;
/// The most bytes in a view.
const MOST_BYTES: usize = 256 << 10;
/// How long a write waits for those of its user before it. With what the store takes then, it is over before its client is answered that it
/// took too long.
const TURN: Duration = Duration::from_secs(8);
/// What a write takes in memory whose tasks may be as large as any.
const UNKNOWN_TASK: usize = 1 << 20;
/// How often it is looked what is no longer needed.
const SWEEP: Duration = Duration::from_secs(5);
/// How long a write may be on its way of which nobody knows whether it happened: longer than the store and the pooler keep at it.
const UNSURE: Duration = Duration::from_secs(30);
/// A mark that no replica shows: the primary is asked when nobody can tell what the user wrote.
const UNKNOWN: Mark = Mark(i64::MAX);

/// See the module.
#[derive(Debug)]
pub struct Views {
    store: Arc<Store>,
    sessions: Arc<Sessions>,
    memory: Memory,
    slots: WeightedCache<i64, Arc<Slot>>,
    ttl: Duration,
    /// Whether every write that happens becomes known here.
    informed: AtomicBool,
    /// Of each database, the latest timeline that a write was done on, of those that are known of.
    timelines: Vec<AtomicI64>,
    metrics: LevelMetrics,
    others: Option<Others>,
}

/// How much views may take.
#[derive(Clone, Copy, Debug)]
pub struct LocalViews {
    /// Of memory, all together.
    pub bytes: usize,
    /// Until one is loaded anew.
    pub ttl: Duration,
}

/// What there is between this instance and others.
#[derive(Debug)]
pub struct Others {
    /// Views that all of them find.
    pub shared: SharedViews,
    /// Tells of writes.
    pub bus: Arc<InvalidationBus>,
}

impl Views {
    /// Views of what is in `store`. Where it is not in this process alone and there is nothing between the instances, there are none.
    pub fn new(
        (store, sessions): (Arc<Store>, Arc<Sessions>),
        memory: Memory,
        local: LocalViews,
        others: Option<Others>,
        metrics: LevelMetrics,
    ) -> Self {
        let slots = WeightedCache::new(local.bytes, |slot| Arc::strong_count(slot) == 1);
        // Other instances are heard of once the bus says so.
        let informed = AtomicBool::new(store.is_embedded());
        let timelines = (0..store.shards()).map(|_| AtomicI64::new(0)).collect();
        Self { store, sessions, memory, slots, ttl: local.ttl, informed, timelines, metrics, others }
    }

    /// What `read` makes of a user's view; nothing, if the store has to be asked.
    pub async fn read<R>(&self, user_id: i64, read: impl Fn(&mut View) -> R) -> Result<Option<R>, StoreError> {
        if !self.informed.load(Ordering::Acquire) {
            return Ok(None);
        }
        let slot = self.slot(user_id);
        match self.look(&slot, &read) {
            Found::Answer(answer) => return Ok(Some(answer)),
            Found::Off => return Ok(None),
            Found::Nothing => {}
        }
        let _gate = slot.gate.lock().await;
        // Somebody else may have loaded it in the meantime.
        match self.look(&slot, &read) {
            Found::Answer(answer) => return Ok(Some(answer)),
            Found::Off => return Ok(None),
            Found::Nothing => {}
        }
        self.metrics.misses.inc();
        self.load(user_id, &slot, &read).await
    }

    fn look<R>(&self, slot: &Slot, read: impl Fn(&mut View) -> R) -> Found<R> {
        let found = slot.read(read);
        if matches!(found, Found::Answer(_)) {
            self.metrics.hits.inc();
        }
        found
    }

    async fn load<R>(&self, user_id: i64, slot: &Slot, read: impl Fn(&mut View) -> R) -> Result<Option<R>, StoreError> {
        let remembered = self.sessions.wrote(user_id).await;
        if let Ok(mark) = remembered {
            slot.known(mark);
        }
        let (load, loaded_at) = (slot.begin_load(), Timestamp::now());
        let found = match &self.others {
            Some(others) if remembered.is_ok() => others.shared.get(user_id, load.least).await,
            _ => None,
        };
        let (mut view, shows) = if let Some(found) = found {
            self.heed_timeline(user_id, found.1);
            found
        } else {
            let wrote = if remembered.is_ok() { load.least } else { Some(UNKNOWN) };
            let Some(loaded) = self.load_from_store(user_id, wrote).await? else {
                slot.turn_off(self.ttl);
                return Ok(None);
            };
            if let Some(others) = &self.others {
                others.shared.put(user_id, load.least, &loaded.0, loaded.1, loaded_at);
            }
            loaded
        };
        let answer = read(&mut view);
        slot.end_load(load, view, shows, self.ttl);
        self.slots.resize(user_id, slot.bytes());
        Ok(Some(answer))
    }

    /// A view and up to which write it shows everything, unless it is too large.
    async fn load_from_store(&self, user_id: i64, wrote: Option<Mark>) -> Result<Option<(View, Mark)>, StoreError> {
        let loaded = self.store.load_view(user_id, Bound { tasks: MOST_TASKS, bytes: MOST_BYTES }, wrote).await?;
        self.heed_timeline(user_id, loaded.version);
        if loaded.piece.more {
            return Ok(None);
        }
        let view = View::new(loaded.piece.tasks.iter().map(Entry::new).collect::<Result<_, _>>()?);
        Ok((!is_too_large(&view)).then_some((view, loaded.version)))
    }

    /// The last write of a user that is known of, for a read that goes to the store.
    pub async fn wrote(&self, user_id: i64) -> Option<Mark> {
        let shown = self.shown(user_id);
        self.sessions.wrote(user_id).await.map_or(Some(UNKNOWN), |remembered| shown.max(remembered))
    }

    /// The last write that a user's view must show, if one is known.
    pub fn shown(&self, user_id: i64) -> Option<Mark> {
        self.slots.get(user_id, |slot| slot.least()).flatten()
    }

    /// Changes the store, and the view along with it.
    pub async fn write(
        self: &Arc<Self>,
        user_id: i64,
        operations: Vec<Operation>,
        idempotency: Option<Idempotency>,
    ) -> Result<Written<Vec<Outcome>>, StoreError> {
        let views = Arc::clone(self);
        let write = async move { views.write_through(user_id, operations, idempotency.as_ref()).await };
        tokio::spawn(RequestContext::carried_into(write).in_current_span()).await.unwrap_or_else(|error| {
            self.unsure(user_id);
            Err(StoreError::Unknown(format!("the task that wrote has ended: {error}")))
        })
    }

    async fn write_through(
        self: &Arc<Self>,
        user_id: i64,
        operations: Vec<Operation>,
        idempotency: Option<&Idempotency>,
    ) -> Result<Written<Vec<Outcome>>, StoreError> {
        let slot = self.slot(user_id);
        let gate = if self.informed.load(Ordering::Acquire) && !slot.is_off() {
            let turn = timeout(TURN, slot.gate.lock()).await;
            Some(turn.map_err(|_| StoreError::Unavailable(format!("the write did not get its turn within {TURN:?}")))?)
        } else {
            // There is no view to be changed. Should one be loaded until this is over, it is told then. Nobody knows how large the tasks are.
            context::keep(self.memory.hold(Some(user_id), UNKNOWN_TASK).await?);
            None
        };
        let written = self.store.apply(user_id, operations, idempotency).await;
        if let Ok(Written { mark: Some(mark), .. }) = &written {
            self.heed_timeline(user_id, *mark);
        }
        match &written {
            Ok(written) if gate.is_some() && !written.replayed => change(&slot, written),
            Ok(Written { mark: Some(mark), .. }) => slot.surprise(*mark),
            Err(StoreError::Unknown(_)) => {
                slot.turn_off(UNSURE);
                if let Some(others) = &self.others {
                    others.bus.tell(News::Unsure(user_id));
                }
                self.settle_later(user_id);
            }
            // Nothing was changed.
            Ok(_) | Err(_) => {}
        }
        drop(gate);
        self.slots.resize(user_id, slot.bytes());
        let written = written?;
        if let Some(mark) = written.mark {
            self.announce(user_id, mark).instrument(span!("cache.invalidate")).await;
        }
        Ok(written)
    }

    /// Makes a write known. First where those look who load the view, then to those who have it: the other way round, one could load the old
    /// view after it was told.
    async fn announce(&self, user_id: i64, mark: Mark) {
        self.sessions.remember(user_id, Some(mark)).await;
        if let Some(others) = &self.others {
            others.bus.announce(News::Wrote(user_id, mark)).await;
        }
    }

    /// Once a write of which nobody knows has happened or can't happen any more, everything that may lack it is dropped.
    fn settle_later(self: &Arc<Self>, user_id: i64) {
        let views = Arc::clone(self);
        tokio::spawn(async move {
            sleep(UNSURE).await;
            // Empty or not, what is read now has seen it.
            match views.store.load_view(user_id, Bound { tasks: 0, bytes: 0 }, Some(UNKNOWN)).await {
                Ok(seen) => {
                    views.surprise(user_id, seen.version);
                    views.announce(user_id, seen.version).await;
                }
                Err(error) => tracing::warn!(user_id, "a write of which nobody knows may be shown late: {error}"),
            }
        });
    }

    fn hear(&self, heard: Heard) {
        match heard {
            Heard::Nothing => {
                self.inform(false);
                self.forget_everything();
            }
            Heard::Everything => {
                self.forget_everything();
                self.inform(true);
            }
            Heard::Silence => self.distrust(),
            Heard::News(News::Wrote(user_id, mark)) => self.surprise(user_id, mark),
            Heard::News(News::Unsure(user_id)) => self.unsure(user_id),
            Heard::News(News::Ended(session)) => self.sessions.forget(session),
            Heard::News(News::EndedAll(user_id)) => self.sessions.forget_those_of(user_id),
            Heard::News(News::Anything) => self.forget_everything(),
            Heard::News(News::Leaving) => {}
        }
    }

    fn forget_everything(&self) {
        self.forget();
        self.sessions.forget_all();
    }

    /// After a member took over that lacked writes, or a backup was restored, what was loaded before may show what there never was.
    fn heed_timeline(&self, user_id: i64, mark: Mark) {
        let shard = user_id.unsigned_abs() % self.timelines.len() as u64;
        let Some(timeline) = usize::try_from(shard).ok().and_then(|shard| self.timelines.get(shard)) else { return };
        let known = timeline.fetch_max(mark.timeline(), Ordering::AcqRel);
        if (1..mark.timeline()).contains(&known) {
            tracing::info!(
                timeline = mark.timeline(),
                "the database is on another timeline: what is in memory is read anew"
            );
            self.distrust();
        }
    }

    /// Takes note of another instance's write.
    pub fn surprise(&self, user_id: i64, mark: Mark) {
        self.heed_timeline(user_id, mark);
        self.slots.get(user_id, |slot| slot.surprise(mark));
    }

    /// Takes note that nobody knows whether another instance's write happened.
    pub fn unsure(&self, user_id: i64) {
        self.slots.get(user_id, |slot| slot.turn_off(UNSURE));
    }

    /// Forgets every view: there may have been writes that never became known.
    pub fn forget(&self) {
        self.slots.for_each(|slot| slot.forget());
    }

    /// An instance has gone without a word: it may have written what it has told nobody.
    pub fn distrust(&self) {
        if let Some(others) = &self.others {
            others.shared.distrust();
        }
        self.forget();
    }

    /// Tells the others that this instance is about to go, and has told all that it wrote.
    pub async fn leave(&self) {
        if let Some(others) = &self.others {
            others.bus.announce(News::Leaving).await;
        }
    }

    /// Says whether every write that happens becomes known from now on.
    pub fn inform(&self, informed: bool) {
        self.informed.store(informed, Ordering::Release);
    }

    /// Tells a user's view what a search found when the view had changed `changes` times.
    pub fn remember_search(&self, user_id: i64, key: &SearchRequest, found: &Piece, changes: u64) {
        let ids = || found.tasks.iter().map(|task| task.id).collect();
        self.slots
            .get(user_id, |slot| slot.read(|view| view.remember_search(key.clone(), (ids(), found.more), changes)));
    }

    /// Frees memory, and tells other instances what is no longer so and hears what they tell, for as long as the process runs.
    pub async fn keep(self: &Arc<Self>) {
        let sweep = async {
            loop {
                sleep(SWEEP).await;
                self.sweep();
                self.sessions.sweep();
            }
        };
        match &self.others {
            None => sweep.await,
            Some(others) => {
                tokio::join!(sweep, others.bus.run(|heard| self.hear(heard)));
            }
        }
    }

    /// Frees what is held for users who did not come for longer than a view lives.
    fn sweep(&self) {
        self.slots.sweep(self.ttl);
        self.metrics.measured(self.slots.size());
    }

    fn slot(&self, user_id: i64) -> Arc<Slot> {
        self.slots.get_or_insert(user_id, slot::EMPTY_BYTES, Arc::default, Arc::clone)
    }
}

fn change(slot: &Slot, written: &Written<Vec<Outcome>>) {
    let result = slot.wrote(written.mark, |view| {
        let mut is_known = true;
        for outcome in &written.value {
            match outcome {
                Outcome::Created(task) | Outcome::Updated(task) => view.put(Entry::new(task)?),
                Outcome::Deleted(id) => view.remove(*id),
                Outcome::Changed(..) => is_known = false,
                Outcome::NotFound | Outcome::Conflict => {}
            }
        }
        Ok::<_, StoreError>(!is_known || is_too_large(view))
    });
    match result {
        Some(Ok(false)) | None => {}
        // It will be found too large, or broken, when it is loaded.
        Some(_) => slot.forget(),
    }
}

fn is_too_large(view: &View) -> bool {
    view.entries().len() > MOST_TASKS || view.bytes() > MOST_BYTES
}
