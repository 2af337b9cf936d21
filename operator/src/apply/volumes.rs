//! Volumes grow. What a StatefulSet claims cannot be changed in place: the claims grow first, then the StatefulSet is made anew around
//! its running pods.

use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::PersistentVolumeClaim};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy},
};
use serde_json::{Value, json};
use taskplatform_blueprint::{MANAGED_BY, Object, Platform};
use taskplatform_crds::Size;
use tracing::info;

use crate::world::{Child, Snapshot};

/// A volume cannot grow.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "volume {claim} cannot grow to {size}: does its StorageClass allow expansion (allowVolumeExpansion)? Everything else is applied. Otherwise create a TaskPlatform with larger volumes and move the data there"
    )]
    Grow { claim: String, size: String, source: Box<kube::Error> },
    #[error("StatefulSet {name} cannot be made anew around its pods")]
    Replace { name: String, source: Box<kube::Error> },
    #[error("volume {claim} cannot be taken from its TaskPlatform, which would take it along when it is deleted")]
    Disown { claim: String, source: Box<kube::Error> },
}

/// Where a StatefulSet says how much each of its pods claims.
const SIZE: &str = "/spec/volumeClaimTemplates/0/spec/resources/requests/storage";

/// Takes the volumes from the platform, where it owns them: what becomes of them is decided when it is deleted. A patch that was refused
/// since the claim has changed or gone is no failure.
pub(super) async fn disown(client: &Client, platform: &Platform, snapshot: &Snapshot) -> Result<(), Error> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), platform.namespace());
    for claim in snapshot.claims().filter(|claim| !claim.is_ending() && claim.is_owned_by(platform.uid())) {
        let change = json!({"metadata": {"uid": claim.uid, "resourceVersion": claim.version.to_string(), "ownerReferences": []}});
        match api.patch_metadata(&claim.name, &by_operator(), &Patch::Merge(change)).await {
            Ok(_) => info!(claim = &*claim.name, namespace = platform.namespace(), "the volume belongs to nobody"),
            // 422 is the answer to another uid: a new one has taken its name.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() || status.is_invalid() => {}
            Err(source) => return Err(Error::Disown { claim: claim.name.to_string(), source: Box::new(source) }),
        }
    }
    Ok(())
}

/// The StatefulSet as it is wanted, but with the volumes that it has.
pub(super) fn as_large_as(live: &Child, mut desired: Value) -> Value {
    if let (Some(size), Some(wanted)) = (live.data().pointer(SIZE), desired.pointer_mut(SIZE)) {
        wanted.clone_from(size);
    }
    desired
}

/// Grows the volumes of a StatefulSet that are smaller than it wants, whichever made them.
pub(super) async fn grow(client: &Client, platform: &Platform, snapshot: &Snapshot, set: &Object) -> Result<(), Error> {
    let Some(wanted) = set.value().pointer(SIZE).and_then(Value::as_str) else { return Ok(()) };
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), platform.namespace());
    let claims = snapshot.claims().filter(|claim| {
        claim.component.is_some_and(|component| component.name() == set.component()) && is_smaller(claim, wanted)
    });
    for claim in claims {
        let growth = json!({"metadata": {"uid": claim.uid}, "spec": {"resources": {"requests": {"storage": wanted}}}});
        let failed =
            |source| Error::Grow { claim: claim.name.to_string(), size: wanted.to_owned(), source: Box::new(source) };
        api.patch(&claim.name, &by_operator(), &Patch::Merge(growth)).await.map_err(failed)?;
        info!(claim = &*claim.name, namespace = platform.namespace(), size = wanted, "the volume grows");
    }
    Ok(())
}

/// Whether a volume is there and was asked to be smaller than this. One that is not bound yet cannot be changed.
fn is_smaller(claim: &Child, wanted: &str) -> bool {
    let (size, data) = (|text: &str| text.parse::<Size>().ok(), claim.data());
    let asked = data["spec"]["resources"]["requests"]["storage"].as_str().and_then(size);
    let is_bound = data["status"]["phase"] == "Bound";
    !claim.is_ending() && is_bound && asked.zip(size(wanted)).is_some_and(|(asked, wanted)| asked < wanted)
}

/// Whether the StatefulSet claims another size than it is to.
pub(super) fn claims_differ(live: &Child, desired: &Value) -> bool {
    live.data().pointer(SIZE) != desired.pointer(SIZE)
}

/// Deletes a StatefulSet and leaves its pods running, for the next one to take up.
pub(super) async fn set_free(client: &Client, platform: &Platform, live: &Child) -> Result<(), Error> {
    let name = live.name.to_string();
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), platform.namespace());
    let parameters = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        preconditions: Some(Preconditions { uid: Some(live.uid.to_string()), resource_version: None }),
        ..DeleteParams::default()
    };
    match sets.delete(&name, &parameters).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(source) => Err(Error::Replace { name, source: Box::new(source) }),
        Ok(_) => Box::pin(wait_until_gone(&sets, &name)).await,
    }
}

/// Orphaning takes the garbage collector a moment.
async fn wait_until_gone(sets: &Api<StatefulSet>, name: &str) -> Result<(), Error> {
    use kube::runtime::{conditions, wait};
    let failed = |source| Error::Replace { name: name.to_owned(), source: Box::new(source) };
    let Some(set) = sets.get_opt(name).await.map_err(failed)? else { return Ok(()) };
    let uid = set.uid().unwrap_or_default();
    let gone = wait::await_condition(sets.clone(), name, conditions::is_deleted(&uid));
    // Not gone in time: the next reconciliation goes on from here.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(20), gone).await;
    Ok(())
}

fn by_operator() -> PatchParams {
    PatchParams { field_manager: Some(MANAGED_BY.to_owned()), ..PatchParams::default() }
}
