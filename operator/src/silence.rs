//! Nodes that fall silent. Kubernetes takes a node for lost some 45 s after it has stopped, and sends users to its pods until then. Where
//! no pod of platforms on a node answers any more while those elsewhere do, the operator deletes the pods without state there: from that
//! moment their Services lead past them. One that was deleted in vain is only a pod more that is replaced. What cannot be taken back, such as a
//! Redis replica that takes over without a vote, waits until Kubernetes has not heard of the node for a while, either: the operator alone may be cut off
//! from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::Pod,
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
};
use taskplatform_blueprint::{Component, Endpoint};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tracing::{info, warn};

use crate::{
    describe,
    world::{Child, Loss, LostNodes, OwnerKind, World},
};

/// How often every node is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// A program that runs answers within this time, or the network between is broken. The kernel of a node whose processes stand still accepts
/// connections.
const ANSWER: Duration = Duration::from_secs(2);
/// How many pods of a node are asked.
const ASKED: usize = 4;
/// How many times in a row a node has to be silent.
const ROUNDS: u32 = 3;
/// The pods of one node are replaced no more often: one that is slow rather than lost would lose them again and again.
const AGAIN: Duration = Duration::from_mins(5);

/// A kubelet renews its node's lease after a quarter of the lease's duration, every 10 s as a rule. One that has not done so for this share of it, in
/// hundredths, has ended, stands still, or reaches nobody.
const UNRENEWED: u32 = 30;
/// Of how many nodes it is asked at once: where more are silent, it is the operator that reaches nobody.
const LEASES: usize = 50;
/// What a lease lasts that does not say.
const LEASE: Duration = Duration::from_secs(40);

/// Looks for as long as the process lives, whether it leads or not: who begins to lead knows which nodes have answered before.
pub(crate) async fn watch(client: Client, world: Arc<World>) {
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let mut nodes = Nodes::default();
    let mut renewals = Renewals::default();
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let questions = questions(&world.pods(), &nodes.lost);
        nodes.judge(&ask(&questions).await);
        let losses = renewals.losses(&leases, &nodes.silent()).await;
        world.note_lost(losses.into_iter().filter(|(node, _)| nodes.lost.contains(node)).collect());
    }
}

/// Replaces the pods of nodes that are lost until the process leads no more.
pub(crate) async fn replace(client: Client, world: Arc<World>) {
    let mut lost = world.lost_nodes();
    let mut before: Arc<LostNodes> = Arc::default();
    let mut replaced: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        let now = Arc::clone(&lost.borrow_and_update());
        let nodes: BTreeSet<&String> = now.keys().chain(before.keys()).collect();
        for node in nodes.into_iter().filter(|node| now.get(*node) != before.get(*node)) {
            world.touch(node);
        }
        for node in now.keys().filter(|node| !before.contains_key(*node)) {
            if replaced.get(node).is_some_and(|at| at.elapsed() < AGAIN) {
                continue;
            }
            replaced.insert(node.clone(), Instant::now());
            let pods = world.pods();
            let left: Vec<_> = pods.iter().filter(|(_, pod)| pod.node() == Some(node) && is_replaced(pod)).collect();
            warn!(node, pods = left.len(), "no pod on the node answers: its pods without state are replaced");
            join_all(left.into_iter().map(|(namespace, pod)| delete(&client, namespace, pod))).await;
        }
        before = now;
        if lost.changed().await.is_err() {
            return;
        }
    }
}

/// What is known of the nodes that have answered: how many times in a row each of them was silent since. One that never has may not let this
/// operator in yet: network policies follow the pods' addresses.
#[derive(Debug, Default)]
struct Nodes {
    silent_rounds: BTreeMap<String, u32>,
    lost: BTreeSet<String>,
}

impl Nodes {
    /// Lost are those that are silent for long enough, while no fewer others answer. Where most are silent, it is the operator that reaches
    /// nobody.
    fn judge(&mut self, silent: &BTreeMap<String, bool>) {
        self.silent_rounds.retain(|node, _| silent.contains_key(node));
        for (node, is_silent) in silent {
            if !is_silent {
                self.silent_rounds.insert(node.clone(), 0);
            } else if let Some(rounds) = self.silent_rounds.get_mut(node) {
                *rounds = rounds.saturating_add(1);
            }
        }
        let answering = silent.values().filter(|is_silent| !**is_silent).count();
        let is_alone = answering < silent.len() - answering;
        let lost = self.silent_rounds.iter().filter(|(_, rounds)| **rounds >= ROUNDS && !is_alone);
        self.lost = lost.map(|(node, _)| node.clone()).collect();
    }

