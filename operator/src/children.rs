//! The objects of the platforms as the API server has them: watched, compared, applied, and removed when unwanted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{Stream, StreamExt, TryStreamExt, channel::mpsc};
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy},
    core::{ApiResource, DynamicObject},
    runtime::{
        WatchStreamExt,
        reflector::ObjectRef,
        watcher::{self, Event, watcher},
    },
};
use serde_json::{Value, json};
use taskplatform_blueprint::{
    Component, Kind, MANAGED_BY, Object,
    applied::{digest, is_kept, was_applied, with_owner},
    owner_reference,
};
use taskplatform_crds::TaskPlatform;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::{
    controller::Guarded,
    metrics::{KindLabel, Metrics},
    volumes,
};

/// An object cannot be applied or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{kind} {name} cannot be applied")]
    Apply { kind: &'static str, name: String, source: Box<kube::Error> },
    #[error("{kind} {name} is not wanted any more but cannot be deleted")]
    Delete { kind: &'static str, name: String, source: Box<kube::Error> },
    #[error(transparent)]
    Volumes(#[from] volumes::Error),
}

/// What is watched: the blueprint's kinds, and the pods and volume claims that come of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Watched {
    Object(Kind),
    Pod,
    Claim,
}

impl Watched {
    fn all() -> impl Iterator<Item = Self> {
        Kind::ALL.into_iter().map(Self::Object).chain([Self::Pod, Self::Claim])
    }

    fn api_resource(self) -> ApiResource {
        match self {
            Self::Object(kind) => ApiResource::from_gvk(&kind.group_version_kind()),
            Self::Pod => ApiResource::erase::<Pod>(&()),
            Self::Claim => ApiResource::erase::<PersistentVolumeClaim>(&()),
        }
    }

    /// The labels that tell what is a platform's. A StatefulSet gives its claims only those that it selects its pods by.
    fn labels(self) -> String {
        match self {
            Self::Object(_) | Self::Pod => {
                format!("app.kubernetes.io/name=taskplatform,app.kubernetes.io/managed-by={MANAGED_BY}")
            }
            Self::Claim => "app.kubernetes.io/name=taskplatform".to_owned(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Object(kind) => kind.name(),
            Self::Pod => "Pod",
            Self::Claim => "PersistentVolumeClaim",
        }
    }
}

/// A platform's place.
type Place = (String, String);

/// The objects of one platform.
type Objects = BTreeMap<(Watched, String), Arc<DynamicObject>>;

/// The objects of all platforms.
pub(crate) struct Children {
    client: Client,
    metrics: Arc<Metrics>,
    places: Mutex<HashMap<Place, Objects>>,
    /// Digests of objects that the API server did not keep as they were applied: applying them again changes nothing.
    unkept: Mutex<HashMap<String, String>>,
}

impl Children {
    /// Watches everything that platforms are made of. Resolves once every kind has been listed; the stream names each
    /// platform one of whose objects has changed.
    pub(crate) async fn watch(
        client: Client,
        metrics: Arc<Metrics>,
    ) -> (Arc<Self>, impl Stream<Item = ObjectRef<Guarded>> + Send + 'static) {
        let (places, unkept) = (Mutex::default(), Mutex::default());
        let children = Arc::new(Self { client, metrics, places, unkept });
        let (sender, changed) = mpsc::unbounded();
        let mut listed = Vec::new();
        for watched in Watched::all() {
            let (done, listing) = oneshot::channel();
            tokio::spawn(Arc::clone(&children).follow(watched, sender.clone(), done));
            listed.push(listing);
        }
        futures::future::join_all(listed).await;
        (children, changed)
    }

    async fn follow(
        self: Arc<Self>,
        watched: Watched,
        changed: mpsc::UnboundedSender<ObjectRef<Guarded>>,
        done: oneshot::Sender<()>,
    ) {
        let resource = watched.api_resource();
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        // Pages are small: each is held in memory as text and as objects.
        let config = watcher::Config::default().labels(&watched.labels()).page_size(50);
        let mut events = watcher(api, config).default_backoff().boxed();
        let (mut done, mut listed) = (Some(done), BTreeSet::new());
        loop {
            let touched = match events.try_next().await {
                Ok(Some(Event::Apply(object))) => self.remember(watched, object),
                Ok(Some(Event::Delete(object))) => self.forget(watched, &object),
                Ok(Some(Event::Init)) => {
                    listed.clear();
                    None
                }
                Ok(Some(Event::InitApply(object))) => {
                    listed.insert((object.namespace().unwrap_or_default(), object.name_any()));
                    self.remember(watched, object)
                }
                Ok(Some(Event::InitDone)) => {
                    self.keep_only(watched, &listed);
                    if let Some(done) = done.take() {
                        let _ = done.send(());
                    }
                    None
                }
                Ok(None) => return,
                Err(error) => {
                    warn!(%error, kind = resource.kind, "the watch broke off; it is taken up again");
                    None
                }
            };
            if let Some((namespace, name)) = touched {
                let platform = ObjectRef::new(&name).within(&namespace);
                if changed.unbounded_send(platform).is_err() {
                    return;
                }
            }
        }
    }

    /// Remembers an object unless a newer one is known; names the platform when it has changed.
    fn remember(&self, watched: Watched, object: DynamicObject) -> Option<Place> {
        let place = place_of(&object)?;
        let object = Arc::new(slim(watched, object));
        let mut places = lock(&self.places);
        let objects = places.entry(place.clone()).or_default();
        let key = (watched, object.name_any());
        if objects.get(&key).is_some_and(|known| version(known) >= version(&object) && known.uid() == object.uid()) {
            return None;
        }
        // Patroni notes its position on its pod every few seconds, for example: that is no news.
        let news = objects.get(&key).is_none_or(|known| !says_the_same(known, &object));
        objects.insert(key, object);
        news.then_some(place)
    }

    fn forget(&self, watched: Watched, object: &DynamicObject) -> Option<Place> {
        let place = place_of(object)?;
        let mut places = lock(&self.places);
        let objects = places.get_mut(&place)?;
        let key = (watched, object.name_any());
        if objects.get(&key).is_some_and(|known| known.uid() == object.uid()) {
            objects.remove(&key);
        }
        if objects.is_empty() {
            places.remove(&place);
        }
        Some(place)
    }

    /// After a new listing, what was not listed is gone.
    fn keep_only(&self, watched: Watched, listed: &BTreeSet<Place>) {
        for ((namespace, _), objects) in lock(&self.places).iter_mut() {
            objects.retain(|(kind, name), _| *kind != watched || listed.contains(&(namespace.clone(), name.clone())));
        }
    }

    /// An object of the platform.
    pub(crate) fn get(&self, owner: &TaskPlatform, kind: Kind, name: &str) -> Option<Arc<DynamicObject>> {
        lock(&self.places).get(&place(owner))?.get(&(Watched::Object(kind), name.to_owned())).cloned()
    }

    /// Everything of the platform, each with its kind's name.
    pub(crate) fn all(&self, owner: &TaskPlatform) -> Vec<(&'static str, Arc<DynamicObject>)> {
        let places = lock(&self.places);
        let objects = places.get(&place(owner)).into_iter().flatten();
        objects.map(|((watched, _), object)| (watched.name(), Arc::clone(object))).collect()
    }

    /// The claims of the platform's volumes.
    pub(crate) fn claims(&self, owner: &TaskPlatform) -> Vec<Arc<DynamicObject>> {
        let places = lock(&self.places);
        let objects = places.get(&place(owner)).into_iter().flatten();
        objects.filter(|((watched, _), _)| *watched == Watched::Claim).map(|(_, claim)| Arc::clone(claim)).collect()
    }

    /// Whether anything of a component is left but its volumes.
    pub(crate) fn has_any(&self, namespace: &str, platform: &str, component: Component) -> bool {
        let places = lock(&self.places);
        let objects = places.get(&(namespace.to_owned(), platform.to_owned())).into_iter().flatten();
        objects.filter(|((watched, _), _)| *watched != Watched::Claim).any(|(_, object)| is_of(object, component))
    }

    /// The pods of a component.
    pub(crate) fn pods(&self, owner: &TaskPlatform, component: Component) -> Vec<Arc<DynamicObject>> {
        let places = lock(&self.places);
        let pods = places
            .get(&place(owner))
            .into_iter()
            .flatten()
            .filter(|((watched, _), pod)| *watched == Watched::Pod && is_of(pod, component));
        pods.map(|(_, pod)| Arc::clone(pod)).collect()
    }

    /// Applies an object unless it is as it should be.
    pub(crate) async fn apply(&self, owner: &TaskPlatform, object: &Object) -> Result<(), Error> {
        let desired = with_owner(object.value().clone(), &owner_reference(owner));
        let Some(live) = self.get(owner, object.kind(), object.name()) else {
            return self.send(owner, object, &desired).await;
        };
        if self.is_as_applied(&desired, &live) {
            return Ok(());
        }
        if object.kind() == Kind::StatefulSet
            && let Err(error) = Box::pin(volumes::grow(&self.client, &live, &desired)).await
        {
            // Volumes that cannot grow do not hold up what else has changed.
            let desired = with_owner(volumes::as_large_as(&live, object.value().clone()), &owner_reference(owner));
            if !self.is_as_applied(&desired, &live) {
                self.send(owner, object, &desired).await?;
            }
            return Err(error.into());
        }
        self.send(owner, object, &desired).await
    }

    async fn send(&self, owner: &TaskPlatform, object: &Object, desired: &Value) -> Result<(), Error> {
        let name = object.name();
        let failed =
            |source| Error::Apply { kind: object.kind().name(), name: name.to_owned(), source: Box::new(source) };
        let resource = ApiResource::from_gvk(&object.kind().group_version_kind());
        let namespace = owner.namespace().unwrap_or_default();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace, &resource);
        let parameters = PatchParams::apply(MANAGED_BY).force();
        let applied = api.patch(name, &parameters, &Patch::Apply(desired)).await.map_err(failed)?;
        info!(kind = object.kind().name(), name, namespace, "applied");
        self.metrics.applied.get_or_create(&KindLabel { kind: object.kind().name() }).inc();
        self.note_unkept(desired, &applied);
        self.remember(Watched::Object(object.kind()), applied);
        Ok(())
    }

    fn is_as_applied(&self, desired: &Value, live: &DynamicObject) -> bool {
        if live.metadata.deletion_timestamp.is_some() {
            return false;
        }
        was_applied(live, desired)
            && (is_kept(live, desired)
                || lock(&self.unkept).get(&live.uid().unwrap_or_default()) == Some(&content(live)))
    }

    fn note_unkept(&self, desired: &Value, applied: &DynamicObject) {
        let Some(uid) = applied.uid() else { return };
        let mut unkept = lock(&self.unkept);
        if is_kept(applied, desired) {
            unkept.remove(&uid);
        } else {
            warn!(name = applied.name_any(), "the API server does not keep the object as it was applied");
            unkept.insert(uid, content(applied));
        }
    }

    /// Deletes the platform's objects that the blueprint does not have.
    pub(crate) async fn prune(&self, owner: &TaskPlatform, blueprint: &[Object]) -> Result<(), Error> {
        let wanted: BTreeSet<(Kind, &str)> = blueprint.iter().map(|object| (object.kind(), object.name())).collect();
        let uid = owner.uid().unwrap_or_default();
        let unwanted: Vec<(Kind, Arc<DynamicObject>)> = lock(&self.places)
            .get(&place(owner))
            .into_iter()
            .flatten()
            .filter_map(|((watched, name), object)| match watched {
                Watched::Object(kind) if !wanted.contains(&(*kind, name.as_str())) => Some((*kind, Arc::clone(object))),
                _ => None,
            })
            .filter(|(_, object)| object.owner_references().iter().any(|owner| owner.uid == uid))
            .filter(|(_, object)| object.metadata.deletion_timestamp.is_none())
            .collect();
        for (kind, object) in unwanted {
            let resource = ApiResource::from_gvk(&kind.group_version_kind());
            let namespace = object.namespace().unwrap_or_default();
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace, &resource);
            let parameters = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Background),
                preconditions: Some(Preconditions { uid: object.uid(), resource_version: None }),
                ..DeleteParams::default()
            };
            let name = object.name_any();
            match api.delete(&name, &parameters).await {
                Ok(_) => info!(kind = kind.name(), name, namespace, "deleted: not wanted any more"),
                Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
                Err(source) => return Err(Error::Delete { kind: kind.name(), name, source: Box::new(source) }),
            }
        }
        Ok(())
    }
}

