//! Keepers look after what Kubernetes can't: each part that needs it has a loop of its own in each platform, apart from the laps that
//! apply objects, so that a platform in trouble holds up nobody. A keeper observes, plans without any I/O, and carries the plan out; what
//! it saw is a report that the next lap puts into the status.

mod gateway;
mod pace;
pub(crate) mod patroni;
pub(crate) mod pgbouncer;
pub(crate) mod redis;
mod redis_cluster;
mod rollout;
pub(crate) mod rotation;
mod spread;
mod superuser;
mod switchover;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use kube::{Client, runtime::reflector::ObjectRef};
use serde_json::Value;
use taskplatform_blueprint::{Component, Credentials, Kind, Platform, RedisCluster, Unit};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    http::Http,
    procedure::rollout::Step,
    world::{Changes, Snapshot, Watched, lock},
};
use pace::{Mood, Pace};

/// How many looks of one kind are under way at once, over all platforms.
const AT_ONCE: usize = 64;
/// A look takes no longer: a restart of PostgreSQL, the longest that one waits for, is bounded by less.
const LONGEST_LOOK: Duration = Duration::from_secs(90);
/// Changes within this time are looked at once.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// For so long after an operator began to lead, the network may not know its pod and keep it out: policies follow the pods' addresses.
const UNKNOWN_TO_THE_NETWORK: Duration = Duration::from_secs(5);
/// How soon those are asked again who did not answer meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// What keepers know of a platform. Each lap tells them.
#[derive(Clone)]
pub(crate) struct Brief {
    pub(crate) platform: Arc<Platform>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) snapshot: Snapshot,
    /// Whether they may change anything, or only look.
    pub(crate) may_act: bool,
    /// Whether everything is as the blueprint says, as far as the API server is concerned.
    pub(crate) is_applied: bool,
}

impl Brief {
    /// Whether there is something new for a keeper to look at.
    fn is_news_after(&self, before: &Self) -> bool {
        self.platform.generation() != before.platform.generation()
            || self.may_act != before.may_act
            || self.is_applied != before.is_applied
            || self.credentials != before.credentials
            || self.platform.switchover() != before.platform.switchover()
            || self.snapshot.lost_nodes() != before.snapshot.lost_nodes()
            || self.pods().ne(before.pods())
            || self.templates().ne(before.templates())
    }

    fn pods(&self) -> impl Iterator<Item = (&str, Option<IpAddr>, bool, bool, Option<Timestamp>)> {
        let pods = self.snapshot.all().filter(|(watched, _)| *watched == Watched::Pod);
        pods.map(|(_, pod)| (&*pod.uid, pod.address(), pod.is_ready(), pod.is_ending(), pod.evicted))
    }

    /// The templates of the stateful parts, and how many pods they are to have.
    fn templates(&self) -> impl Iterator<Item = [Value; 2]> {
        let sets = self.snapshot.all().filter(|(watched, _)| *watched == Watched::Object(Kind::StatefulSet));
        sets.map(|(_, set)| {
            let mut data = set.data();
            [data["spec"]["replicas"].take(), data["status"]["updateRevision"].take()]
        })
    }
}

/// What a keeper saw: nothing, where nobody was there to be asked.
pub(crate) type Seen<T> = Option<Result<T, String>>;

/// What a keeper saw last.
#[derive(Debug, PartialEq)]
pub(crate) struct Report<T> {
    /// The generation of the spec that it knew.
    pub(crate) generation: i64,
    pub(crate) seen: Seen<T>,
}

/// What a keeper saw last; nothing, as long as it has not looked.
pub(crate) type Last<T> = Option<Arc<Report<T>>>;
/// Where a keeper leaves its report.
type Slot<T> = fn(&mut Observed) -> &mut Last<T>;

/// What the poolers said, one by one.
pub(crate) type Poolers = Vec<Result<pgbouncer::Pools, String>>;

/// What all keepers of a platform saw last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) database: Last<patroni::Cluster>,
    pub(crate) poolers: Last<Poolers>,
    pub(crate) cache: Last<redis::Health>,
    pub(crate) sessions: Last<redis::Health>,
    pub(crate) gateway: Last<()>,
    /// The step of a rollout, while there is one.
    pub(crate) rollout: Last<Option<Step>>,
    /// The step at which passwords change, while they do.
    pub(crate) rotation: Last<rotation::Step>,
    /// Pods that could not be moved apart.
    pub(crate) spread: Last<()>,
}

