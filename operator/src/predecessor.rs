//! What a TaskPlatform of the same name has left behind. Nothing that is on its way out is adopted: a Service that gets a
//! new owner keeps the former one's endpoints, and a volume that is claimed again is deleted under its pod.

use k8s_openapi::{
    api::core::v1::{Endpoints, PersistentVolumeClaim, Secret},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Preconditions},
};
use taskplatform_blueprint::{Component, Kind, Platform};
use taskplatform_crds::TaskPlatform;
use tracing::info;

use crate::children::Children;

/// The components that have volumes.
const STATEFUL: [Component; 3] = [Component::Database, Component::Cache, Component::Sessions];

/// It cannot be told what a predecessor has left.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the volumes of an earlier platform {platform} cannot be listed")]
    Claims { platform: String, source: kube::Error },
    #[error("what Patroni remembers of an earlier platform {platform} cannot be removed")]
    Endpoints { platform: String, source: kube::Error },
}

/// What of a predecessor is still there and about to go, each by kind and name. The API server is asked only while a
/// StatefulSet is missing.
pub(crate) async fn remains(
    client: &Client,
    children: &Children,
    owner: &TaskPlatform,
    platform: &Platform,
    credentials: Option<&Secret>,
) -> Result<Vec<String>, Error> {
    let uid = owner.uid().unwrap_or_default();
    let mut remains: Vec<String> = children
        .all(owner)
        .into_iter()
        .filter(|(_, object)| is_anothers(object.owner_references(), &uid))
        .map(|(kind, object)| format!("{kind} {}", object.name_any()))
        .collect();
    remains.extend(
        credentials
            .filter(|secret| is_anothers(secret.owner_references(), &uid))
            .map(|secret| format!("Secret {}", secret.name_any())),
    );
    let missing: Vec<Component> = STATEFUL
        .into_iter()
        .filter(|component| children.get(owner, Kind::StatefulSet, &platform.names().component(*component)).is_none())
        .collect();
    if remains.is_empty() && !missing.is_empty() {
        remains = claims_about_to_go(client, platform, &uid, &missing).await?;
    }
    Ok(remains)
}

/// The volumes that the missing StatefulSets must not take up. A database without any volume begins anew: what Patroni
/// remembers of an earlier one is removed.
async fn claims_about_to_go(
    client: &Client,
    platform: &Platform,
    uid: &str,
    missing: &[Component],
) -> Result<Vec<String>, Error> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), platform.namespace());
    let labels = format!("app.kubernetes.io/name=taskplatform,app.kubernetes.io/instance={}", platform.name());
    let listed = claims
        .list_metadata(&ListParams::default().labels(&labels))
        .await
        .map_err(|source| Error::Claims { platform: platform.name().to_owned(), source })?;
    let of = |component: Component| {
        let name = component.name();
        listed.iter().filter(move |claim| {
            claim.labels().get("app.kubernetes.io/component").is_some_and(|component| component == name)
        })
    };
    if missing.contains(&Component::Database) && of(Component::Database).next().is_none() {
        forget_patroni(client, platform.namespace(), platform.name()).await?;
    }
    let about_to_go =
        missing.iter().flat_map(|component| of(*component)).filter(|claim| is_about_to_go(&claim.metadata, uid));
    Ok(about_to_go.map(|claim| format!("PersistentVolumeClaim {}", claim.name_any())).collect())
}

