//! What a TaskPlatform of the same name has left behind. Nothing that is on its way out is adopted: a Service that gets a
//! new owner keeps the former one's endpoints, and a volume that is claimed again is deleted under its pod.

use k8s_openapi::api::core::v1::{Endpoints, PersistentVolumeClaim, Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
};
use serde_json::{Value, json};
use taskplatform_blueprint::{Component, Endpoint, MANAGED_BY, MOST_LAG_TO_LEAD, Platform, units};
use tracing::info;

use crate::world::{Owner, OwnerKind, Snapshot, owners};

/// The annotation of Patroni's Endpoints with the settings that all members share.
const CONFIGURATION: &str = "config";

/// It cannot be told what a predecessor has left.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the volumes of an earlier platform {platform} cannot be listed")]
    Claims { platform: String, source: kube::Error },
    #[error("that the most advanced member of the database of {platform} is to lead cannot be said")]
    Lead { platform: String, source: kube::Error },
    #[error("what Patroni remembers of an earlier platform {platform} cannot be removed")]
    Endpoints { platform: String, source: kube::Error },
}

/// What of a predecessor is still there and about to go, each by kind and name. The API server is asked only while a
/// StatefulSet is missing.
pub(crate) async fn remains(
    client: &Client,
    snapshot: &Snapshot,
    platform: &Platform,
    credentials: Option<&Secret>,
) -> Result<Vec<String>, Error> {
    let mut remains: Vec<String> = snapshot
        .all()
        .filter(|(_, child)| is_anothers(&child.owners, platform.uid()))
        .map(|(watched, child)| format!("{} {}", watched.name(), child.name))
        .collect();
    remains.extend(
        credentials
            .filter(|secret| {
                secret.metadata.deletion_timestamp.is_some() || is_anothers(&owners(*secret), platform.uid())
            })
            .map(|secret| format!("Secret {}", secret.name_any())),
    );
    let units = units(platform, platform.api_instances(None));
    let missing = units.iter().filter(|unit| unit.is_stateful() && snapshot.get(unit.kind(), &unit.name).is_none());
    let missing: Vec<Component> = missing.map(|unit| unit.component).collect();
    if remains.is_empty() && !missing.is_empty() {
        remains = claims_about_to_go(client, platform, &missing).await?;
    }
    Ok(remains)
}

/// The volumes that the missing StatefulSets must not take up. A database without any volume begins anew: what Patroni remembers of an
/// earlier one is removed. One with volumes goes on where it was.
async fn claims_about_to_go(client: &Client, platform: &Platform, missing: &[Component]) -> Result<Vec<String>, Error> {
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
    let about_to_go = missing
        .iter()
        .flat_map(|component| of(*component))
        .filter(|claim| claim.metadata.deletion_timestamp.is_some() || is_about_to_go(&owners(*claim), platform.uid()));
    let about_to_go: Vec<String> =
        about_to_go.map(|claim| format!("PersistentVolumeClaim {}", claim.name_any())).collect();
    if missing.contains(&Component::DATABASE) && about_to_go.is_empty() {
        if of(Component::DATABASE).next().is_none() {
            forget_patroni(client, platform.namespace(), platform.name()).await?;
        } else {
            let_the_most_advanced_lead(client, platform).await?;
        }
    }
    Ok(about_to_go)
}

