//! What becomes of a platform's volumes and passwords when it is deleted: what its spec said last, whenever that was said.
//!
//! Volumes and the Secret belong to nobody, so that no deletion takes them along by itself. Where they are to go, a finalizer holds the
//! TaskPlatform until they are on their way; one that was deleted before it could have the finalizer is seen by the event of its end.

use std::fmt::Debug;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{PersistentVolumeClaim, Secret, Service, ServiceAccount},
        rbac::v1::{Role, RoleBinding},
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, Preconditions},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use taskplatform_blueprint::{Component, Draft, MANAGED_BY};
use taskplatform_crds::{DeletionPolicy, TaskPlatform};
use tracing::info;

/// Holds a TaskPlatform whose volumes are to be deleted with it.
const FINALIZER: &str = "taskplatform.dev/volumes";

/// The end of a platform cannot be prepared or carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "the finalizer {FINALIZER} of TaskPlatform {platform} cannot be changed: may the operator patch taskplatforms?"
    )]
    Finalizer { platform: String, source: Box<kube::Error> },
    #[error("the volumes of TaskPlatform {platform} cannot be listed, so they stay for now")]
    List { platform: String, source: Box<kube::Error> },
    #[error(
        "{kind} {name} cannot be deleted with its TaskPlatform (spec.deletionPolicy is Delete): it is tried again. May the operator delete it?"
    )]
    Delete { kind: String, name: String, source: Box<kube::Error> },
}

/// Has the finalizer on the TaskPlatform exactly where its volumes are to go with it.
pub(crate) async fn prepare(client: &Client, draft: &Draft, metadata: &ObjectMeta) -> Result<(), Error> {
    let goes = draft.spec().deletion_policy == DeletionPolicy::Delete;
    if goes == holds(metadata) { Ok(()) } else { set_finalizer(client, draft, metadata, goes).await }
}

/// Deletes what is to go with a TaskPlatform that is being deleted, then lets it go.
pub(crate) async fn finish(client: &Client, draft: &Draft, metadata: &ObjectMeta) -> Result<(), Error> {
    if !holds(metadata) {
        return Ok(());
    }
    delete_data(client, draft).await?;
    set_finalizer(client, draft, metadata, false).await
}

/// The same for one that is gone already: its last spec may say what no lap has seen. Not where a new one has taken its name.
pub(crate) async fn finish_gone(client: &Client, draft: &Draft, metadata: &ObjectMeta) -> Result<(), Error> {
    // One with the finalizer went through `finish`.
    if holds(metadata) || draft.spec().deletion_policy != DeletionPolicy::Delete {
        return Ok(());
    }
    let api: Api<TaskPlatform> = Api::namespaced(client.clone(), draft.namespace());
    let failed = |source| Error::List { platform: draft.name().to_owned(), source: Box::new(source) };
    if api.get_metadata_opt(draft.name()).await.map_err(failed)?.is_some() {
        return Ok(());
    }
    delete_data(client, draft).await
}

fn holds(metadata: &ObjectMeta) -> bool {
    metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

async fn set_finalizer(client: &Client, draft: &Draft, metadata: &ObjectMeta, wanted: bool) -> Result<(), Error> {
    let others = metadata.finalizers.iter().flatten().filter(|finalizer| *finalizer != FINALIZER).cloned();
    let finalizers: Vec<String> = others.chain(wanted.then(|| FINALIZER.to_owned())).collect();
    // The resource version: nobody else's finalizer is lost.
    let change = json!({"metadata": {"resourceVersion": metadata.resource_version, "finalizers": finalizers}});
    let api: Api<TaskPlatform> = Api::namespaced(client.clone(), draft.namespace());
    let parameters = PatchParams { field_manager: Some(MANAGED_BY.to_owned()), ..PatchParams::default() };
    match api.patch_metadata(draft.name(), &parameters, &Patch::Merge(change)).await {
        Ok(_) => Ok(()),
        // Changed or gone meanwhile: the next lap sees it as it is then.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(source) => Err(Error::Finalizer { platform: draft.name().to_owned(), source: Box::new(source) }),
    }
}

async fn delete_data(client: &Client, draft: &Draft) -> Result<(), Error> {
    if draft.spec().deletion_policy != DeletionPolicy::Delete {
        return Ok(());
    }
    let labels = format!("app.kubernetes.io/name=taskplatform,app.kubernetes.io/instance={}", draft.name());
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), draft.namespace());
    let failed = |source| Error::List { platform: draft.name().to_owned(), source: Box::new(source) };
    for claim in claims.list_metadata(&ListParams::default().labels(&labels)).await.map_err(failed)? {
        delete(&claims, &claim.metadata).await?;
    }
    let secrets: Api<Secret> = Api::namespaced(client.clone(), draft.namespace());
    if let Some(secret) = secrets.get_metadata_opt(&draft.names().credentials()).await.map_err(failed)?
        && super::credentials::is_ours(&secret, draft)
    {
        delete(&secrets, &secret.metadata).await?;
    }
    delete_state::<Service>(client, draft).await?;
    delete_state::<RoleBinding>(client, draft).await?;
    delete_state::<Role>(client, draft).await?;
    delete_state::<ServiceAccount>(client, draft).await
}

/// What was kept with the volumes, and belongs to nobody.
async fn delete_state<K>(client: &Client, draft: &Draft) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let failed = |source| Error::List { platform: draft.name().to_owned(), source: Box::new(source) };
    let labels = format!(
        "app.kubernetes.io/name=taskplatform,app.kubernetes.io/instance={},app.kubernetes.io/component={},app.kubernetes.io/managed-by={MANAGED_BY}",
        draft.name(),
        Component::DATABASE
    );
    let api: Api<K> = Api::namespaced(client.clone(), draft.namespace());
    for found in api.list_metadata(&ListParams::default().labels(&labels)).await.map_err(failed)? {
        if found.owner_references().is_empty() {
            delete(&api, &found.metadata).await?;
        }
    }
    Ok(())
}

async fn delete<K>(api: &Api<K>, found: &ObjectMeta) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    if found.deletion_timestamp.is_some() {
        return Ok(());
    }
    let name = found.name.clone().unwrap_or_default();
    let parameters = DeleteParams {
        preconditions: Some(Preconditions { uid: found.uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    let kind = K::kind(&());
    match api.delete(&name, &parameters).await {
        Ok(_) => {
            info!(
                %kind,
                name,
                namespace = found.namespace,
                "deleted with its TaskPlatform, as spec.deletionPolicy says"
            );
        }
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
        Err(source) => return Err(Error::Delete { kind: kind.into_owned(), name, source: Box::new(source) }),
    }
    Ok(())
}