/// A digest of what the API server keeps of an object, without what changes by itself.
fn content(object: &DynamicObject) -> String {
    let mut data = object.data.clone();
    if let Some(data) = data.as_object_mut() {
        data.remove("status");
    }
    digest(&json!([data, object.labels(), object.annotations(), object.owner_references()]))
}

/// Whether two versions of an object differ in nothing that is kept of them.
fn says_the_same(one: &DynamicObject, other: &DynamicObject) -> bool {
    let metadata = |object: &DynamicObject| ObjectMeta { resource_version: None, ..object.metadata.clone() };
    one.data == other.data && metadata(one) == metadata(other)
}

/// What the operator does not look at is not kept in memory.
fn slim(watched: Watched, mut object: DynamicObject) -> DynamicObject {
    object.metadata.managed_fields = None;
    if watched == Watched::Pod {
        object.metadata.annotations = None;
        let node = object.data["spec"]["nodeName"].take();
        object.data["spec"] = json!({"nodeName": node});
    }
    if watched == Watched::Claim {
        object.metadata.annotations = None;
        object.data = Value::Null;
    }
    object
}

fn place(owner: &TaskPlatform) -> Place {
    (owner.namespace().unwrap_or_default(), owner.name_any())
}

fn place_of(object: &DynamicObject) -> Option<Place> {
    let platform = object.labels().get("app.kubernetes.io/instance")?;
    Some((object.namespace()?, platform.clone()))
}

fn is_of(object: &DynamicObject, component: Component) -> bool {
    object.labels().get("app.kubernetes.io/component").is_some_and(|name| name == component.name())
}

/// Resource versions of one kind can be compared as numbers.
fn version(object: &DynamicObject) -> u128 {
    object.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// A thread that panicked leaves the map as it was: each change is one insertion or removal.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
