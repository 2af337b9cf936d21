//! Nodes that fall silent. Kubernetes takes a node for lost some 45 s after it has stopped, and sends users to its pods until then. Where
//! no pod of platforms on a node can be reached any more while those elsewhere can, the operator deletes the pods without state there:
//! from that moment their Services lead past them. One that was deleted in vain is only a pod more that is replaced.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
};
use taskplatform_blueprint::{Component, Endpoint, Outsider, PARTS};
use tokio::{
    net::TcpStream,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{info, warn};

use crate::{
    describe,
    world::{Child, OwnerKind, World},
};

/// How often every node is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// Within this time the kernel of a node accepts or refuses a connection, or the network between is broken.
const CONNECT: Duration = Duration::from_secs(1);
/// How many pods of a node are asked.
const ASKED: usize = 3;
/// How many times in a row a node has to be silent.
const ROUNDS: u32 = 3;

/// Looks until the process leads no more.
pub(crate) async fn watch(client: Client, world: Arc<World>) {
    let mut nodes = Nodes::default();
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let pods = world.pods();
        let silent = ask(&addresses(&pods)).await;
        for node in nodes.judge(&silent) {
            let left: Vec<_> = pods.iter().filter(|(_, pod)| pod.node() == Some(&node) && is_replaced(pod)).collect();
            warn!(node, pods = left.len(), "no pod on the node answers: its pods without state are replaced");
            join_all(left.into_iter().map(|(namespace, pod)| delete(&client, namespace, pod))).await;
        }
    }
}

/// What is known of the nodes that have answered: how many times in a row each of them was silent since. One that never has may not let this
/// operator in yet: network policies follow the pods' addresses.
#[derive(Debug, Default)]
struct Nodes(BTreeMap<String, u32>);

impl Nodes {
    /// Those that are lost since now: silent for long enough, while no fewer others answer. Where most are silent, it is the operator that
    /// reaches nobody.
    fn judge(&mut self, silent: &BTreeMap<String, bool>) -> Vec<String> {
        self.0.retain(|node, _| silent.contains_key(node));
        for (node, is_silent) in silent {
            if !is_silent {
                self.0.insert(node.clone(), 0);
            } else if let Some(rounds) = self.0.get_mut(node) {
                *rounds = rounds.saturating_add(1);
            }
        }
        let answering = silent.values().filter(|is_silent| !**is_silent).count();
        let is_alone = answering < silent.len() - answering;
        let lost = self.0.iter().filter(|(_, rounds)| **rounds == ROUNDS && !is_alone);
        lost.map(|(node, _)| node.clone()).collect()
    }
}

/// Some pods of each node, where the operator may reach them.
fn addresses(pods: &[(String, Arc<Child>)]) -> BTreeMap<String, Vec<SocketAddr>> {
    let mut nodes: BTreeMap<String, (BTreeSet<Component>, Vec<SocketAddr>)> = BTreeMap::new();
    for (_, pod) in pods.iter().filter(|(_, pod)| pod.is_ready()) {
        let (Some(node), Some(component), Some(address)) = (pod.node(), pod.component, pod.address()) else { continue };
        let Some(endpoint) = endpoint(component) else { continue };
        let (components, asked) = nodes.entry(node.to_owned()).or_default();
        // Of different parts, as far as there are.
        if asked.len() < ASKED && components.insert(component) {
            asked.push(endpoint.at(address));
        }
    }
    nodes.into_iter().map(|(node, (_, asked))| (node, asked)).collect()
}

/// Where the operator may reach a part.
fn endpoint(component: Component) -> Option<&'static Endpoint> {
    let part = PARTS.iter().find(|part| part.component() == component)?;
    part.endpoints().iter().find(|endpoint| endpoint.open_to.contains(&Outsider::Operator))
}

/// Which nodes are silent: a connection that is refused is an answer, too.
async fn ask(nodes: &BTreeMap<String, Vec<SocketAddr>>) -> BTreeMap<String, bool> {
    let asked = nodes.iter().map(async |(node, addresses)| {
        let silent = join_all(
            addresses.iter().map(async |address| timeout(CONNECT, TcpStream::connect(address)).await.is_err()),
        );
        (node.clone(), silent.await.into_iter().all(|is_silent| is_silent))
    });
    join_all(asked).await.into_iter().collect()
}

/// Whether another one takes its place, wherever it was.
fn is_replaced(pod: &Child) -> bool {
    !pod.is_ending() && !pod.owners.iter().any(|owner| owner.kind == OwnerKind::StatefulSet)
}

async fn delete(client: &Client, namespace: &str, pod: &Child) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let preconditions = Preconditions { uid: Some(pod.uid.to_string()), resource_version: None };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match pods.delete(&pod.name, &parameters).await {
        Ok(_) => info!(pod = &*pod.name, namespace, "a pod of a silent node is replaced"),
        Err(error) => warn!(pod = &*pod.name, namespace, error = describe(&error), "a pod of a silent node stays"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent(nodes: &[(&str, bool)]) -> BTreeMap<String, bool> {
        nodes.iter().map(|(node, is_silent)| ((*node).to_owned(), *is_silent)).collect()
    }

    #[test]
    fn a_node_that_is_silent_three_times_while_another_answers_is_lost_once() {
        let mut nodes = Nodes::default();
        let (one, none) = (silent(&[("a", true), ("b", false)]), silent(&[("a", false), ("b", false)]));
        for _ in 0..6 {
            assert!(nodes.judge(&one).is_empty(), "it may not have let this operator in yet");
        }
        assert!(nodes.judge(&none).is_empty());
        assert!(nodes.judge(&one).is_empty());
        assert!(nodes.judge(&one).is_empty());
        assert_eq!(nodes.judge(&one), ["a"]);
        assert!(nodes.judge(&one).is_empty(), "it is said once");
        assert!(nodes.judge(&none).is_empty());
        assert!(nodes.judge(&one).is_empty());
        assert!(nodes.judge(&one).is_empty());
        assert_eq!(nodes.judge(&one), ["a"], "again");
    }

    #[test]
    fn an_operator_that_reaches_nobody_takes_nobody_for_lost() {
        let mut nodes = Nodes::default();
        let most = silent(&[("a", true), ("b", true), ("c", false)]);
        nodes.judge(&silent(&[("a", false), ("b", false), ("c", false)]));
        for _ in 0..6 {
            assert!(nodes.judge(&most).is_empty());
        }
        for _ in 0..6 {
            assert!(nodes.judge(&silent(&[("a", true)])).is_empty());
        }
    }

    #[test]
    fn every_part_that_the_operator_looks_after_can_be_asked() {
        for component in
            [Component::DATABASE, Component::POOLER, Component::CACHE, Component::SESSIONS, Component::GATEWAY]
        {
            assert!(endpoint(component).is_some(), "{component}");
        }
    }
}
