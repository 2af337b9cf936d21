//! What people do to a platform without meaning harm: it goes on as it was, or says why not.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{ConfigMap, Node, Secret},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use taskplatform_tests::{
    cluster, eventually, explained,
    http::{User, gateway, unique},
    ledger::Ledger,
    platform::Platform,
};

use crate::{shared_platform, small, small_with, turn};

/// The pods of each part are spread as evenly over the nodes as their number allows, though no node has a zone.
pub(crate) async fn is_spread(platform: &Platform) -> Result<()> {
    let nodes: Api<Node> = Api::all(platform.client.clone());
    let takes_pods = |node: &Node| {
        let spec = node.spec.clone().unwrap_or_default();
        spec.taints.unwrap_or_default().is_empty() && spec.unschedulable != Some(true)
    };
    let nodes = nodes.list(&ListParams::default()).await?.items.into_iter().filter(takes_pods);
    let nodes: BTreeSet<String> = nodes.map(|node| node.name_any()).collect();
    ensure!(nodes.len() > 1, "one node alone tells nothing: {nodes:?}");
    for component in ["api", "gateway", "pooler", "database", "cache", "sessions"] {
        let mut pods: BTreeMap<&str, u32> = nodes.iter().map(|node| (node.as_str(), 0)).collect();
        let found = platform.pods(component).await?;
        for node in found.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref()) {
            *pods.entry(node).or_default() += 1;
        }
        let (fewest, most) = (pods.values().min().copied(), pods.values().max().copied());
        ensure!(most.zip(fewest).is_some_and(|(most, fewest)| most <= fewest + 1), "{component}: {pods:?}");
    }
    let condition = platform.condition("SurvivesNodeLoss").await?;
    ensure!(condition.status == "True", "{condition:?}");
    Ok(())
}

