//! The objects of all platforms.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use futures::{Stream, StreamExt, TryStreamExt, channel::mpsc};
use kube::{
    Api, Client, ResourceExt,
    core::DynamicObject,
    runtime::{
        WatchStreamExt,
        reflector::ObjectRef,
        watcher::{Event, watcher},
    },
};
use tokio::sync::watch;
use tracing::warn;

use super::{Child, Found, LostNodes, Snapshot, Watched, snapshot::Objects};

/// A platform's namespace and name.
pub(crate) type Place = (String, String);

/// Names each platform one of whose objects has changed.
pub(crate) type Changes = mpsc::UnboundedSender<ObjectRef<Found>>;

/// The objects of all platforms, as the API server has them, and the nodes that are lost, before it knows.
#[derive(Default)]
pub(crate) struct World {
    places: Mutex<HashMap<Place, Arc<Objects>>>,
    lost_nodes: watch::Sender<Arc<LostNodes>>,
    /// Of no use to a replica that does not lead.
    changes: OnceLock<Changes>,
}

impl World {
    /// Watches everything that platforms are made of. `unlisted` names the kinds that it cannot do without and that are not listed yet.
    pub(crate) fn watch(client: &Client, unlisted: &watch::Sender<BTreeSet<Watched>>) -> Arc<Self> {
        let world = Arc::new(Self::default());
        unlisted.send_replace(Watched::all().filter(|watched| !watched.is_optional()).collect());
        for watched in Watched::all() {
            tokio::spawn(Arc::clone(&world).follow(client.clone(), watched, unlisted.clone()));
        }
        world
    }

    /// The platforms whose objects change from now on, to be asked for once.
    pub(crate) fn changes(&self) -> (Changes, impl Stream<Item = ObjectRef<Found>> + Send + 'static) {
        let (sender, changed) = mpsc::unbounded();
        (self.changes.get_or_init(|| sender).clone(), changed)
    }

    async fn follow(self: Arc<Self>, client: Client, watched: Watched, unlisted: watch::Sender<BTreeSet<Watched>>) {
        let resource = watched.api_resource();
        let api: Api<DynamicObject> = Api::all_with(client, &resource);
        let mut events = watcher(api, watched.config()).default_backoff().boxed();
        let mut listed = BTreeSet::new();
        loop {
            let touched = match events.try_next().await {
                Ok(Some(Event::Apply(object))) => self.remember(watched, object),
                Ok(Some(Event::Delete(object))) => self.forget(watched, &object),
                Ok(Some(Event::Init)) => {
                    listed.clear();
                    None
                }
                Ok(Some(Event::InitApply(object))) => {
                    listed.insert((object.namespace().unwrap_or_default(), watched.name_of(&object)));
                    self.remember(watched, object)
                }
                Ok(Some(Event::InitDone)) => {
                    self.keep_only(watched, &listed);
                    unlisted.send_if_modified(|unlisted| unlisted.remove(&watched));
                    None
                }
                Ok(None) => return,
                Err(error) => {
                    warn!(
                        error = crate::describe(&error),
                        kind = resource.kind,
                        "the watch broke off, and is taken up again; where it is forbidden, does the operator's ClusterRole allow list and watch?"
                    );
                    None
                }
            };
            if let Some((namespace, name)) = touched
                && let Some(changes) = self.changes.get()
                && changes.unbounded_send(ObjectRef::new(&name).within(&namespace)).is_err()
            {
                return;
            }
        }
    }

    /// What is known of a platform now.
    pub(crate) fn snapshot(&self, namespace: &str, name: &str) -> Snapshot {
        let objects = lock(&self.places).get(&(namespace.to_owned(), name.to_owned())).cloned();
        Snapshot { objects: objects.unwrap_or_default(), lost_nodes: Arc::clone(&self.lost_nodes.borrow()) }
    }

    /// Notes on which nodes nothing answers, where that has changed.
    pub(crate) fn note_lost(&self, nodes: LostNodes) {
        self.lost_nodes.send_if_modified(|known| {
            let is_news = **known != nodes;
            *known = Arc::new(nodes);
            is_news
        });
    }

