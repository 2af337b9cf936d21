//! What is moved on purpose at noon: users go on. A node is drained as for an upgrade, which ends by itself though the volumes cannot
//! leave the node; another member of the database is made to lead.

use std::{
    collections::BTreeSet,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use taskplatform_crds::FailoverCause;
use taskplatform_tests::{
    eventually, explained,
    http::{User, gateway, unique},
    ledger::Ledger,
    platform::Platform,
};

use crate::{shared_platform, taskplatform, turn};

/// The parts whose pods only the operator has go.
const STATEFUL: [&str; 3] = ["database", "cache", "sessions"];

#[tokio::test]
async fn the_primarys_node_is_drained_and_nothing_acknowledged_is_lost() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        let primary = platform.primary().await?;
        let node = node_of(&platform, &primary).await?;
        let drained = drain_under_load(&platform, &node).await;
        // Whatever has happened, the tests that follow need the node.
        kubectl(&["uncordon", &node, "--request-timeout=30s"]).await?;
        drained?;
        platform.settled().await?;
        // Nobody but the operator sees to that.
        eventually("the pods without state stand apart again", 120, async || {
            for component in ["api", "gateway", "pooler"] {
                let pods = platform.pods(component).await?;
                let nodes: BTreeSet<_> =
                    pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref()).collect();
                ensure!(pods.len() < 2 || nodes.len() > 1, "all of {component} are on {nodes:?}");
            }
            Ok(())
        })
        .await?;
        platform.settled().await
    })
    .await
}

async fn drain_under_load(platform: &Platform, node: &str) -> Result<()> {
    // By force: pods that the local cluster's storage deletes volumes with have no controller.
    let drain = ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=240s"];
    let (told, _) = write_meanwhile(kubectl(&drain)).await?;
    for component in STATEFUL {
        for pod in platform.pods(component).await? {
            let place = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            ensure!(place != Some(node), "{} is still on {node}: {told}", pod.name_any());
        }
    }
    Ok(())
}

#[tokio::test]
async fn another_member_leads_on_demand_and_no_request_fails() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        let before = platform.primary().await?;
        let (switched, failed) = write_meanwhile(async {
            let run = || taskplatform(&["switchover", "e2e", "-n", "e2e", "--timeout", "2m"], "");
            tokio::task::spawn_blocking(run).await?
        })
        .await?;
        ensure!(failed.is_empty(), "{failed:#?}");
        let (printed, errors) = (String::from_utf8(switched.stdout)?, String::from_utf8(switched.stderr)?);
        // The status follows.
        let now = eventually("another primary is told", 30, async || {
            let now = platform.primary().await?;
            ensure!(now != before, "{now} leads still: {printed}{errors}");
            Ok(now)
        })
        .await?;
        ensure!(printed == format!("e2e: {now} leads, {before} did\n"), "{printed}{errors}");
        platform.settled().await?;
        let again = taskplatform(&["switchover", "e2e", "-n", "e2e", "--to", &now], "")?;
        let printed = String::from_utf8(again.stdout)?;
        ensure!(printed == format!("e2e: {now} leads already\n"), "{printed}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_primary_that_is_deleted_hands_over_first_and_no_request_fails() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        platform.settled().await?;
        let before = platform.primary().await?;
        let (_, failed) = write_meanwhile(kubectl(&["delete", "pod", &before, "-n", "e2e"])).await?;
        ensure!(failed.is_empty(), "{failed:#?}");
        eventually("the failover and its cause are told", 60, async || {
            let status = platform.api().get(platform.name).await?.status;
            let database = status.and_then(|status| status.database).context("no status")?;
            let told = database.failovers.last().context("no failover")?;
            ensure!(told.former == before && told.primary == database.primary, "{told:?}");
            ensure!(told.cause == FailoverCause::PodReplaced, "nobody wanted it: {told:?}");
            Ok(())
        })
        .await?;
        platform.settled().await
    })
    .await
}

/// Has a user write while something is done, and says which requests failed; what was acknowledged is there afterwards.
async fn write_meanwhile<T>(work: impl Future<Output = Result<T>>) -> Result<(T, Vec<String>)> {
    let mut ledger = Ledger::new(User::register(&gateway(), &unique("noon")).await?);
    let is_over = AtomicBool::new(false);
    let write = async {
        while !is_over.load(Ordering::Relaxed) {
            ledger.write().await?;
        }
        anyhow::Ok(ledger)
    };
    let work = async {
        let done = work.await;
        is_over.store(true, Ordering::Relaxed);
        done
    };
    let (ledger, done) = tokio::join!(write, work);
    let (ledger, done) = (ledger?, done?);
    let failed = ledger.failures().to_vec();
    ledger.reconcile().await?;
    Ok((done, failed))
}

async fn node_of(platform: &Platform, pod: &str) -> Result<String> {
    let pods = platform.pods("database").await?;
    let found = pods.into_iter().find(|found| found.name_any() == pod);
    found.and_then(|pod| pod.spec?.node_name).with_context(|| format!("{pod} is on no node"))
}

/// Runs kubectl on the cluster under test, which ends by itself, and returns what it prints.
async fn kubectl(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("kubectl");
    if let Ok(context) = std::env::var("KUBE_CONTEXT") {
        command.args(["--context", &context]);
    }
    command.args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await?.context("kubectl cannot be run")?;
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "kubectl {arguments:?}: {errors}\n{printed}");
    Ok(format!("{printed}{errors}"))
}