impl Observed {
    /// Whether every keeper has looked.
    pub(crate) const fn is_complete(&self) -> bool {
        let Self { database, poolers, cache, sessions, gateway, rollout: _, rotation: _, spread: _ } = self;
        database.is_some() && poolers.is_some() && cache.is_some() && sessions.is_some() && gateway.is_some()
    }
}

impl Observed {
    /// Whether the pods of a unit that this spec does not want any more have nothing that nobody else has: nobody has seen it as long as the
    /// last look was at another spec.
    pub(crate) fn may_shrink(&self, platform: &Platform, unit: &Unit) -> bool {
        match unit.component {
            Component::DATABASE => {
                of_this_spec(self.database.as_ref(), platform).is_some_and(|cluster| cluster.may_shrink_to(unit.pods))
            }
            Component::CACHE => of_this_spec(self.cache.as_ref(), platform).is_some_and(|nodes| nodes.surplus_drained),
            Component::SESSIONS => {
                of_this_spec(self.sessions.as_ref(), platform).is_some_and(|nodes| nodes.surplus_drained)
            }
            _ => true,
        }
    }
}

/// What was seen since the keeper has known this spec.
fn of_this_spec<'a, T>(report: Option<&'a Arc<Report<T>>>, platform: &Platform) -> Option<&'a T> {
    seen(report.filter(|report| report.generation == platform.generation()))?.as_ref().ok()
}

/// What was seen, of whatever generation.
pub(crate) fn seen<T>(report: Option<&Arc<Report<T>>>) -> Option<&Result<T, String>> {
    report.and_then(|report| report.seen.as_ref())
}

/// Looks after one part of one platform.
trait Keeper: Send + 'static {
    type Sight: PartialEq + Send + Sync + 'static;

    /// Looks, acts where it may and has to, and says how the part is then.
    fn look(&mut self, brief: &Brief) -> impl Future<Output = Seen<Self::Sight>> + Send;

    /// How soon to look again.
    fn mood(sight: &Self::Sight) -> Mood;
}

/// The keepers of all platforms.
pub(crate) struct Keepers {
    changes: Changes,
    http: Http,
    leads_since: Instant,
    limits: [Arc<Semaphore>; 8],
    client: Client,
    tended: Mutex<HashMap<String, Tended>>,
}

/// The keepers of one platform. They end with it.
struct Tended {
    brief: watch::Sender<Arc<Brief>>,
    observed: Arc<Mutex<Observed>>,
    _loops: JoinSet<()>,
}

impl Keepers {
    pub(crate) fn new(client: Client, changes: Changes) -> Self {
        Self {
            changes,
            http: Http::default(),
            leads_since: Instant::now(),
            limits: std::array::from_fn(|_| Arc::new(Semaphore::new(AT_ONCE))),
            tended: Mutex::default(),
            client,
        }
    }

    /// Tells a platform's keepers how it is, begins with it where it is new, and says what they saw last.
    pub(crate) fn tend(&self, brief: Brief) -> Observed {
        let mut tended = lock(&self.tended);
        let uid = brief.platform.uid().to_owned();
        let tended = tended.entry(uid).or_insert_with(|| self.begin(brief.clone()));
        tended.brief.send_if_modified(|known| {
            let news = brief.is_news_after(known);
            *known = Arc::new(brief);
            news
        });
        lock(&tended.observed).clone()
    }

    /// Tells the keepers of a platform whose spec cannot be built where its pods are now: they go on with the last that could.
    pub(crate) fn tend_as_before(&self, uid: &str, snapshot: Snapshot) {
        if let Some(tended) = lock(&self.tended).get(uid) {
            let brief = Brief { snapshot, ..(**tended.brief.borrow()).clone() };
            tended.brief.send_if_modified(|known| {
                let news = brief.is_news_after(known);
                *known = Arc::new(brief);
                news
            });
        }
    }

    /// What the keepers of a platform saw last.
    pub(crate) fn observed(&self, uid: &str) -> Observed {
        lock(&self.tended).get(uid).map(|tended| lock(&tended.observed).clone()).unwrap_or_default()
    }

    pub(crate) fn forget(&self, uid: &str) {
        lock(&self.tended).remove(uid);
    }

