//! Users write while one part of the platform after another is lost: what was acknowledged stays, and every other answer
//! says cleanly that it was none.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use taskplatform_tests::{
    eventually, explained,
    http::{User, gateway, unique},
    ledger::Ledger,
    platform::Platform,
};

use crate::{shared_platform, small_with, turn};

/// How many users write at once.
const WRITERS: usize = 4;

#[tokio::test]
async fn a_lost_primary_is_replaced_and_nothing_acknowledged_is_lost() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        let before = platform.primary().await?;
        write_meanwhile(async |writes| replace_primary(&platform, writes).await).await?;
        platform.settled().await?;
        eventually("the failover is told", 60, async || {
            let status = platform.api().get(platform.name).await?.status;
            let database = status.and_then(|status| status.database).context("no status")?;
            let told = database.failovers.last().context("no failover")?;
            ensure!(told.former == before && told.unled_milliseconds.is_some(), "{told:?}");
            // Whoever writes all the time has waited.
            ensure!(told.unwritten_milliseconds.is_some() && told.lost_bytes.is_some(), "{told:?}");
            ensure!(told.primary == database.primary, "{told:?} is told, but the primary is {:?}", database.primary);
            Ok(())
        })
        .await
    })
    .await
}

/// Kills the primary until another pod takes its place: where the replica stalls for a moment, Patroni starts the lost one
/// again, and is right to.
async fn replace_primary(platform: &Platform, writes: &AtomicUsize) -> Result<()> {
    let primary = platform.primary().await?;
    let mut replaced: Result<()> = Ok(());
    for _ in 0..3 {
        lose(platform, "database", &primary, writes).await?;
        replaced = eventually("another pod is the primary", 60, async || {
            let now = platform.primary().await?;
            ensure!(now != primary, "{now} is still the primary");
            Ok(())
        })
        .await;
        if replaced.is_ok() {
            break;
        }
    }
    replaced
}

#[tokio::test]
async fn every_part_may_be_lost_in_turn_under_load() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        shared_platform().await?;
        // Two workers: one takes over from the other.
        let platform = Platform::create("e2e", small_with(&json!({"worker": {"replicas": 2}}))).await?;
        platform.settled().await?;
        write_meanwhile(async |writes| {
            for component in ["api", "worker", "pooler"] {
                let pods = platform.pods(component).await?;
                lose(&platform, component, &pods.first().context("no pod")?.name_any(), writes).await?;
            }
            for component in ["cache", "sessions"] {
                let master = eventually("a master is told", 30, async || {
                    let status = platform.api().get(platform.name).await?.status.context("no status")?;
                    let nodes = if component == "cache" { status.cache } else { status.sessions };
                    nodes.and_then(|nodes| nodes.masters.first().cloned()).context("no master")
                })
                .await?;
                lose(&platform, component, &master, writes).await?;
            }
            let primary = platform.primary().await?;
            let members = platform.pods("database").await?;
            let replica = members.iter().map(ResourceExt::name_any).find(|name| *name != primary);
            lose(&platform, "database", &replica.context("no replica")?, writes).await?;
            lose(&platform, "database", &platform.primary().await?, writes).await
        })
        .await?;
        platform.settled().await
    })
    .await
}

/// Kills a pod, and waits until tasks are written again and another pod is ready in its place.
async fn lose(platform: &Platform, component: &str, pod: &str, writes: &AtomicUsize) -> Result<()> {
    let there = staying(&platform.pods(component).await?);
    let lost = platform.kill(pod).await?;
    // Until then it may still serve, and what is written proves nothing.
    eventually(&format!("{pod} is gone"), 60, async || {
        let pods = platform.pods(component).await?;
        ensure!(pods.iter().all(|pod| pod.uid() != lost), "it is still there");
        Ok(())
    })
    .await?;
    let before = writes.load(Ordering::Relaxed);
    eventually(&format!("tasks are written again after {pod} was lost"), 60, async || {
        ensure!(writes.load(Ordering::Relaxed) >= before + WRITERS, "fewer than one a user");
        Ok(())
    })
    .await?;
    eventually(&format!("another pod is ready in the place of {pod}"), 120, async || {
        let (now, wanted) = (staying(&platform.pods(component).await?), wanted(platform, component, there).await?);
        ensure!(now >= wanted, "{now} pods instead of {wanted}");
        platform.all_ready(component).await
    })
    .await
}

/// How many pods are not about to go.
fn staying(pods: &[Pod]) -> usize {
    pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).count()
}

/// How many pods a component should have: as many as before, but that the autoscaler decides on the API's.
async fn wanted(platform: &Platform, component: &str, before: usize) -> Result<usize> {
    if component != "api" {
        return Ok(before);
    }
    let instances = platform.api().get(platform.name).await?.spec.api.replicas.context("no number of instances")?;
    Ok(usize::try_from(instances.get())?)
}

/// Lets users write until `chaos` is over, then compares what they were told with what is there.
async fn write_meanwhile(chaos: impl AsyncFnOnce(&AtomicUsize) -> Result<()>) -> Result<()> {
    let (writes, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let users = try_join_all(
        (0..WRITERS).map(async |number| User::register(&gateway(), &unique(&format!("grace{number}"))).await),
    )
    .await?;
    let writing = try_join_all(users.into_iter().map(|user| write_until(&over, user, &writes)));
    let chaos = async {
        let result = chaos(&writes).await;
        over.store(true, Ordering::Relaxed);
        result
    };
    let (ledgers, chaos) = tokio::join!(writing, chaos);
    chaos?;
    for ledger in ledgers? {
        ledger.reconcile().await?;
    }
    Ok(())
}

/// Creates task after task.
async fn write_until(over: &AtomicBool, user: User, writes: &AtomicUsize) -> Result<Ledger> {
    let mut ledger = Ledger::new(user);
    while !over.load(Ordering::Relaxed) {
        writes.fetch_add(usize::from(ledger.write().await?), Ordering::Relaxed);
        // A person's pace, not a benchmark's.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(ledger)
}
