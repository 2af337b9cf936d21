//! A platform from the outside: it serves, it follows its spec, and it is put right.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, StatefulSet},
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service},
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use taskplatform_tests::{
    cluster::{self, OPERATOR, comes_back},
    eventually, explained,
    http::{User, gateway, unique},
    platform::Platform,
};

use crate::{shared_platform, small, small_with, turn};

#[tokio::test]
async fn tasks_are_written_and_read_through_the_gateway() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        shared_platform().await?;
        let email = unique("ada");
        let ada = User::register(&gateway(), &email).await?;
        let task = ada.create("Write the first program").await?;
        let path = format!("/api/tasks/{}", task["id"].as_str().map_or_else(|| task["id"].to_string(), str::to_owned));
        ada.create("Read Menabrea").await?;
        let titles = ada.titles().await?;
        ensure!(
            titles == ["Read Menabrea", "Write the first program"],
            "one's own writes are read, newest first: {titles:?}"
        );

        let changed =
            ada.send(reqwest::Method::PATCH, &path, Some(json!({"status": "completed"})), StatusCode::OK).await?;
        ensure!(changed["status"] == "completed", "{changed}");
        let again = User::login(&gateway(), &email).await?;
        ensure!(again.titles().await? == titles, "another session of the same user sees the same");
        let stranger = User::register(&gateway(), &unique("charles")).await?;
        stranger.send(reqwest::Method::GET, &path, None, StatusCode::NOT_FOUND).await?;
        ada.send(reqwest::Method::DELETE, &path, None, StatusCode::NO_CONTENT).await?;
        ada.send(reqwest::Method::GET, &path, None, StatusCode::NOT_FOUND).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn scaling_numbers_reach_the_autoscaler() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        platform
            .apply(small_with(&json!({"scaling": {"minInstances": 3, "maxInstances": 7, "targetCPU": 60}})))
            .await?;
        let autoscalers: Api<HorizontalPodAutoscaler> = Api::namespaced(platform.client.clone(), platform.name);
        eventually("the autoscaler has the new numbers", 30, async || {
            let spec = autoscalers.get("e2e-api").await?.spec.context("no spec")?;
            ensure!(
                (spec.min_replicas, spec.max_replicas) == (Some(3), 7),
                "{:?} {}",
                spec.min_replicas,
                spec.max_replicas
            );
            let up = spec.behavior.and_then(|behavior| behavior.scale_up).context("no rules")?;
            ensure!(up.tolerance.as_ref().is_some_and(|tolerance| tolerance.0 == "334m"), "{:?}", up.tolerance);
            Ok(())
        })
        .await?;
        eventually("the autoscaler reads metrics and has scaled the platform to its minimum", 120, async || {
            let autoscaler = autoscalers.get("e2e-api").await?;
            let status = autoscaler.status.context("no status")?;
            for type_ in ["AbleToScale", "ScalingActive"] {
                let condition = status.conditions.iter().flatten().find(|condition| condition.type_ == type_);
                ensure!(condition.is_some_and(|condition| condition.status == "True"), "{condition:?}");
            }
            let written = platform.api().get(platform.name).await?.spec.api.replicas.context("no replicas")?;
            ensure!(written.get() >= 3, "spec.api.replicas is {written}");
            Ok(())
        })
        .await?;
        eventually("at least three instances run", 120, async || {
            let status = platform.api().get(platform.name).await?.status.and_then(|status| status.api);
            let ready = status.context("no status")?.ready;
            // A busy moment may have added one.
            let (now, desired) = ready.split_once('/').context("no numbers")?;
            ensure!(now == desired && now.parse::<u32>()? >= 3, "{ready}");
            Ok(())
        })
        .await?;
        let degraded = platform.condition("AutoscalingPolicyDegraded").await?;
        ensure!(degraded.status == "False" && degraded.message.contains("CPU and memory are in force"), "{degraded:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pgbouncer_number_reaches_every_pgbouncer() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        let before = platform.sql("SELECT pg_postmaster_start_time()").await?;
        platform.apply(small_with(&json!({"pooler": {"defaultPoolSize": 17, "queryWaitTimeout": "42s"}}))).await?;
        eventually("SHOW CONFIG tells the new numbers", 120, async || {
            let mut pods = platform.pods("pooler").await?;
            pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
            ensure!(pods.len() == 2, "{} poolers", pods.len());
            for pod in &pods {
                let size = platform.pgbouncer_setting(pod, "default_pool_size").await?;
                let wait = platform.pgbouncer_setting(pod, "query_wait_timeout").await?;
                ensure!(size == "17" && wait.starts_with("42"), "{}: {size}, {wait}", pod.name_any());
            }
            Ok(())
        })
        .await?;
        // Their grace is 60 s: a container that does not understand its stop signal takes all of it.
        eventually("the former poolers have ended by themselves", 40, async || {
            let pods = platform.pods("pooler").await?.len();
            ensure!(pods == 2, "{pods} poolers");
            Ok(())
        })
        .await?;
        let after = platform.sql("SELECT pg_postmaster_start_time()").await?;
        ensure!(before == after, "PostgreSQL was restarted needlessly: {before}, {after}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn too_many_logins_are_answered_with_429() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        platform.apply(small_with(&json!({"gateway": {"rateLimits": {"auth": {"rate": "5r/m", "burst": 2}}}}))).await?;
        platform.settled().await?;
        // A connection to each request: one that is kept would stay with a gateway that is about to go.
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).build()?;
        let url = format!("{}/api/auth/me", gateway());
        let limited = eventually("an answer is 429", 30, async || {
            let answer = client.get(&url).send().await?;
            ensure!(answer.status() == StatusCode::TOO_MANY_REQUESTS, "the answer is {}", answer.status());
            Ok(answer)
        })
        .await?;
        // A gateway that is about to go serves for some seconds more, without the limit.
        eventually("most answers are 429", 30, async || {
            let mut answers = BTreeMap::new();
            for _ in 0..10 {
                *answers.entry(client.get(&url).send().await?.status().as_u16()).or_insert(0) += 1;
            }
            // Of two gateways, the other may still admit one request and two more at once.
            ensure!(answers.get(&429).is_some_and(|limited| *limited >= 6), "{answers:?}");
            Ok(())
        })
        .await?;
        ensure!(limited.headers().get("retry-after").is_some_and(|seconds| seconds == "12"), "{:?}", limited.headers());
        ensure!(limited.headers().get("content-type").is_some_and(|type_| type_ == "application/problem+json"));
        let problem: Value = limited.json().await?;
        ensure!(problem["status"] == 429, "{problem}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_is_deleted_or_edited_by_hand_is_put_right() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        let (client, name) = (platform.client.clone(), platform.name);
        comes_back::<Deployment>(Api::namespaced(client.clone(), name), "e2e-gateway").await?;
        comes_back::<Service>(Api::namespaced(client.clone(), name), "e2e-pooler").await?;
        comes_back::<HorizontalPodAutoscaler>(Api::namespaced(client.clone(), name), "e2e-api").await?;
        comes_back::<StatefulSet>(Api::namespaced(client.clone(), name), "e2e-cache").await?;

        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), name);
        maps.create(&PostParams::default(), &unwanted(&platform).await?).await?;
        eventually("what the platform does not want is removed", 30, async || {
            ensure!(maps.get_opt("e2e-unwanted").await?.is_none());
            Ok(())
        })
        .await?;
        let edit = Patch::Merge(json!({"data": {"pgbouncer.ini": "[pgbouncer]"}}));
        maps.patch("e2e-pooler", &PatchParams::default(), &edit).await?;
        eventually("the edited configuration is put right", 30, async || {
            let data = maps.get("e2e-pooler").await?.data.unwrap_or_default();
            ensure!(data["pgbouncer.ini"].contains("default_pool_size = 25"), "{data:?}");
            Ok(())
        })
        .await?;
        let deployments: Api<Deployment> = Api::namespaced(client, name);
        deployments.patch("e2e-api", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 0}}))).await?;
        eventually("the edited Deployment is put right", 30, async || {
            let replicas = deployments.get("e2e-api").await?.spec.and_then(|spec| spec.replicas);
            ensure!(replicas >= Some(2), "{replicas:?}");
            Ok(())
        })
        .await?;
        platform.settled().await
    })
    .await
}

