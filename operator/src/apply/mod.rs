//! Makes the objects of a platform what its blueprint says.

pub(crate) mod credentials;
pub(crate) mod ending;
pub(crate) mod predecessor;
mod volumes;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use futures::future::join_all;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, GetParams, Patch, PatchParams, Preconditions, PropagationPolicy},
    core::{ApiResource, DynamicObject},
};
use serde_json::Value;
use taskplatform_blueprint::{
    Kind, MANAGED_BY, Object, Platform,
    applied::{as_sent, with_owner},
};
use tracing::{info, warn};

use crate::{
    describe,
    metrics::{KindLabel, Metrics},
    world::{Child, Kept, OwnerKind, Snapshot, Watched, World, lock, owners},
};

/// An object cannot be applied or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{kind} {name} cannot be applied")]
    Apply { kind: &'static str, name: String, source: Box<kube::Error> },
    #[error(
        "{kind} {name} exists already and {why}: it is left alone. Delete or rename it, or give it to the platform by taking away its owner and adding the labels app.kubernetes.io/name=taskplatform, app.kubernetes.io/instance={platform} and app.kubernetes.io/managed-by={MANAGED_BY}"
    )]
    Taken { kind: &'static str, name: String, platform: String, why: &'static str },
    #[error("{kind} {name} is not wanted any more but cannot be deleted")]
    Delete { kind: &'static str, name: String, source: Box<kube::Error> },
    #[error(transparent)]
    Volumes(#[from] volumes::Error),
}

impl Error {
    /// Whether the API server refused to change a field that stays as it was made.
    fn is_of_what_cannot_change(&self) -> bool {
        matches!(self, Self::Apply { source, .. } if matches!(&**source, kube::Error::Api(status) if status.is_invalid()
            && status.message.contains("updates to statefulset spec for fields other than")))
    }

    /// The reason of the condition that tells of it.
    const fn reason(&self) -> &'static str {
        match self {
            Self::Taken { .. } => "NameTaken",
            Self::Apply { .. } | Self::Delete { .. } | Self::Volumes(_) => "ApplyFailed",
        }
    }
}

/// What could not be applied.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Failure {
    /// Somebody wrote into the Secret what cannot be taken for a password.
    pub(crate) fn of_password(platform: &Platform, key: &str) -> Self {
        let message = format!(
            "Secret {}: {key} is not taken, what runs keeps the password that it has: write 16 to 128 letters, digits and -._~, which need no quotes in URLs, SQL and configuration files",
            platform.names().credentials()
        );
        Self { reason: "PasswordRefused", message }
    }
}

/// A platform's objects after they were applied.
pub(crate) struct Applied {
    pub(crate) snapshot: Snapshot,
    pub(crate) failures: Vec<Failure>,
    /// How many objects had to be applied.
    pub(crate) writes: usize,
}

/// Applies objects, and knows what the API server does not keep of them.
pub(crate) struct Applier {
    client: Client,
    world: Arc<World>,
    metrics: Arc<Metrics>,
    /// Hashes of objects that the API server did not keep as they were applied, by uid: applying them again changes nothing.
    unkept: Mutex<HashMap<Box<str>, u64>>,
}

impl Applier {
    pub(crate) fn new(client: Client, world: Arc<World>, metrics: Arc<Metrics>) -> Self {
        Self { client, world, metrics, unkept: Mutex::default() }
    }

    /// Applies what is not as it should be, kind after kind, and removes what is not wanted. One object that cannot be applied does not
    /// hold up the others.
    pub(crate) async fn apply(&self, platform: &Platform, snapshot: Snapshot, objects: &[Object]) -> Applied {
        let (mut answers, mut errors) = (Vec::new(), Vec::new());
        for kind in objects.chunk_by(|one, other| one.kind() == other.kind()) {
            let apply = kind.iter().map(async |object| match object.kind() {
                Kind::StatefulSet => Box::pin(self.apply_set(platform, &snapshot, object)).await,
                _ => self.apply_object(platform, &snapshot, object).await,
            });
            for result in join_all(apply).await {
                match result {
                    Ok(answer) => answers.extend(answer),
                    Err(error) => errors.push(error),
                }
            }
        }
        errors.extend(self.prune(platform, &snapshot, objects).await.err());
        errors.extend(volumes::disown(&self.client, platform, &snapshot).await.err().map(Error::from));
        let mut snapshot = snapshot;
        let writes = answers.len();
        for (kind, child) in answers {
            snapshot.put(Watched::Object(kind), child);
        }
        Applied { snapshot, failures: errors.iter().map(|error| failure(platform, error)).collect(), writes }
    }