/// Removes the Endpoints that Patroni keeps the state of a platform's database in. They go with their Services, unless new
/// Services of these names come first, or a member writes once more before it stops. Members that find the state of a
/// database whose volumes are gone wait for ever for its primary.
pub(crate) async fn forget_patroni(client: &Client, namespace: &str, platform: &str) -> Result<(), Error> {
    let failed = |source| Error::Endpoints { platform: platform.to_owned(), source };
    let api: Api<Endpoints> = Api::namespaced(client.clone(), namespace);
    // Endpoints of a Service have its labels, too, but Patroni alone names the cluster.
    let component = Component::Database;
    let labels = format!("app.kubernetes.io/instance={platform},app.kubernetes.io/component={component},cluster-name");
    let state = ListParams::default().labels(&labels);
    for endpoints in api.list(&state).await.map_err(failed)? {
        let name = endpoints.name_any();
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid: endpoints.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        match api.delete(&name, &parameters).await {
            Ok(_) => info!(name, namespace, "deleted: it speaks of a database that is gone"),
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// Whether a TaskPlatform owns the object, but not the one with this uid. Objects that were orphaned have no owner.
fn is_anothers(owners: &[OwnerReference], uid: &str) -> bool {
    owners.iter().any(is_a_platform) && !owners.iter().any(|owner| owner.uid == uid)
}

/// Whether a claim, whose StatefulSet is gone, is being deleted or will be: the garbage collector takes what has owners of
/// which none is left.
fn is_about_to_go(claim: &ObjectMeta, uid: &str) -> bool {
    let owners = claim.owner_references.as_deref().unwrap_or_default();
    let is_gone = |owner: &OwnerReference| owner.kind == "StatefulSet" || (is_a_platform(owner) && owner.uid != uid);
    claim.deletion_timestamp.is_some() || (!owners.is_empty() && owners.iter().all(is_gone))
}

fn is_a_platform(owner: &OwnerReference) -> bool {
    owner.kind == TaskPlatform::kind(&()) && owner.api_version == TaskPlatform::api_version(&())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    const UID: &str = "this";

    fn owner(kind: &str, uid: &str) -> OwnerReference {
        let api_version = if kind == "TaskPlatform" { "taskplatform.dev/v1alpha1" } else { "apps/v1" };
        OwnerReference {
            api_version: api_version.into(),
            kind: kind.into(),
            uid: uid.into(),
            ..OwnerReference::default()
        }
    }

    fn claim(owners: &[OwnerReference]) -> ObjectMeta {
        ObjectMeta { owner_references: Some(owners.to_vec()), ..ObjectMeta::default() }
    }

    #[test]
    fn only_what_another_platform_owns_is_a_predecessors() {
        assert!(is_anothers(&[owner("TaskPlatform", "former")], UID));
        assert!(!is_anothers(&[owner("TaskPlatform", UID)], UID));
        assert!(!is_anothers(&[], UID), "what was orphaned is adopted");
        assert!(!is_anothers(&[owner("TaskPlatform", "former"), owner("TaskPlatform", UID)], UID));
        assert!(!is_anothers(&[owner("StatefulSet", "any")], UID), "a pod is not told by its owner");
        let namesake = OwnerReference { api_version: "example.com/v1".into(), ..owner("TaskPlatform", "other") };
        assert!(!is_anothers(&[namesake], UID));
    }

    #[test]
    fn a_claim_goes_with_the_last_of_its_owners() {
        assert!(is_about_to_go(&claim(&[owner("StatefulSet", "gone")]), UID));
        assert!(is_about_to_go(&claim(&[owner("TaskPlatform", "former")]), UID));
        assert!(is_about_to_go(&claim(&[owner("StatefulSet", "gone"), owner("TaskPlatform", "former")]), UID));
        assert!(!is_about_to_go(&claim(&[owner("StatefulSet", "gone"), owner("TaskPlatform", UID)]), UID));
        assert!(!is_about_to_go(&claim(&[owner("StatefulSet", "gone"), owner("Backup", "somebody's")]), UID));
        assert!(!is_about_to_go(&claim(&[]), UID), "what stays, or was orphaned, is taken up again");
    }

    #[test]
    fn a_claim_that_is_being_deleted_is_not_taken_up_whoever_owns_it() {
        let deleted = Some(Time(Timestamp::UNIX_EPOCH));
        assert!(is_about_to_go(&ObjectMeta { deletion_timestamp: deleted.clone(), ..claim(&[]) }, UID));
        let owned = claim(&[owner("TaskPlatform", UID)]);
        assert!(is_about_to_go(&ObjectMeta { deletion_timestamp: deleted, ..owned }, UID));
    }
}