    /// Those that have not answered since, be it that the operator reaches nobody: at most as many as are asked.
    fn silent(&self) -> BTreeSet<&str> {
        let silent = self.silent_rounds.iter().filter(|(_, rounds)| **rounds > 0);
        silent.map(|(node, _)| node.as_str()).take(LEASES).collect()
    }
}

/// When the kubelets of silent nodes renewed their leases last, and since when that is so by this process' own clock: those of nodes may differ.
#[derive(Debug, Default)]
struct Renewals(BTreeMap<String, (Option<Timestamp>, Instant)>);

impl Renewals {
    /// From the first round in which a node is silent: a third one, for which it is lost, comes seconds later.
    async fn losses(&mut self, leases: &Api<Lease>, silent: &BTreeSet<&str>) -> LostNodes {
        self.0.retain(|node, _| silent.contains(node.as_str()));
        let found = join_all(silent.iter().map(|node| lease(leases, node))).await;
        silent.iter().zip(found).map(|(node, lease)| ((*node).to_owned(), self.loss(node, lease))).collect()
    }

    /// How far the node with this lease is lost. Where the API server does not tell, it may have been renewed.
    fn loss(&mut self, node: &str, lease: Option<LeaseSpec>) -> Loss {
        let lasts = lease.as_ref().and_then(|lease| u64::try_from(lease.lease_duration_seconds?).ok());
        let renewed = lease.and_then(|lease| Some(lease.renew_time?.0));
        let now = (renewed, Instant::now());
        let known = self.0.entry(node.to_owned()).or_insert(now);
        if renewed.is_none() || renewed != known.0 {
            *known = now;
        }
        let longest = lasts.map_or(LEASE, Duration::from_secs) * UNRENEWED / 100;
        if known.1.elapsed() >= longest { Loss::Complete } else { Loss::Unreached }
    }
}

async fn lease(leases: &Api<Lease>, node: &str) -> Option<LeaseSpec> {
    match timeout(ANSWER, leases.get(node)).await {
        Ok(Ok(lease)) => lease.spec,
        Ok(Err(error)) => {
            warn!(
                node,
                error = describe(&error),
                "whether Kubernetes hears of a lost node is not known: no Redis replica takes over without a vote"
            );
            None
        }
        Err(_) => None,
    }
}