/// An object of the platform that its blueprint does not have, as an earlier spec or release may have left it.
async fn unwanted(platform: &Platform) -> Result<ConfigMap> {
    let mut map = Api::<ConfigMap>::namespaced(platform.client.clone(), platform.name).get("e2e-pooler").await?;
    let ObjectMeta { labels, owner_references, .. } = map.metadata;
    map.metadata = ObjectMeta { name: Some("e2e-unwanted".into()), labels, owner_references, ..ObjectMeta::default() };
    Ok(map)
}

#[tokio::test]
async fn a_restarted_operator_writes_nothing() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        // Figures such as the poolers' clients change all the time.
        let lasting = async || {
            let platform = platform.api().get(platform.name).await?;
            let mut conditions = platform.status.context("no status")?.conditions;
            // What the autoscaler says of itself is not the operator's to keep.
            conditions.retain(|condition| condition.type_ != "AutoscalerReady");
            let told = conditions.into_iter().map(|condition| {
                let Condition { type_, status, reason, message, observed_generation, last_transition_time } = condition;
                // Whether the platform serves is asked through the gateway, and may be answered late. That these are well the
                // new operator must not doubt for a moment.
                let stores = ["DatabaseReady", "PoolerReady", "CacheReady", "SessionsReady"];
                let since = stores.contains(&type_.as_str()).then_some(last_transition_time);
                (type_, status, reason, message, observed_generation, since)
            });
            anyhow::Ok((platform.metadata.generation, told.collect::<Vec<_>>()))
        };
        let (generation, conditions) = lasting().await?;
        let pods: Api<Pod> = Api::namespaced(platform.client.clone(), OPERATOR);
        let labels = "app.kubernetes.io/name=taskplatform-operator";
        let old: Vec<String> =
            cluster::pods(&platform.client, OPERATOR, labels).await?.iter().map(ResourceExt::name_any).collect();
        for pod in &old {
            pods.delete(pod, &DeleteParams::default()).await?;
        }
        let metrics = eventually("another operator has reconciled the platform", 90, async || {
            for pod in cluster::pods(&platform.client, OPERATOR, labels).await? {
                let name = pod.name_any();
                if old.contains(&name) {
                    continue;
                }
                let metrics = cluster::get_from_pod(&platform.client, OPERATOR, &name, 8080, "/metrics").await?;
                let reconciled = value(&metrics, "taskplatform_operator_reconciliations_total{outcome=\"Applied\"}");
                if value(&metrics, "taskplatform_operator_leader") > 0.0 && reconciled >= 2.0 {
                    return Ok(metrics);
                }
            }
            anyhow::bail!("no new operator leads yet")
        })
        .await?;
        let applied: Vec<&str> =
            metrics.lines().filter(|line| line.starts_with("taskplatform_operator_applied_objects_total")).collect();
        ensure!(applied.is_empty(), "the new operator applied objects that had not changed: {applied:?}");
        let now = eventually("the conditions are those from before", 30, async || {
            let (now, after) = lasting().await?;
            ensure!(after == conditions, "the new operator changed the TaskPlatform: {conditions:#?}, {after:#?}");
            Ok(now)
        })
        .await?;
        ensure!(now == generation, "the new operator changed the TaskPlatform's spec: {generation:?}, {now:?}");
        Ok(())
    })
    .await
}

