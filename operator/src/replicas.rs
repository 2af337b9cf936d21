//! Has the operator's own replicas stand apart again. After a node was drained or lost, both may be on the other: Kubernetes leaves them there, and the
//! next loss would take the whole operator. While another node takes pods, the one that leads deletes the other, and the scheduler places the next.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Preconditions},
};
use rand::RngExt;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::{
    config::Config,
    describe,
    metrics::Metrics,
    rest::{Rest, Rests},
    world::{World, any_takes_pods},
};

const LABELS: &str = "app.kubernetes.io/name=taskplatform-operator";
/// How often they are looked at; up to a fifth more. They stand together for two looks before one moves: whatever has brought them there may go on.
const INTERVAL: Duration = Duration::from_secs(20);
/// How long one look may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many pods are asked for: more replicas than anybody has.
const PAGE: u32 = 50;
/// After a move the replicas are left alone for so long, and, where it was in vain, each time for twice as long as before, up to the second.
const AGAIN: Rests = [Duration::from_mins(5), Duration::from_hours(24)];

/// Looks for as long as this replica leads.
pub(crate) async fn keep_apart(client: Client, config: Config, world: Arc<World>, metrics: Arc<Metrics>) {
    let replicas = Replicas { client, identity: config.identity, namespace: config.namespace, world, metrics };
    let mut memory = Memory::default();
    loop {
        let wait = INTERVAL.mul_f64(rand::rng().random_range(1.0..1.2));
        sleep(wait).await;
        match timeout(TIMEOUT, replicas.look(&mut memory)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(
                error = describe(&error),
                "the operator's own replicas cannot be looked at: does its ClusterRole allow it to list and delete pods, and to get nodes?"
            ),
            Err(_) => warn!(
                "the API server does not answer within {} s where the operator's own replicas are",
                TIMEOUT.as_secs()
            ),
        }
    }
}

/// What is needed to look at the replicas.
struct Replicas {
    client: Client,
    /// The name of the pod that this process runs in.
    identity: String,
    namespace: String,
    world: Arc<World>,
    metrics: Arc<Metrics>,
}

/// What is remembered of moves.
#[derive(Debug, Default)]
struct Memory {
    /// They stood together when they were looked at last.
    stood_together: bool,
    /// Since one was moved last.
    rest: Option<Rest>,
}

impl Memory {
    /// Whether one is to move now.
    fn is_due(&mut self, are_together: bool) -> bool {
        let is_settled = std::mem::replace(&mut self.stood_together, are_together);
        if !are_together {
            self.rest = None;
        }
        are_together && is_settled && self.rest.is_none_or(|rest| rest.is_over())
    }
}

impl Replicas {
    async fn look(&self, memory: &mut Memory) -> Result<(), kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let pods = api.list(&ListParams::default().labels(LABELS).limit(PAGE)).await?.items;
        let ready: Vec<&Pod> = pods.iter().filter(|pod| is_ready(pod)).collect();
        let nodes: BTreeSet<&str> = ready.iter().filter_map(|pod| node(pod)).collect();
        self.metrics.nodes.set(i64::try_from(nodes.len()).unwrap_or(i64::MAX));
        // While one of them starts or ends, nobody knows where they will be: what has been seen so far neither counts nor is forgotten.
        if ready.len() < pods.len() || ready.len() < 2 {
            return Ok(());
        }
        let are_together = nodes.len() == 1;
        if !memory.is_due(are_together) || !self.is_room_besides(&nodes).await? {
            return Ok(());
        }
        let Some(other) = ready.into_iter().find(|pod| pod.name_any() != self.identity) else { return Ok(()) };
        memory.rest = Some(Rest::after(memory.rest, AGAIN));
        info!(
            pod = other.name_any(),
            node = node(other),
            "all replicas of the operator are on one node: this one is replaced"
        );
        let preconditions = Preconditions { uid: other.uid(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        api.delete(&other.name_any(), &parameters).await.map(drop)
    }

    /// Whether another node takes pods. Those are known on which pods of platforms are: the operator may not list nodes.
    async fn is_room_besides(&self, taken: &BTreeSet<&str>) -> Result<bool, kube::Error> {
        let lost = self.world.lost_nodes().borrow().clone();
        let pods = self.world.pods();
        let others: BTreeSet<&str> = pods.iter().filter_map(|(_, pod)| pod.node()).collect();
        let others = others.into_iter().filter(|node| !taken.contains(node) && !lost.contains_key(*node));
        any_takes_pods(&self.client, others).await
    }
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    is_ready && pod.metadata.deletion_timestamp.is_none()
}
