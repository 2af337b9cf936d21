//! Deleting a platform: volumes stay where they should, and a platform of the same name takes them up again.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Endpoints, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
    core::NamespaceResourceScope,
};
use serde_json::json;
use taskplatform_tests::{
    cluster::comes_back,
    eventually, explained,
    http::{User, gateway, unique},
    platform::Platform,
};

use crate::{mishaps::is_spread, shared_platform, small, small_with, turn};

/// The platform of all tests, and its namespace.
const NAME: &str = "e2e";

#[tokio::test]
async fn volumes_outlive_a_platform_and_are_taken_up_again() -> Result<()> {
    let _turn = turn().await;
    explained(NAME, async {
        let platform = shared_platform().await?;
        platform.apply(small_with(&json!({"deletionPolicy": "Retain"}))).await?;
        platform.settled().await?;
        eventually("every part is spread over the nodes", 30, async || is_spread(&platform).await).await?;
        let user = User::register(&gateway(), &unique("hedy")).await?;
        user.create("Hop frequencies").await?;

        outlive_its_service(&platform).await?;
        let other = left(&platform.client, NAME).await?;
        platform.api().delete(platform.name, &DeleteParams::background()).await?;
        eventually("everything but volumes and credentials is gone", 180, async || {
            let left = left(&platform.client, NAME).await?;
            ensure!(left == ["Secret/e2e-credentials"], "{left:?} of {other:?}");
            Ok(())
        })
        .await?;
        let volumes = names::<PersistentVolumeClaim>(&platform.client, NAME).await?;
        ensure!(volumes.len() >= 14, "2 of PostgreSQL and 12 of Redis: {volumes:?}");

        platform.apply(small()).await?;
        platform.settled().await?;
        let titles = eventually("the session is still there", 30, async || user.titles().await).await?;
        ensure!(titles == ["Hop frequencies"], "the volumes stayed, but not what they held: {titles:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "3 min: make test-long"]
async fn a_platform_that_is_deleted_and_created_again_at_once_gets_ready() -> Result<()> {
    let _turn = turn().await;
    explained(NAME, async {
        let platform = shared_platform().await?;
        // What the spec says last is what happens, however short before.
        platform.apply(small_with(&json!({"deletionPolicy": "Retain"}))).await?;
        platform.settled().await?;
        let email = unique("emmy");
        User::register(&gateway(), &email).await?;

        let uid = platform.api().get(platform.name).await?.uid();
        platform.apply(small_with(&json!({"deletionPolicy": "Delete"}))).await?;
        platform.api().delete(platform.name, &DeleteParams::background()).await?;
        // As `kubectl delete` waits: where the volumes go, too, that takes a moment.
        eventually("the former one is gone", 30, async || {
            let found = platform.api().get_opt(platform.name).await?;
            ensure!(found.is_none(), "it is still there");
            Ok(())
        })
        .await?;
        platform.apply(small()).await?;
        ensure!(platform.api().get(platform.name).await?.uid() != uid, "it is still the former one");
        platform.settled().await?;
        User::register(&gateway(), &email).await.context("a new platform has no users")?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_stateful_set_that_is_deleted_by_hand_comes_back_to_its_data() -> Result<()> {
    let _turn = turn().await;
    explained(NAME, async {
        let platform = shared_platform().await?;
        let user = User::register(&gateway(), &unique("mary")).await?;
        user.create("Date the cliff").await?;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(platform.client.clone(), platform.name);
        let volume = async || anyhow::Ok(claims.get("data-e2e-database-0").await?.uid());
        let before = volume().await?;
        comes_back::<StatefulSet>(Api::namespaced(platform.client.clone(), platform.name), "e2e-database").await?;
        let titles = eventually("tasks are read again", 120, async || user.titles().await).await?;
        ensure!(titles == ["Date the cliff"], "{titles:?}");
        platform.settled().await?;
        ensure!(volume().await? == before, "the volume is another one");
        Ok(())
    })
    .await
}

/// What Patroni leaves when it writes once more after its Service has gone: Endpoints that nobody owns.
async fn outlive_its_service(platform: &Platform) -> Result<()> {
    let api: Api<Endpoints> = Api::namespaced(platform.client.clone(), platform.name);
    let state = api.get("e2e-database-primary").await?;
    let metadata = ObjectMeta {
        name: Some("e2e-database-primary-late".into()),
        labels: state.metadata.labels,
        ..ObjectMeta::default()
    };
    api.create(&PostParams::default(), &Endpoints { metadata, subsets: None }).await?;
    Ok(())
}

/// Waits until nothing is left in a namespace whose platform was deleted with all that it had.
pub(crate) async fn until_nothing_is_left(client: &Client, namespace: &str) -> Result<()> {
    eventually("nothing is left, volumes included", 120, async || {
        let mut rest = left(client, namespace).await?;
        rest.extend(names::<PersistentVolumeClaim>(client, namespace).await?);
        ensure!(rest.is_empty(), "{rest:?}");
        Ok(())
    })
    .await
}

/// Everything in a namespace but volumes. Kubernetes' own objects are not the platform's.
async fn left(client: &Client, namespace: &str) -> Result<Vec<String>> {
    let mut all = Vec::new();
    all.extend(names::<Deployment>(client, namespace).await?);
    all.extend(names::<ReplicaSet>(client, namespace).await?);
    all.extend(names::<StatefulSet>(client, namespace).await?);
    all.extend(names::<HorizontalPodAutoscaler>(client, namespace).await?);
    all.extend(names::<ConfigMap>(client, namespace).await?);
    all.extend(names::<Endpoints>(client, namespace).await?);
    all.extend(names::<Pod>(client, namespace).await?);
    all.extend(names::<Secret>(client, namespace).await?);
    all.extend(names::<Service>(client, namespace).await?);
    all.extend(names::<ServiceAccount>(client, namespace).await?);
    all.extend(names::<NetworkPolicy>(client, namespace).await?);
    all.extend(names::<PodDisruptionBudget>(client, namespace).await?);
    all.extend(names::<Role>(client, namespace).await?);
    all.extend(names::<RoleBinding>(client, namespace).await?);
    all.retain(|name| !matches!(name.as_str(), "ConfigMap/kube-root-ca.crt" | "ServiceAccount/default"));
    // What Patroni knows is a part of the data.
    if !names::<PersistentVolumeClaim>(client, namespace).await?.is_empty() {
        let is_state = |name: &str| {
            name.contains("/e2e-database-primary")
                || ["ServiceAccount", "Role", "RoleBinding"].iter().any(|kind| name == format!("{kind}/e2e-database"))
        };
        all.retain(|name| !is_state(name));
    }
    Ok(all)
}

async fn names<K>(client: &Client, namespace: &str) -> Result<Vec<String>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let listed = api.list(&ListParams::default()).await?;
    Ok(listed.iter().map(|object| format!("{}/{}", K::kind(&()), object.name_any())).collect())
}