/// A metric's value; 0 where it is not there yet.
fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')));
    line.and_then(|value| value.parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn another_read_replica_streams() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        eventually("one replica streams to begin with", 30, async || {
            let count = platform.sql(streaming).await?;
            ensure!(count == "1", "{count} stream");
            Ok(())
        })
        .await?;
        platform.apply(small_with(&json!({"database": {"readReplicas": 2}}))).await?;
        eventually("two replicas stream", 120, async || {
            let count = platform.sql(streaming).await?;
            ensure!(count == "2", "{count} stream");
            Ok(())
        })
        .await?;
        platform.settled().await?;
        eventually("two replicas are told", 30, async || {
            let status = platform.api().get(platform.name).await?.status;
            let database = status.and_then(|status| status.database).context("no status")?;
            ensure!((database.ready.as_str(), database.streaming_replicas) == ("3/3", 2), "{database:?}");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn sessions_outlive_a_larger_cluster_and_the_loss_of_every_pod() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        let user = User::register(&gateway(), &unique("joan")).await?;
        platform.apply(small_with(&json!({"sessions": {"replicasPerShard": 2}}))).await?;
        platform.wait_for("SessionsReady", "True", 180).await?;
        let ready = sessions_ready(&platform).await?;
        ensure!(ready == "9/9", "{ready}");
        user.titles().await?;

        platform.apply(small()).await?;
        eventually("the surplus nodes are gone", 120, async || {
            let ready = sessions_ready(&platform).await?;
            ensure!(ready == "6/6", "{ready}");
            Ok(())
        })
        .await?;
        platform.wait_for("SessionsReady", "True", 60).await?;
        user.titles().await?;

        // With every pod's address, the way from node to node is gone, too: the operator introduces them to each other.
        let pods: Api<Pod> = Api::namespaced(platform.client.clone(), platform.name);
        let gone = platform.pods("sessions").await?;
        for pod in &gone {
            pods.delete(&pod.name_any(), &DeleteParams::default()).await?;
        }
        eventually("other pods have taken the places of all", 120, async || {
            let now = platform.pods("sessions").await?;
            ensure!(now.len() == 6 && now.iter().all(|pod| gone.iter().all(|old| old.uid() != pod.uid())));
            Ok(())
        })
        .await?;
        platform.wait_for("SessionsReady", "True", 120).await?;
        // Each instance of the API has to find the new nodes for itself.
        eventually("the session is still there, ten times on end", 120, async || {
            for _ in 0..10 {
                user.reconnected()?.titles().await?;
            }
            Ok(())
        })
        .await
    })
    .await
}

/// Ready and desired nodes of the session store.
async fn sessions_ready(platform: &Platform) -> Result<String> {
    let status = platform.api().get(platform.name).await?.status.and_then(|status| status.sessions);
    Ok(status.context("no status")?.ready)
}

