//! What a pod took with it, and when it is given up.

use std::collections::BTreeMap;

use super::{
    cluster::{Cluster, is_blank},
    outlook::{Plan, act, await_pods, stuck, wait},
    step::Step,
};
use crate::keepers::redis::{
    slots::SlotSet,
    topology::{NodeId, Peer},
};

/// Beyond this rung every pod is there.
pub(super) fn await_members(cluster: &Cluster<'_>) -> Option<Plan> {
    let missing = cluster.missing();
    if missing.is_empty() {
        return None;
    }
    let absent = cluster.absent_owners(|_| true);
    let alive = cluster.absent_owners(Peer::is_alive);
    let served = alive.values().fold(cluster.topology.served(), |served, slots| served.union(slots));
    let uncovered = SlotSet::all().difference(&served);
    let formed = !(cluster.owners().is_empty() && absent.is_empty());
    let served = match (formed, uncovered.is_empty()) {
        (false, _) => {
            return await_pods(format!("the cluster is formed once every pod is there: {}", missing.join("; ")));
        }
        (true, true) => "every slot is served".to_owned(),
        (true, false) => format!(
            "slots {uncovered} are served by no node until it is back; if its volume is gone for good, delete its \
             PersistentVolumeClaim and the pod, and an empty node takes its place"
        ),
    };
    stuck(format!("{}; {served}", missing.join("; ")))
}

/// A shard of which no copy is left: every pod runs as another node, and nobody replicates the lost one. Its data is gone;
/// forgetting the node frees its slots for an empty one. Keys of these slots on any node forbid it.
pub(super) fn give_up_lost_shards(cluster: &Cluster<'_>) -> Option<Plan> {
    let dead = cluster.absent_owners(|_| true);
    if dead.is_empty() {
        return None;
    }
    if !cluster.all_answer() || dead.len() > cluster.dead_owners().len() {
        return stuck(format!(
            "slots {} are served by a node that does not answer the operator, and is no pod that stays",
            dead.values().fold(SlotSet::default(), |slots, more| slots.union(more))
        ));
    }
    let lost = dead.values().fold(SlotSet::default(), |lost, slots| lost.union(slots));
    if let Some(rest) = what_is_left(cluster, &dead, &lost) {
        return Some(rest);
    }
    let spare = cluster.reachable().filter(|(index, _, view)| cluster.stays(*index) && is_blank(view)).count();
    if spare == 0 {
        return stuck(format!(
            "slots {lost} lost every copy of their data, and no pod is empty to serve them anew: delete the pod that lost \
             its volume, or add replicas"
        ));
    }
    let ids: Vec<_> = dead.keys().copied().collect();
    forget(cluster, &ids, &format!("slots {lost} lost every copy of their data; an empty node will serve them"))
}

/// Whoever still has something of lost shards.
fn what_is_left(cluster: &Cluster<'_>, dead: &BTreeMap<&NodeId, SlotSet>, lost: &SlotSet) -> Option<Plan> {
    let mut copies = cluster.reachable().filter(|(_, _, view)| view.master().is_some_and(|id| dead.contains_key(id)));
    if let Some((replica, ..)) = copies.next() {
        return wait(format!("{} holds the only copy of a lost node's data", cluster.pod(replica)));
    }
    let (index, _, view) = cluster.reachable().find(|(_, _, view)| !view.held.intersection(lost).is_empty())?;
    stuck(format!(
        "slots {lost} lost their nodes, but {} still holds keys of slots {}: inspect them with CLUSTER GETKEYSINSLOT, \
         then give it those slots with CLUSTER ADDSLOTS, or delete these keys",
        cluster.pod(index),
        view.held.intersection(lost)
    ))
}

/// Nodes that no pod is any more, and that serve nothing.
pub(super) fn forget_the_dead(cluster: &Cluster<'_>) -> Option<Plan> {
    if !cluster.all_answer() {
        return None;
    }
    let ids: Vec<_> = cluster
        .unknown_ids()
        .into_iter()
        // Whoever is connected to it would be talking to a node that lives outside this StatefulSet.
        .filter(|(_, opinions)| !opinions.iter().any(|(_, peer)| peer.is_alive()))
        .map(|(id, _)| id)
        .collect();
    forget(cluster, &ids, "forgetting nodes that no longer exist")
}

fn forget(cluster: &Cluster<'_>, ids: &[&NodeId], message: &str) -> Option<Plan> {
    let mut orphans = Vec::new();
    let mut steps = Vec::new();
    for (on, _, view) in cluster.reachable() {
        if view.master().is_some_and(|master| ids.contains(&master)) {
            // A replica cannot forget its master; give it another first.
            orphans.push(on);
        }
        let known = ids.iter().filter(|id| view.peer(id).is_some());
        steps.extend(known.map(|id| Step::Forget { on, id: (*id).clone() }));
    }
    if orphans.is_empty() {
        return act(steps, message);
    }
    let owners = cluster.owners();
    let steps = orphans
        .iter()
        .filter_map(|replica| {
            let master = *owners.iter().min_by_key(|owner| cluster.replicas(**owner).len())?;
            Some(Step::Replicate { replica: *replica, master })
        })
        .collect();
    act(steps, format!("giving {} a living master", cluster.pods(&orphans)))
}

/// Nobody is left of whom the operator does not know what it holds. A pod that is to go and that Kubernetes does not run now
/// need not come back for that: those that stay serve every slot.
pub(super) fn await_the_unseen(cluster: &Cluster<'_>) -> Option<Plan> {
    for observed in &cluster.topology.members {
        if let Err(reason) = &observed.view {
            return wait(format!("{} is to go, but does not answer: {reason}", observed.member.pod));
        }
    }
    let unknown = cluster.unknown_ids();
    let (id, _) = unknown.iter().find(|(_, opinions)| opinions.iter().any(|(_, peer)| peer.is_alive()))?;
    wait(format!("node {id} is no pod of the StatefulSet, but still connected; it is forgotten when it is gone"))
}