    fn begin(&self, brief: Brief) -> Tended {
        let [database, pooler, cache, sessions, gateway, rollout, rotation, spread] = &self.limits;
        let (brief, observed) = (watch::Sender::new(Arc::new(brief)), Arc::default());
        let mut loops = JoinSet::new();
        let begin = |limit: &Arc<Semaphore>| Tending {
            brief: brief.subscribe(),
            observed: Arc::clone(&observed),
            limit: Arc::clone(limit),
            changes: self.changes.clone(),
            leads_since: self.leads_since,
        };
        let members = patroni::Members::new(self.client.clone(), self.http.clone());
        loops.spawn(begin(database).keep(members, |all| &mut all.database));
        loops.spawn(begin(pooler).keep(pgbouncer::Consoles::default(), |all| &mut all.poolers));
        loops.spawn(begin(cache).keep(redis_cluster::Nodes::of(RedisCluster::Cache), |all| &mut all.cache));
        loops.spawn(begin(sessions).keep(redis_cluster::Nodes::of(RedisCluster::Sessions), |all| &mut all.sessions));
        loops.spawn(begin(gateway).keep(gateway::Gateway::new(self.http.clone()), |all| &mut all.gateway));
        let rolling = rollout::Rollout::new(self.client.clone(), self.http.clone());
        loops.spawn(begin(rollout).keep(rolling, |all| &mut all.rollout));
        let rotating = rotation::Rotation::new(self.client.clone(), self.http.clone());
        loops.spawn(begin(rotation).keep(rotating, |all| &mut all.rotation));
        loops.spawn(begin(spread).keep(spread::Spread::new(self.client.clone()), |all| &mut all.spread));
        Tended { brief, observed, _loops: loops }
    }
}

/// A keeper's loop.
struct Tending {
    brief: watch::Receiver<Arc<Brief>>,
    observed: Arc<Mutex<Observed>>,
    limit: Arc<Semaphore>,
    changes: Changes,
    leads_since: Instant,
}

impl Tending {
    async fn keep<K: Keeper>(mut self, mut keeper: K, slot: Slot<K::Sight>) {
        let mut pace = Pace::default();
        loop {
            let brief = Arc::clone(&self.brief.borrow_and_update());
            let seen = self.look(&mut keeper, &brief).await;
            let mood = match &seen {
                None => Mood::Idle,
                Some(Ok(sight)) => K::mood(sight),
                Some(Err(_)) => Mood::Troubled,
            };
            let wait = if mood == Mood::Troubled && self.may_be_kept_out(&brief) {
                ASK_AGAIN
            } else {
                self.report(&brief, slot, seen);
                pace.after(mood)
            };
            tokio::select! {
                changed = self.brief.changed() => match changed {
                    Ok(()) => sleep(DEBOUNCE).await,
                    Err(_) => return,
                },
                () = sleep(wait) => {}
            }
        }
    }

    /// In a box: between two looks, which is most of the time, a loop takes next to no memory.
    async fn look<K: Keeper>(&self, keeper: &mut K, brief: &Brief) -> Seen<K::Sight> {
        let Ok(_permit) = self.limit.acquire().await else { return None };
        let look = Box::pin(timeout(LONGEST_LOOK, keeper.look(brief)));
        look.await.unwrap_or_else(|_| Some(Err(format!("it did not answer within {} s", LONGEST_LOOK.as_secs()))))
    }

    /// An operator that has just begun asks a platform that was ready until it is let in.
    fn may_be_kept_out(&self, brief: &Brief) -> bool {
        let conditions = brief.platform.status().into_iter().flat_map(|status| &status.conditions);
        let was_ready =
            conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        was_ready && self.leads_since.elapsed() < UNKNOWN_TO_THE_NETWORK
    }

    /// Has a lap look at it where it says anything new.
    fn report<T: PartialEq>(&self, brief: &Brief, slot: Slot<T>, seen: Seen<T>) {
        let platform = &brief.platform;
        let report = Report { generation: platform.generation(), seen };
        let mut observed = lock(&self.observed);
        let slot = slot(&mut observed);
        if slot.as_deref() != Some(&report) {
            *slot = Some(Arc::new(report));
            // Nobody listens any more where the operator ends.
            let _ = self.changes.unbounded_send(ObjectRef::new(platform.name()).within(platform.namespace()));
        }
    }
}