/// PostgreSQL's members each start so often until every one of them has the value.
async fn restarts_until(platform: &Platform, max_connections: &str) -> Result<BTreeMap<String, usize>> {
    let began = Instant::now();
    let mut starts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    loop {
        let mut done = true;
        for pod in platform.pods("database").await? {
            let name = pod.name_any();
            let statement = "SELECT pg_postmaster_start_time(), current_setting('max_connections')";
            let command = ["psql", "-XAt", "-h", "/tmp", "-U", "postgres", "-d", "postgres", "-c", statement];
            let answer = cluster::exec(&platform.client, platform.name, &name, &command).await.unwrap_or_default();
            let (start, value) = answer.trim().split_once('|').unwrap_or_default();
            if !start.is_empty() {
                starts.entry(name).or_default().insert(start.to_owned());
            }
            done &= value == max_connections;
        }
        let settled = platform.condition("Reconciling").await.is_ok_and(|condition| condition.status == "False");
        if done && settled {
            return Ok(starts.into_iter().map(|(pod, starts)| (pod, starts.len() - 1)).collect());
        }
        ensure!(
            began.elapsed() < Duration::from_mins(2),
            "not {max_connections} everywhere after two minutes: {starts:?}"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn smaller_and_larger_pools_restart_each_member_twice_at_most() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        platform.apply(small_with(&json!({"pooler": {"defaultPoolSize": 5}}))).await?;
        let lowered = restarts_until(&platform, "100").await?;
        ensure!(lowered.len() == 2 && lowered.values().all(|restarts| *restarts <= 2), "lowered: {lowered:?}");
        platform.apply(small()).await?;
        let raised = restarts_until(&platform, "200").await?;
        ensure!(raised.len() == 2 && raised.values().all(|restarts| *restarts <= 2), "raised: {raised:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn instances_stay_when_the_whole_is_replaced_and_are_never_none() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
        let refused = platform.api().patch_scale(platform.name, &PatchParams::default(), &none).await;
        let refusal = refused.err().context("an autoscaler takes 0 for switched off")?.to_string();
        ensure!(refusal.contains("replicas") && refusal.contains("greater than or equal to 1"), "{refusal}");

        let four = Patch::Merge(json!({"spec": {"replicas": 4}}));
        platform.api().patch_scale(platform.name, &PatchParams::default(), &four).await?;
        let deployments: Api<Deployment> = Api::namespaced(platform.client.clone(), platform.name);
        let wanted = async || anyhow::Ok(deployments.get("e2e-api").await?.spec.and_then(|spec| spec.replicas));
        eventually("four instances are wanted", 30, async || {
            let wanted = wanted().await?;
            ensure!(wanted == Some(4), "{wanted:?}");
            Ok(())
        })
        .await?;
        // Whoever replaces an object that has changed since, be it in its status, is refused and begins anew.
        eventually("the whole is replaced", 30, async || {
            let mut whole = platform.api().get(platform.name).await?;
            whole.spec.api.replicas = None;
            whole.metadata.managed_fields = None;
            platform.api().replace(platform.name, &PostParams::default(), &whole).await?;
            Ok(())
        })
        .await?;
        eventually("the number is written again", 30, async || {
            let written = platform.api().get(platform.name).await?.spec.api.replicas;
            ensure!(written.is_some_and(|written| written.get() == 4), "{written:?}");
            Ok(())
        })
        .await?;
        ensure!(wanted().await? == Some(4), "{:?}", wanted().await?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_secret_that_is_deleted_comes_back_with_the_same_passwords() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        let secrets: Api<Secret> = Api::namespaced(platform.client.clone(), platform.name);
        let before = secrets.get("e2e-credentials").await?;
        secrets.delete("e2e-credentials", &DeleteParams::default()).await?;
        // Whatever changes has it looked at.
        let noted = Patch::Merge(json!({"spec": {"scaling": {"maxInstances": 5}}}));
        platform.api().patch(platform.name, &PatchParams::default(), &noted).await?;
        eventually("the Secret is back", 90, async || {
            let after = secrets.get("e2e-credentials").await?;
            ensure!(after.uid() != before.uid() && after.data == before.data, "its passwords are others");
            Ok(())
        })
        .await?;
        platform.settled().await?;
        let user = User::register(&gateway(), &unique("grace")).await?;
        user.create("Find the bug").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_is_anothers_is_left_alone_and_told() -> Result<()> {
    let _turn = turn().await;
    let name = "e2e-taken";
    let client = cluster::client().await?;
    cluster::namespace_without_pods(&client, name).await?;
    let told = explained(name, async {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), name);
        let theirs = ConfigMap {
            metadata: ObjectMeta { name: Some("e2e-taken-gateway".to_owned()), ..ObjectMeta::default() },
            data: Some([("theirs".to_owned(), "kept".to_owned())].into()),
            ..ConfigMap::default()
        };
        maps.create(&PostParams::default(), &theirs).await?;
        let inside = json!({"gateway": {"service": {"type": "ClusterIP"}}, "deletionPolicy": "Delete"});
        let platform = Platform::create(name, inside).await?;
        let reason = eventually("it is told", 60, async || {
            let condition = platform.condition("Reconciling").await?;
            ensure!(condition.reason == "NameTaken", "{condition:?}");
            Ok(condition.message)
        })
        .await?;
        ensure!(
            reason.contains("ConfigMap e2e-taken-gateway") && reason.contains("was not made by this operator"),
            "{reason}"
        );
        let kept = maps.get("e2e-taken-gateway").await?;
        ensure!(kept.data == theirs.data && kept.owner_references().is_empty(), "{kept:?}");

        platform.api().delete(name, &DeleteParams::background()).await?;
        eventually("the platform is gone", 60, async || {
            ensure!(platform.api().get_opt(name).await?.is_none(), "it is still there");
            Ok(())
        })
        .await?;
        ensure!(maps.get("e2e-taken-gateway").await?.data == theirs.data, "it went with the platform");
        Ok(())
    })
    .await;
    told.and(cluster::remove_namespace(&client, name).await)
}

/// Has a member lead, as a person would by hand.
async fn lead(platform: &Platform, member: &str) -> Result<()> {
    let primary = platform.primary().await?;
    if primary == member {
        return Ok(());
    }
    let scope = format!("{}-database-primary", platform.name);
    let command =
        ["patronictl", "-c", "/etc/patroni/patroni.yml", "switchover", &scope, "--candidate", member, "--force"];
    cluster::exec(&platform.client, platform.name, member, &command).await?;
    eventually(&format!("{member} leads"), 60, async || {
        let primary = platform.primary().await?;
        ensure!(primary == member, "{primary} leads");
        Ok(())
    })
    .await?;
    platform.settled().await
}

#[tokio::test]
async fn a_primary_that_is_to_go_hands_over_before() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        lead(&platform, "e2e-database-1").await?;
        let mut ledger = Ledger::new(User::register(&gateway(), &unique("surplus")).await?);
        platform.apply(small_with(&json!({"database": {"readReplicas": 0}}))).await?;
        let sets: Api<StatefulSet> = Api::namespaced(platform.client.clone(), platform.name);
        eventually("one member is left", 120, async || {
            ledger.write().await?;
            let members = sets.get("e2e-database").await?.spec.and_then(|spec| spec.replicas);
            ensure!(members == Some(1) && platform.pods("database").await?.len() == 1, "{members:?} members");
            Ok(())
        })
        .await?;
        let primary = platform.primary().await?;
        ensure!(primary == "e2e-database-0", "{primary} leads");
        ensure!(ledger.failures().is_empty(), "a move that is planned is a pause: {:#?}", ledger.failures());
        ledger.reconcile().await?;
        platform.apply(small()).await?;
        platform.settled().await
    })
    .await
}
