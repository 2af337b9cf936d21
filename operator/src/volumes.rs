//! Volumes: whether they go with their platform, and how they grow. What a StatefulSet claims cannot be changed in place: the
//! claims grow first, then the StatefulSet is made anew around its running pods.

use std::sync::Arc;

use k8s_openapi::{
    api::{apps::v1::StatefulSet, core::v1::PersistentVolumeClaim},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions, PropagationPolicy},
    core::DynamicObject,
};
use serde_json::{Value, json};
use taskplatform_blueprint::{MANAGED_BY, owner_reference};
use taskplatform_crds::{DeletionPolicy, TaskPlatform};
use tracing::info;

/// A volume cannot grow.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the volumes of StatefulSet {name} cannot be listed")]
    List { name: String, source: kube::Error },
    #[error(
        "volume {claim} cannot grow to {size}: does its StorageClass allow expansion (allowVolumeExpansion)? Everything else is applied. Otherwise create a TaskPlatform with larger volumes and move the data there"
    )]
    Grow { claim: String, size: String, source: Box<kube::Error> },
    #[error("StatefulSet {name} cannot be made anew with larger volumes")]
    Replace { name: String, source: Box<kube::Error> },
    #[error("volume {claim} cannot be told whether to go with the TaskPlatform (spec.deletionPolicy)")]
    Own { claim: String, source: Box<kube::Error> },
}

/// Where a StatefulSet says how much each of its pods claims.
const SIZE: &str = "/spec/volumeClaimTemplates/0/spec/resources/requests/storage";

/// Makes the platform the owner of its volumes where they are to be deleted with it, and of none where they stay. The
/// StatefulSets own none: one that is deleted by accident comes back to its data.
pub(crate) async fn own(client: &Client, owner: &TaskPlatform, claims: &[Arc<DynamicObject>]) -> Result<(), Error> {
    let go = owner.spec.deletion_policy == DeletionPolicy::Delete;
    let reference = OwnerReference { controller: None, ..owner_reference(owner) };
    let is_owned = |claim: &DynamicObject| claim.owner_references().iter().any(|owner| owner.uid == reference.uid);
    let api: Api<PersistentVolumeClaim> =
        Api::namespaced(client.clone(), owner.namespace().as_deref().unwrap_or_default());
    for claim in claims.iter().filter(|claim| claim.metadata.deletion_timestamp.is_none() && is_owned(claim) != go) {
        let name = claim.name_any();
        let change = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            // The uid: a claim that is gone must not be made anew.
            "metadata": {"name": name, "uid": claim.uid(), "ownerReferences": if go { vec![&reference] } else { vec![] }},
        });
        let parameters = PatchParams::apply(MANAGED_BY).force();
        match api.patch(&name, &parameters, &Patch::Apply(change)).await {
            Ok(_) => info!(
                claim = name,
                namespace = owner.namespace(),
                "the volume {}",
                if go { "goes with its platform" } else { "stays" }
            ),
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(source) => return Err(Error::Own { claim: name, source: Box::new(source) }),
        }
    }
    Ok(())
}

/// The StatefulSet as it is wanted, but with the volumes that it has.
pub(crate) fn as_large_as(live: &DynamicObject, mut desired: Value) -> Value {
    if let (Some(size), Some(wanted)) = (live.data.pointer(SIZE), desired.pointer_mut(SIZE)) {
        wanted.clone_from(size);
    }
    desired
}

/// Grows the volumes of a StatefulSet whose claims are to be larger. Its pods go on running.
pub(crate) async fn grow(client: &Client, live: &DynamicObject, desired: &Value) -> Result<(), Error> {
    let size = |set: &Value| set.pointer(SIZE).and_then(Value::as_str).map(str::to_owned);
    let (Some(before), Some(after)) = (size(&live.data), size(desired)) else { return Ok(()) };
    if before == after {
        return Ok(());
    }
    let (name, namespace) = (live.name_any(), live.namespace().unwrap_or_default());
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let parameters = ListParams::default().labels(&selector(live));
    let listed = claims.list(&parameters).await.map_err(|source| Error::List { name: name.clone(), source })?;
    for claim in listed {
        let claim = claim.name_any();
        let growth = json!({"spec": {"resources": {"requests": {"storage": after}}}});
        let parameters = PatchParams { field_manager: Some(MANAGED_BY.to_owned()), ..PatchParams::default() };
        claims.patch(&claim, &parameters, &Patch::Merge(growth)).await.map_err(|source| Error::Grow {
            claim: claim.clone(),
            size: after.clone(),
            source: Box::new(source),
        })?;
        info!(claim, namespace, before, after, "the volume grows");
    }
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
    let parameters = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        preconditions: Some(Preconditions { uid: live.uid(), resource_version: None }),
        ..DeleteParams::default()
    };
    match sets.delete(&name, &parameters).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(source) => Err(Error::Replace { name, source: Box::new(source) }),
        Ok(_) => wait_until_gone(&sets, &name).await,
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

/// The labels that a StatefulSet gives its claims: those that it selects its pods by.
fn selector(set: &DynamicObject) -> String {
    let labels = set.data["spec"]["selector"]["matchLabels"].as_object();
    let pairs =
        labels.into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    pairs.collect::<Vec<_>>().join(",")
}
