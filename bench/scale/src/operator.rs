//! The leading operator, as seen from outside: its metrics, and what its node says of its use.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Pod},
    jiff::Timestamp,
};
use kube::{Api, Client, api::DeleteParams};
use serde_json::Value;
use tokio::time::sleep;

const NAMESPACE: &str = "taskplatform-system";
const LEASE: &str = "taskplatform-operator";
const PREFIX: &str = "taskplatform_operator_";
const LONGEST: Duration = Duration::from_mins(10);

pub(crate) struct Operator {
    client: Client,
    pod: String,
    node: String,
}

/// CPU in nanoseconds until a time, and memory.
pub(crate) struct Usage {
    cpu: u64,
    at: Timestamp,
    pub(crate) memory_mib: f64,
}

pub(crate) struct Idle {
    pub(crate) cores: f64,
    pub(crate) memory_mib: f64,
}

pub(crate) struct Restarted {
    /// From the lease until every platform was reconciled.
    pub(crate) known: Duration,
    pub(crate) writes: u64,
}

impl Operator {
    pub(crate) async fn of(client: &Client) -> Result<Self> {
        let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
        let lease = leases.get(LEASE).await?;
        let pod = lease.spec.and_then(|spec| spec.holder_identity).context("nobody leads")?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        let node = pods.get(&pod).await?.spec.and_then(|spec| spec.node_name).context("the leader has no node")?;
        Ok(Self { client: client.clone(), pod, node })
    }

    /// The sum of a metric over its labels.
    async fn sum(&self, metric: &str) -> Result<u64> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{}:8080/proxy/metrics", self.pod);
        let text = self.client.request_text(get(&path)?).await?;
        let name = format!("{PREFIX}{metric}");
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(&name)?;
            rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next()?.parse::<u64>().ok())?
        });
        Ok(values.sum())
    }

    /// Objects that it has applied since it began.
    pub(crate) async fn applied(&self) -> Result<u64> {
        self.sum("applied_objects_total").await
    }

    async fn reconciled(&self) -> Result<u64> {
        self.sum("reconciliations_total").await
    }

    /// Until it applies nothing for half a minute.
    pub(crate) async fn await_rest(&self) -> Result<()> {
        let (began, mut still, mut applied) = (Instant::now(), Instant::now(), 0);
        while still.elapsed() < Duration::from_secs(30) {
            let now = self.applied().await?;
            if now != applied {
                (still, applied) = (Instant::now(), now);
            }
            ensure!(began.elapsed() < LONGEST, "it goes on applying: {applied} objects by now");
            sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    }

    pub(crate) async fn usage(&self) -> Result<Usage> {
        let summary: Value =
            self.client.request(get(&format!("/api/v1/nodes/{}/proxy/stats/summary", self.node))?).await?;
        let pods = summary["pods"].as_array().into_iter().flatten();
        let container = pods
            .filter(|pod| pod["podRef"]["name"] == self.pod.as_str())
            .map(|pod| &pod["containers"][0])
            .next()
            .context("the node says nothing of the operator")?;
        let number = |value: &Value| value.as_u64().context("the node does not say what the operator uses");
        let memory = number(&container["memory"]["workingSetBytes"])?;
        Ok(Usage {
            cpu: number(&container["cpu"]["usageCoreNanoSeconds"])?,
            at: container["cpu"]["time"].as_str().context("no time")?.parse()?,
            memory_mib: f64::from(u32::try_from(memory >> 10)?) / 1024.0,
        })
    }

    /// What it takes while nothing changes.
    pub(crate) async fn idle(&self, time: Duration) -> Result<Idle> {
        let before = self.usage().await?;
        sleep(time).await;
        let after = self.usage().await?;
        let cpu = Duration::from_nanos(after.cpu - before.cpu).as_secs_f64();
        Ok(Idle { cores: cpu / after.at.duration_since(before.at).as_secs_f64(), memory_mib: after.memory_mib })
    }

    /// Deletes its pod, and watches the next leader until it has reconciled so many platforms.
    pub(crate) async fn restart(&self, platforms: usize) -> Result<Restarted> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        pods.delete(&self.pod, &DeleteParams::default()).await?;
        let began = Instant::now();
        let next = loop {
            ensure!(began.elapsed() < LONGEST, "nobody leads after {LONGEST:?}");
            match Self::of(&self.client).await {
                Ok(next) if next.pod != self.pod => break next,
                _ => sleep(Duration::from_millis(50)).await,
            }
        };
        let leads = Instant::now();
        loop {
            // A pod that has just begun may not be reached yet.
            let reconciled = next.reconciled().await.unwrap_or_default();
            if reconciled >= u64::try_from(platforms)? {
                break;
            }
            ensure!(leads.elapsed() < LONGEST, "{reconciled} of {platforms} platforms are known after {LONGEST:?}");
            sleep(Duration::from_millis(100)).await;
        }
        let known = leads.elapsed();
        sleep(Duration::from_secs(20)).await;
        Ok(Restarted { known, writes: next.applied().await? })
    }
}

fn get(path: &str) -> Result<http::Request<Vec<u8>>> {
    Ok(http::Request::get(path).body(Vec::new())?)
}
