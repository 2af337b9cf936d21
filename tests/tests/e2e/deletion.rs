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
use reqwest::StatusCode;
use serde_json::json;
use taskplatform_tests::{
    cluster::{self, comes_back},
    eventually, explained,
    http::{User, gateway, unique},
    platform::Platform,
};

use crate::{mishaps::is_spread, node_port, shared_platform, small, small_with, turn, without_nulls};

const NAME: &str = "e2e-deleted";

#[tokio::test]
async fn volumes_outlive_a_platform_and_are_taken_up_again() -> Result<()> {
    let _turn = turn().await;
    let client = cluster::client().await?;
    let lived = explained(NAME, async {
        // Both platforms cannot have the same port.
        let shared = shared_platform().await?;
        let inside = json!({"gateway": {"service": {"type": "ClusterIP", "nodePort": null}}});
        shared.apply(without_nulls(small_with(&inside))).await?;
        eventually("the port is free", 60, async || {
            let services: Api<Service> = Api::namespaced(shared.client.clone(), shared.name);
            let ports = services.get("e2e-gateway").await?.spec.and_then(|spec| spec.ports).unwrap_or_default();
            ensure!(ports.iter().all(|port| port.node_port.is_none()), "{ports:?}");
            Ok(())
        })
        .await?;

        live_and_die().await
    })
    .await;
    // Whatever has happened, the tests that follow need the port.
    let removed = cluster::remove_namespace(&client, NAME).await;
    let restored = Platform { client, name: "e2e" }.apply(small()).await;
    lived.and(removed).and(restored.map(drop))
}