#[tokio::test]
async fn volumes_that_cannot_grow_are_reported_and_hold_up_nothing_else() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(platform.client.clone(), platform.name);
        let claim = claims.get("data-e2e-cache-0").await?;
        let class = claim.spec.and_then(|spec| spec.storage_class_name).context("no class")?;
        let classes: Api<StorageClass> = Api::all(platform.client.clone());
        ensure!(
            classes.get(&class).await?.allow_volume_expansion != Some(true),
            "{class} allows expansion: nothing to see here"
        );

        platform.apply(small_with(&json!({"cache": {"storage": {"size": "300Mi"}, "replicasPerShard": 2}}))).await?;
        let failed = eventually("the failure is reported", 60, async || {
            let condition = platform.condition("Reconciling").await?;
            ensure!(condition.reason == "ApplyFailed", "{condition:?}");
            Ok(condition.message)
        })
        .await?;
        ensure!(
            failed.contains("data-e2e-cache-0 cannot grow to 300Mi") && failed.contains("allowVolumeExpansion"),
            "{failed}"
        );
        eventually("the cache has its new nodes all the same", 120, async || {
            let cache =
                platform.api().get(platform.name).await?.status.and_then(|status| status.cache).context("no status")?;
            ensure!(cache.ready == "9/9", "{cache:?}");
            Ok(())
        })
        .await?;

        // A volume cannot shrink either, so this platform has served its purpose.
        platform.api().delete(platform.name, &DeleteParams::background()).await?;
        eventually("the platform and its volumes are gone", 120, async || {
            let claims = claims.list(&ListParams::default()).await?.items;
            ensure!(claims.is_empty(), "{} volumes are left", claims.len());
            Ok(())
        })
        .await
    })
    .await
}

/// It is refused; and if it was stored while there was no operator to ask, nothing is done for it.
#[tokio::test]
async fn a_spec_that_cannot_be_built_is_refused_or_stalls_and_touches_nothing() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        let deployments: Api<Deployment> = Api::namespaced(platform.client.clone(), platform.name);
        // Not the generation: the autoscaler's steps count there, too.
        let template =
            async || anyhow::Ok(deployments.get("e2e-api").await?.spec.context("no spec of the API")?.template);
        let before = template().await?;
        let change = json!({"database": {"parameters": {"max_connections": "50"}}, "api": {"resources": {"cpu": "30m", "memory": "97Mi"}}});
        let bad = small_with(&change);
        let refused = eventually("it is refused", 60, async || match platform.apply(bad.clone()).await {
            Err(error) if error.to_string().contains("(TP101)") => Ok(error.to_string()),
            Err(error) => Err(error),
            // The operator may just have started anew.
            Ok(_) => platform.apply(small()).await.and_then(|_| anyhow::bail!("it was stored")),
        })
        .await?;
        ensure!(refused.contains("max_connections: 50"), "{refused}");

        let gone = operators(&platform, 0).await;
        let stored = platform.apply(bad).await;
        // Whatever has happened, the tests that follow need the operator.
        operators(&platform, 2).await?;
        gone?;
        stored?;
        let stalled = platform.wait_for("Stalled", "True", 60).await?;
        ensure!(stalled.message.contains("max_connections: 50") && stalled.message.contains("raise it to"), "{stalled:?}");
        ensure!(template().await? == before, "what runs was touched");
        platform.apply(small()).await?;
        platform.wait_for("Stalled", "False", 30).await?;
        platform.settled().await
    })
    .await
}

/// Makes the operator run so many times.
async fn operators(platform: &Platform, replicas: i32) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(platform.client.clone(), OPERATOR);
    let scale = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    deployments.patch_scale("taskplatform-operator", &PatchParams::default(), &scale).await?;
    eventually("the operator is there as often as it should be", 60, async || {
        let pods = cluster::pods(&platform.client, OPERATOR, "app.kubernetes.io/name=taskplatform-operator").await?;
        let count = i32::try_from(pods.len())?;
        ensure!(count == replicas, "{count} pods");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_changed_postgresql_setting_is_in_force_without_a_new_pod() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        let pods = |pods: Vec<Pod>| pods.iter().filter_map(ResourceExt::uid).collect::<Vec<_>>();
        let before = pods(platform.pods("database").await?);
        platform.apply(small_with(&json!({"database": {"parameters": {"work_mem": "3MB"}}}))).await?;
        eventually("work_mem is in force", 60, async || {
            let setting = platform.sql("SHOW work_mem").await?;
            ensure!(setting == "3MB", "work_mem is {setting}");
            Ok(())
        })
        .await?;
        ensure!(pods(platform.pods("database").await?) == before, "a reload is enough");
        Ok(())
    })
    .await
}