    /// The object as the API server answered, where it had to be applied.
    async fn apply_object(
        &self,
        platform: &Platform,
        snapshot: &Snapshot,
        object: &Object,
    ) -> Result<Option<(Kind, Arc<Child>)>, Error> {
        let desired = as_sent(object, &platform.owner_reference());
        let live = snapshot.get(object.kind(), object.name());
        if live.is_some_and(|live| self.is_as_applied(platform, object.kind(), &desired, live)) {
            return Ok(None);
        }
        self.admit(platform, object, live).await?;
        self.send(platform, object, &desired).await.map(|answer| Some((object.kind(), answer)))
    }

    /// The same for a StatefulSet: its volumes grow first, and it is made anew around its pods where it cannot be changed.
    async fn apply_set(
        &self,
        platform: &Platform,
        snapshot: &Snapshot,
        set: &Object,
    ) -> Result<Option<(Kind, Arc<Child>)>, Error> {
        let Some(live) = snapshot.get(set.kind(), set.name()) else {
            return self.apply_object(platform, snapshot, set).await;
        };
        self.admit(platform, set, Some(live)).await?;
        let desired = as_sent(set, &platform.owner_reference());
        if let Err(error) = volumes::grow(&self.client, platform, snapshot, set).await {
            // Volumes that cannot grow do not hold up what else has changed.
            let desired = with_owner(volumes::as_large_as(live, set.value().clone()), &platform.owner_reference());
            if !self.is_as_applied(platform, set.kind(), &desired, live) {
                self.send(platform, set, &desired).await?;
            }
            return Err(error.into());
        }
        if self.is_as_applied(platform, set.kind(), &desired, live) {
            return Ok(None);
        }
        if volumes::claims_differ(live, &desired) {
            volumes::set_free(&self.client, platform, live).await?;
        }
        let answer = match self.send(platform, set, &desired).await {
            Err(error) if error.is_of_what_cannot_change() => {
                volumes::set_free(&self.client, platform, live).await?;
                self.send(platform, set, &desired).await
            }
            answer => answer,
        };
        answer.map(|answer| Some((set.kind(), answer)))
    }

    /// Nothing is taken over that is another's. What is not among the objects with a platform's labels may be there all the same.
    async fn admit(&self, platform: &Platform, object: &Object, live: Option<&Arc<Child>>) -> Result<(), Error> {
        let why = match live {
            Some(live) if live.owners.is_empty() || live.is_owned_by(platform.uid()) => None,
            Some(live) => Some(another_owner(live.owners.iter().map(|owner| owner.kind))),
            None => self.unknown(platform, object).await?,
        };
        why.map_or(Ok(()), |why| {
            let (kind, name, platform) = (object.kind().name(), object.name().to_owned(), platform.name().to_owned());
            Err(Error::Taken { kind, name, platform, why })
        })
    }

    /// Why an object that the store does not have is not this platform's, if it is there.
    async fn unknown(&self, platform: &Platform, object: &Object) -> Result<Option<&'static str>, Error> {
        let failed = |source| failed_to_apply(object, source);
        let api = self.api(object.kind(), platform.namespace());
        // From the API server's cache: a moment's delay in seeing another's object is no more than that between seeing and applying.
        let found = match api.get_metadata_with(object.name(), &GetParams::any()).await {
            Ok(found) => found,
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        let owners = owners(&found);
        if owners.iter().any(|owner| *owner.uid == *platform.uid()) {
            return Ok(None);
        }
        if !owners.is_empty() {
            return Ok(Some(another_owner(owners.iter().map(|owner| owner.kind))));
        }
        let is = |label: &str, value: &str| found.labels().get(label).is_some_and(|found| found == value);
        let ours = is("app.kubernetes.io/name", "taskplatform")
            && is("app.kubernetes.io/instance", platform.name())
            && is("app.kubernetes.io/managed-by", MANAGED_BY);
        Ok((!ours).then_some("was not made by this operator"))
    }