#[tokio::test]
async fn a_platform_that_is_deleted_and_created_again_at_once_gets_ready() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        for (round, policy) in ["Delete", "Retain"].into_iter().enumerate() {
            platform.apply(small_with(&json!({"deletionPolicy": policy}))).await?;
            platform.settled().await?;
            let email = unique(&format!("emmy{round}"));
            let user = User::register(&gateway(), &email).await?;
            user.create("Conserve energy").await?;

            let uid = platform.api().get(platform.name).await?.uid();
            platform.api().delete(platform.name, &DeleteParams::background()).await?;
            // As `kubectl delete` waits: only where the volumes go, too, that takes a moment.
            eventually("the former one is gone", 30, async || {
                let found = platform.api().get_opt(platform.name).await?;
                ensure!(found.is_none(), "it is still there");
                Ok(())
            })
            .await?;
            platform.apply(small()).await?;
            ensure!(platform.api().get(platform.name).await?.uid() != uid, "it is still the former one");
            platform.settled().await?;
            if policy == "Retain" {
                let titles = eventually("the session is still there", 30, async || user.titles().await).await?;
                ensure!(titles == ["Conserve energy"], "the volumes stayed, but not what they held: {titles:?}");
            } else {
                User::register(&gateway(), &email).await.context("a new platform has no users")?;
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_stateful_set_that_is_deleted_by_hand_comes_back_to_its_data() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
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

async fn live_and_die() -> Result<()> {
    let keep = small_with(&json!({"deletionPolicy": "Retain", "gateway": {"service": {"nodePort": node_port()}}}));
    let platform = Platform::create(NAME, keep.clone()).await?;
    platform.settled().await?;
    eventually("every part is spread over the nodes", 30, async || is_spread(&platform).await).await?;
    let email = "hedy@example.com";
    let user = eventually("registered or known", 30, async || match User::register(&gateway(), email).await {
        Ok(user) => Ok(user),
        // An earlier run that was broken off left its volumes, or an earlier try's answer was lost.
        Err(refused) => {
            User::login(&gateway(), email).await.with_context(|| format!("not registered either: {refused:#}"))
        }
    })
    .await?;
    user.create("Hop frequencies").await?;

    outlive_its_service(&platform).await?;
    delete(&platform).await?;
    let left = left(&platform.client).await?;
    ensure!(left == ["Secret/e2e-deleted-credentials"], "left beside the volumes: {left:?}");
    let volumes = names::<PersistentVolumeClaim>(&platform.client).await?;
    ensure!(volumes.len() >= 14, "2 of PostgreSQL and 12 of Redis: {volumes:?}");

    let platform = Platform::create(NAME, keep).await?;
    platform.settled().await?;
    let titles = eventually("the session is still there", 30, async || user.titles().await).await?;
    ensure!(
        titles.first().is_some_and(|title| title == "Hop frequencies"),
        "the volumes stayed, but not what they held: {titles:?}"
    );

    // What the spec says last is what happens, however short before.
    platform.apply(small_with(&json!({"deletionPolicy": "Delete"}))).await?;
    delete(&platform).await?;
    eventually("nothing is left, volumes included", 120, async || {
        let mut rest = self::left(&platform.client).await?;
        rest.extend(names::<PersistentVolumeClaim>(&platform.client).await?);
        ensure!(rest.is_empty(), "{rest:?}");
        Ok(())
    })
    .await?;
    let gone = reqwest::get(format!("{}/api/health", gateway())).await;
    ensure!(gone.is_err() || gone.is_ok_and(|answer| answer.status() != StatusCode::OK), "something still serves");
    Ok(())
}

async fn delete(platform: &Platform) -> Result<()> {
    platform.api().delete(platform.name, &DeleteParams::background()).await?;
    eventually("everything but volumes and credentials is gone", 180, async || {
        let left: Vec<String> =
            left(&platform.client).await?.into_iter().filter(|name| !name.starts_with("Secret/")).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await
}

/// What Patroni leaves when it writes once more after its Service has gone: Endpoints that nobody owns.
async fn outlive_its_service(platform: &Platform) -> Result<()> {
    let api: Api<Endpoints> = Api::namespaced(platform.client.clone(), platform.name);
    let state = api.get("e2e-deleted-database-primary").await?;
    let metadata = ObjectMeta {
        name: Some("e2e-deleted-database-primary-late".into()),
        labels: state.metadata.labels,
        ..ObjectMeta::default()
    };
    api.create(&PostParams::default(), &Endpoints { metadata, subsets: None }).await?;
    Ok(())
}

/// Everything of the platform but its volumes. Kubernetes' own objects in a namespace are not the platform's.
async fn left(client: &Client) -> Result<Vec<String>> {
    let mut all = Vec::new();
    all.extend(names::<Deployment>(client).await?);
    all.extend(names::<ReplicaSet>(client).await?);
    all.extend(names::<StatefulSet>(client).await?);
    all.extend(names::<HorizontalPodAutoscaler>(client).await?);
    all.extend(names::<ConfigMap>(client).await?);
    all.extend(names::<Endpoints>(client).await?);
    all.extend(names::<Pod>(client).await?);
    all.extend(names::<Secret>(client).await?);
    all.extend(names::<Service>(client).await?);
    all.extend(names::<ServiceAccount>(client).await?);
    all.extend(names::<NetworkPolicy>(client).await?);
    all.extend(names::<PodDisruptionBudget>(client).await?);
    all.extend(names::<Role>(client).await?);
    all.extend(names::<RoleBinding>(client).await?);
    all.retain(|name| !matches!(name.as_str(), "ConfigMap/kube-root-ca.crt" | "ServiceAccount/default"));
    // What Patroni knows is a part of the data.
    if !names::<PersistentVolumeClaim>(client).await?.is_empty() {
        let is_state = |name: &str| {
            name.contains("/e2e-deleted-database-primary")
                || ["ServiceAccount", "Role", "RoleBinding"]
                    .iter()
                    .any(|kind| name == format!("{kind}/e2e-deleted-database"))
        };
        all.retain(|name| !is_state(name));
    }
    Ok(all)
}

async fn names<K>(client: &Client) -> Result<Vec<String>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), NAME);
    let listed = api.list(&ListParams::default()).await?;
    Ok(listed.iter().map(|object| format!("{}/{}", K::kind(&()), object.name_any())).collect())
}