/// What a pod is asked, and where.
type Question = (SocketAddr, &'static [u8]);

/// What is asked of some pods of each node. Those of a lost node are not ready any more, once Kubernetes has noticed.
fn questions(pods: &[(String, Arc<Child>)], lost: &BTreeSet<String>) -> BTreeMap<String, Vec<Question>> {
    let mut nodes: BTreeMap<String, (BTreeSet<Component>, Vec<Question>)> = BTreeMap::new();
    for (_, pod) in pods {
        let (Some(node), Some(component), Some(address)) = (pod.node(), pod.component, pod.address()) else { continue };
        if !pod.is_ready() && !lost.contains(node) {
            continue;
        }
        let Some((endpoint, question)) = question(component) else { continue };
        let (components, asked) = nodes.entry(node.to_owned()).or_default();
        // Of different parts, as far as there are.
        if asked.len() < ASKED && components.insert(component) {
            asked.push((endpoint.at(address), question));
        }
    }
    nodes.into_iter().map(|(node, (_, asked))| (node, asked)).collect()
}

/// Where the operator may ask a part something that it answers at once, and logs nothing of.
fn question(component: Component) -> Option<(Endpoint, &'static [u8])> {
    match component {
        Component::DATABASE => Some((Endpoint::PATRONI, b"GET /liveness HTTP/1.0\r\n\r\n")),
        Component::GATEWAY => Some((Endpoint::GATEWAY_STATUS, b"GET /healthz HTTP/1.0\r\n\r\n")),
        Component::CACHE => Some((Endpoint::CACHE, b"PING\r\n")),
        Component::SESSIONS => Some((Endpoint::SESSIONS, b"PING\r\n")),
        // It would write each question into its log: it is only connected to.
        Component::POOLER => Some((Endpoint::POOLER_CONSOLE, b"")),
        _ => None,
    }
}

/// Which nodes are silent. A single program may be slow: where there are not two to ask, no more is wanted than that the kernel answers.
async fn ask(nodes: &BTreeMap<String, Vec<Question>>) -> BTreeMap<String, bool> {
    let asked = nodes.iter().map(async |(node, questions)| {
        let programs: Vec<Question> = questions.iter().copied().filter(|(_, question)| !question.is_empty()).collect();
        let answered = if programs.len() < 2 {
            join_all(questions.iter().map(|(address, _)| answers(*address, b""))).await
        } else {
            join_all(programs.iter().map(|(address, question)| answers(*address, question))).await
        };
        (node.clone(), !answered.contains(&true))
    });
    join_all(asked).await.into_iter().collect()
}

/// Whether anything comes back: a connection that is refused or broken off is an answer, too. Where nothing is asked, one that is accepted is.
async fn answers(address: SocketAddr, question: &[u8]) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        if question.is_empty() {
            return Ok(0);
        }
        stream.write_all(question).await?;
        stream.read(&mut [0]).await
    };
    timeout(ANSWER, ask).await.is_ok()
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
    use tokio::net::TcpListener;

    use super::*;

    fn silent(nodes: &[(&str, bool)]) -> BTreeMap<String, bool> {
        nodes.iter().map(|(node, is_silent)| ((*node).to_owned(), *is_silent)).collect()
    }

    #[test]
    fn a_node_that_is_silent_three_times_while_another_answers_is_lost_until_it_answers() {
        let mut nodes = Nodes::default();
        let (one, none) = (silent(&[("a", true), ("b", false)]), silent(&[("a", false), ("b", false)]));
        let mut lost = |round: &BTreeMap<String, bool>, times: usize| {
            (0..times).for_each(|_| nodes.judge(round));
            nodes.lost.clone()
        };
        let a = BTreeSet::from(["a".to_owned()]);
        assert!(lost(&one, 6).is_empty(), "it may not have let this operator in yet");
        assert!(lost(&none, 1).is_empty());
        assert!(lost(&one, 2).is_empty());
        assert_eq!(lost(&one, 1), a);
        assert_eq!(lost(&one, 3), a);
        assert!(lost(&none, 1).is_empty());
        assert!(lost(&one, 2).is_empty());
        assert_eq!(lost(&one, 1), a, "again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_node_is_lost_to_all_once_its_lease_stands_unrenewed_for_long_enough() {
        let lease = |renewed: &str, seconds: i32| -> Option<LeaseSpec> {
            let lease = serde_json::json!({"renewTime": renewed, "leaseDurationSeconds": seconds});
            Some(serde_json::from_value(lease).unwrap())
        };
        let (early, late) = (lease("2026-01-02T03:04:05.000000Z", 40), lease("2026-01-02T03:04:15.000000Z", 40));
        let mut renewals = Renewals::default();
        for (wait, lease, loss) in [
            (0, &early, Loss::Unreached),
            (13, &late, Loss::Unreached),
            (11, &late, Loss::Unreached),
            (2, &late, Loss::Complete),
            (0, &lease("2026-01-02T03:04:15.000000Z", 80), Loss::Unreached),
            (1, &None, Loss::Unreached),
            (13, &None, Loss::Unreached),
        ] {
            tokio::time::advance(Duration::from_secs(wait)).await;
            assert_eq!(renewals.loss("a", lease.clone()), loss, "{lease:?} after {wait} s more");
        }
    }

    #[test]
    fn an_operator_that_reaches_nobody_takes_nobody_for_lost() {
        let mut nodes = Nodes::default();
        let most = silent(&[("a", true), ("b", true), ("c", false)]);
        nodes.judge(&silent(&[("a", false), ("b", false), ("c", false)]));
        for round in [most, silent(&[("a", true)])] {
            (0..6).for_each(|_| nodes.judge(&round));
            assert!(nodes.lost.is_empty());
        }
    }

    #[tokio::test]
    async fn a_program_that_stands_still_does_not_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(!answers(address, b"PING").await, "the kernel has accepted the connection");
        assert!(answers(address, b"").await, "which is enough where nothing is asked");
        drop(listener);
        assert!(answers(address, b"PING").await, "refused");
    }
}