    async fn send(&self, platform: &Platform, object: &Object, desired: &Value) -> Result<Arc<Child>, Error> {
        let (kind, name, namespace) = (object.kind().name(), object.name(), platform.namespace());
        let parameters = PatchParams::apply(MANAGED_BY).force();
        let applied = self.api(object.kind(), namespace).patch(name, &parameters, &Patch::Apply(desired)).await;
        let applied = applied.map_err(|source| failed_to_apply(object, source))?;
        info!(kind, name, namespace, "applied");
        self.metrics.applied.get_or_create(&KindLabel { kind }).inc();
        let answer = self.world.remember_answer(Watched::Object(object.kind()), applied);
        self.note_unkept(platform, object.kind(), desired, &answer);
        Ok(answer)
    }

    fn is_as_applied(&self, platform: &Platform, kind: Kind, desired: &Value, live: &Child) -> bool {
        let digest = desired["metadata"]["annotations"][taskplatform_blueprint::applied::APPLIED].as_str();
        if live.is_ending() || live.applied.as_deref() != digest {
            return false;
        }
        let Kept::Values(values) = &live.kept else { return true };
        let is = values.holds(desired) || lock(&self.unkept).get(&live.uid) == Some(&live.kept.hash());
        if is {
            self.note_compared(platform, kind, live);
        }
        is
    }

    fn note_unkept(&self, platform: &Platform, kind: Kind, desired: &Value, answer: &Child) {
        let Kept::Values(values) = &answer.kept else { return };
        if values.holds(desired) {
            lock(&self.unkept).remove(&answer.uid);
            self.note_compared(platform, kind, answer);
        } else {
            warn!(name = &*answer.name, "the API server does not keep the object as it was applied");
            lock(&self.unkept).insert(answer.uid.clone(), answer.kept.hash());
        }
    }

    fn note_compared(&self, platform: &Platform, kind: Kind, child: &Child) {
        let place = (platform.namespace().to_owned(), platform.name().to_owned());
        self.world.note_compared(Watched::Object(kind), &place, child);
    }

    /// Deletes the platform's objects that the blueprint does not have.
    async fn prune(&self, platform: &Platform, snapshot: &Snapshot, blueprint: &[Object]) -> Result<(), Error> {
        let wanted: BTreeSet<(Kind, &str)> = blueprint.iter().map(|object| (object.kind(), object.name())).collect();
        for (watched, child) in snapshot.all() {
            let Watched::Object(kind) = watched else { continue };
            let is_unwanted = !wanted.contains(&(kind, &child.name));
            if is_unwanted && child.is_owned_by(platform.uid()) && !child.is_ending() {
                self.delete(kind, platform.namespace(), child).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, kind: Kind, namespace: &str, child: &Child) -> Result<(), Error> {
        let parameters = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions { uid: Some(child.uid.to_string()), resource_version: None }),
            ..DeleteParams::default()
        };
        let (kind_name, name) = (kind.name(), child.name.to_string());
        match self.api(kind, namespace).delete(&name, &parameters).await {
            Ok(_) => info!(kind = kind_name, name, namespace, "deleted: not wanted any more"),
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(source) => return Err(Error::Delete { kind: kind_name, name, source: Box::new(source) }),
        }
        Ok(())
    }

    fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&kind.group_version_kind());
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }
}

fn another_owner(mut owners: impl Iterator<Item = OwnerKind>) -> &'static str {
    if owners.any(|kind| kind == OwnerKind::TaskPlatform) {
        "belongs to another TaskPlatform"
    } else {
        "has another owner"
    }
}

fn failed_to_apply(object: &Object, source: kube::Error) -> Error {
    Error::Apply { kind: object.kind().name(), name: object.name().to_owned(), source: Box::new(source) }
}

fn failure(platform: &Platform, error: &Error) -> Failure {
    let message = describe(error);
    warn!(platform = platform.name(), namespace = platform.namespace(), error = message, "not applied");
    Failure { reason: error.reason(), message }
}