/// A database that is made anew around its volumes begins with whichever member comes first. Until one leads, none may that has not
/// everything up to the last position that Patroni knows of. The keeper lifts that again.
async fn let_the_most_advanced_lead(client: &Client, platform: &Platform) -> Result<(), Error> {
    let failed = |source| Error::Lead { platform: platform.name().to_owned(), source };
    let api: Api<Endpoints> = Api::namespaced(client.clone(), platform.namespace());
    let name = format!("{}-config", Endpoint::PRIMARY.host(platform));
    let Some(state) = api.get_metadata_opt(&name).await.map_err(failed)? else { return Ok(()) };
    let configuration = state.annotations().get(CONFIGURATION).and_then(|text| serde_json::from_str(text).ok());
    let Some(mut configuration @ Value::Object(_)) = configuration else { return Ok(()) };
    if configuration[MOST_LAG_TO_LEAD] == 0 {
        return Ok(());
    }
    configuration[MOST_LAG_TO_LEAD] = 0.into();
    let metadata =
        json!({"resourceVersion": state.resource_version(), "annotations": {CONFIGURATION: configuration.to_string()}});
    let parameters = PatchParams { field_manager: Some(MANAGED_BY.to_owned()), ..PatchParams::default() };
    match api.patch_metadata(&name, &parameters, &Patch::Merge(json!({"metadata": metadata}))).await {
        Ok(_) => {
            info!(
                name,
                namespace = platform.namespace(),
                "of the members that there were, the most advanced is to lead"
            );
            Ok(())
        }
        Err(source) => Err(failed(source)),
    }
}

/// Removes the Endpoints that Patroni keeps the state of a platform's database in. They go with their Services, unless new
/// Services of these names come first, or a member writes once more before it stops. Members that find the state of a
/// database whose volumes are gone wait for ever for its primary.
pub(crate) async fn forget_patroni(client: &Client, namespace: &str, platform: &str) -> Result<(), Error> {
    let failed = |source| Error::Endpoints { platform: platform.to_owned(), source };
    let api: Api<Endpoints> = Api::namespaced(client.clone(), namespace);
    // Endpoints of a Service have its labels, too, but Patroni alone names the cluster.
    let component = Component::DATABASE;
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
fn is_anothers(owners: &[Owner], uid: &str) -> bool {
    let is_a_platform = |owner: &Owner| owner.kind == OwnerKind::TaskPlatform;
    owners.iter().any(is_a_platform) && !owners.iter().any(|owner| *owner.uid == *uid)
}

/// Whether a claim of a StatefulSet that is gone will be deleted: the garbage collector takes what has owners of which none is left.
fn is_about_to_go(owners: &[Owner], uid: &str) -> bool {
    let is_gone = |owner: &Owner| match owner.kind {
        OwnerKind::StatefulSet => true,
        OwnerKind::TaskPlatform => *owner.uid != *uid,
        OwnerKind::Other => false,
    };
    !owners.is_empty() && owners.iter().all(is_gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "this";

    fn owner(kind: OwnerKind, uid: &str) -> Owner {
        Owner { kind, uid: uid.into() }
    }

    #[test]
    fn only_what_another_platform_owns_is_a_predecessors() {
        use OwnerKind::{Other, StatefulSet, TaskPlatform};
        assert!(is_anothers(&[owner(TaskPlatform, "former")], UID));
        assert!(!is_anothers(&[owner(TaskPlatform, UID)], UID));
        assert!(!is_anothers(&[], UID), "what was orphaned is adopted");
        assert!(!is_anothers(&[owner(TaskPlatform, "former"), owner(TaskPlatform, UID)], UID));
        assert!(!is_anothers(&[owner(StatefulSet, "any")], UID), "a pod is not told by its owner");
        assert!(!is_anothers(&[owner(Other, "other")], UID));
    }

    #[test]
    fn a_claim_goes_with_the_last_of_its_owners() {
        use OwnerKind::{Other, StatefulSet, TaskPlatform};
        assert!(is_about_to_go(&[owner(StatefulSet, "gone")], UID));
        assert!(is_about_to_go(&[owner(TaskPlatform, "former")], UID));
        assert!(is_about_to_go(&[owner(StatefulSet, "gone"), owner(TaskPlatform, "former")], UID));
        assert!(!is_about_to_go(&[owner(StatefulSet, "gone"), owner(TaskPlatform, UID)], UID));
        assert!(!is_about_to_go(&[owner(StatefulSet, "gone"), owner(Other, "somebody's")], UID));
        assert!(!is_about_to_go(&[], UID), "what stays, or was orphaned, is taken up again");
    }
}
