//! Who reaches whom. kind's network enforces network policies, and so does that of a node image built from source.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use taskplatform_blueprint::Endpoint;
use taskplatform_tests::{cluster, eventually, explained, platform::Platform};

use crate::{shared_platform, turn};

/// Those whose images have what it takes to try.
const CALLERS: [&str; 5] = ["gateway", "pooler", "database", "cache", "sessions"];

const TARGETS: [Endpoint; 11] = [
    Endpoint::GATEWAY,
    Endpoint::GATEWAY_STATUS,
    Endpoint::GATEWAY_OPERATOR,
    Endpoint::API,
    Endpoint::POOLER,
    Endpoint::PRIMARY,
    Endpoint::PATRONI,
    Endpoint::CACHE,
    Endpoint::CACHE_BUS,
    Endpoint::SESSIONS,
    Endpoint::SESSIONS_BUS,
];

/// How busybox' nc says that it gets no connection: somebody refuses it, or nobody answers.
const REFUSALS: [&str; 2] = ["nc: can't connect", "nc: timed out"];

/// What the platform is made for; anybody may call the gateway, but only the operator asks it whether the platform serves.
fn is_meant(caller: &str, target: &str, port: u16) -> bool {
    match target {
        "gateway" => port != Endpoint::GATEWAY_OPERATOR.port,
        "api" => caller == "gateway",
        "database" => matches!(caller, "database" | "pooler"),
        "cache" | "sessions" => caller == target,
        _ => false,
    }
}

#[tokio::test]
async fn a_pod_reaches_what_it_needs_and_nothing_else() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        try_join_all(CALLERS.map(|caller| try_all(&platform, caller))).await?;
        Ok(())
    })
    .await
}

async fn try_all(platform: &Platform, caller: &str) -> Result<()> {
    for endpoint in TARGETS {
        let (target, port) = (endpoint.component.name(), endpoint.port);
        let meant = is_meant(caller, target, port);
        // A policy may take a moment to know a pod that is new.
        eventually(&format!("{caller} reaches {target}:{port}: {meant}"), 30, async || {
            let reached = reaches(platform, caller, target, port).await?;
            ensure!(reached.is_ok() == meant, "{reached:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Whether a pod of one component can connect to one of another, or to another one of its own. Only what nc itself says
/// of the connection counts: where it could not be run, nobody knows.
async fn reaches(platform: &Platform, caller: &str, target: &str, port: u16) -> Result<Result<String>> {
    // One that is going may have lost its container already, or be called in vain.
    let staying = async |component| -> Result<Vec<_>> {
        Ok(platform
            .pods(component)
            .await?
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .collect())
    };
    let from = staying(caller).await?.pop().with_context(|| format!("no pod of {caller}"))?.name_any();
    let to = staying(target).await?.into_iter().find(|pod: &Pod| pod.name_any() != from);
    let address = to.and_then(|pod| pod.status?.pod_ip).with_context(|| format!("no pod of {target} to call"))?;
    let connect = ["busybox", "nc", "-w", "3", &address, &port.to_string(), "-e", "busybox", "true"];
    match cluster::exec(&platform.client, platform.name, &from, &connect).await {
        Err(error) if !REFUSALS.iter().any(|refusal| error.to_string().contains(refusal)) => Err(error),
        reached => Ok(reached),
    }
}