    /// The nodes on which nothing answers, as they change.
    pub(crate) fn lost_nodes(&self) -> watch::Receiver<Arc<LostNodes>> {
        self.lost_nodes.subscribe()
    }

    /// Has a lap go round for each platform with a pod on the node.
    pub(crate) fn touch(&self, node: &str) {
        let Some(changes) = self.changes.get() else { return };
        for ((namespace, name), objects) in lock(&self.places).iter() {
            let is_there = |((watched, _), child): (&(Watched, Box<str>), &Arc<Child>)| {
                *watched == Watched::Pod && child.node() == Some(node)
            };
            if objects.iter().any(is_there) {
                // Nobody listens any more where the operator ends.
                let _ = changes.unbounded_send(ObjectRef::new(name).within(namespace));
            }
        }
    }

    /// The pods of all platforms, each with its namespace.
    pub(crate) fn pods(&self) -> Vec<(String, Arc<Child>)> {
        let places = lock(&self.places);
        let all = places.iter().flat_map(|((namespace, _), objects)| {
            let pods = objects.iter().filter(|((watched, _), _)| *watched == Watched::Pod);
            pods.map(move |(_, pod)| (namespace.clone(), Arc::clone(pod)))
        });
        all.collect()
    }

    /// Remembers what the API server answered.
    pub(crate) fn remember_answer(&self, watched: Watched, object: DynamicObject) -> Arc<Child> {
        let place = watched.place_of(&object);
        let child = Arc::new(Child::of(watched, object));
        if let Some(place) = place {
            self.insert(watched, &place, Arc::clone(&child));
        }
        child
    }

    /// Names the platform where the object says anything new.
    fn remember(&self, watched: Watched, object: DynamicObject) -> Option<Place> {
        let place = watched.place_of(&object)?;
        let child = Arc::new(Child::of(watched, object));
        self.insert(watched, &place, child).then_some(place)
    }

    /// Unless a newer version is known. True where it says anything new: Patroni notes its position on its pod every few seconds,
    /// for example, and that is no news.
    fn insert(&self, watched: Watched, place: &Place, mut child: Arc<Child>) -> bool {
        let mut places = lock(&self.places);
        let objects = Arc::make_mut(places.entry(place.clone()).or_default());
        let key = (watched, child.name.clone());
        let news = match objects.get(&key) {
            Some(known) if known.version >= child.version && known.uid == child.uid => return false,
            Some(known) => {
                if child.is_as(known) {
                    child = Arc::new(child.compared());
                }
                !known.says_the_same(&child)
            }
            None => true,
        };
        objects.insert(key, child);
        news
    }

    /// The object of this version is as it was applied: its values need not be known any longer.
    pub(crate) fn note_compared(&self, watched: Watched, place: &Place, child: &Child) {
        let mut places = lock(&self.places);
        let Some(objects) = places.get_mut(place) else { return };
        if let Some(known) = Arc::make_mut(objects).get_mut(&(watched, child.name.clone()))
            && known.uid == child.uid
            && known.version == child.version
        {
            *known = Arc::new(known.compared());
        }
    }

    fn forget(&self, watched: Watched, object: &DynamicObject) -> Option<Place> {
        let place = watched.place_of(object)?;
        let mut places = lock(&self.places);
        let objects = Arc::make_mut(places.get_mut(&place)?);
        let key = (watched, watched.name_of(object).into());
        if objects.get(&key).is_some_and(|known| Some(&*known.uid) == object.metadata.uid.as_deref()) {
            objects.remove(&key);
        }
        if objects.is_empty() {
            places.remove(&place);
        }
        Some(place)
    }

    /// After a new listing, what was not listed is gone.
    fn keep_only(&self, watched: Watched, listed: &BTreeSet<Place>) {
        lock(&self.places).retain(|(namespace, _), objects| {
            let is_gone = |kind: &Watched, name: &str| {
                *kind == watched && !listed.contains(&(namespace.clone(), name.to_owned()))
            };
            if objects.keys().any(|(kind, name)| is_gone(kind, name)) {
                Arc::make_mut(objects).retain(|(kind, name), _| !is_gone(kind, name));
            }
            !objects.is_empty()
        });
    }
}

/// A thread that panicked leaves the map as it was: each change is one insertion or removal.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
