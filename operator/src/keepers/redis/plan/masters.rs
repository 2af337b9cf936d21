//! Which node leads a shard.

use std::cmp::{Ordering, Reverse};

use taskplatform_blueprint::REDIS_NODE_TIMEOUT_MILLISECONDS;

use super::{
    cluster::{Cluster, is_blank},
    outlook::{Plan, act, stuck, wait},
    step::Step,
};
use crate::keepers::redis::{
    placement::{self, Place},
    slots::SlotSet,
    topology::{Peer, View},
};

/// A dead master's replica takes its place. Redis elects it while a majority of the masters lives; without one, nobody
/// would, and once the master's pod provably runs as another node, or is on a Kubernetes node that is lost, the operator decides.
pub(super) fn replace_dead_masters(cluster: &Cluster<'_>) -> Option<Plan> {
    let living = cluster.owners().len();
    let dead = cluster.dead_owners();
    let masters = living + dead.len();
    let mut heirs = Vec::new();
    for (id, slots) in &dead {
        let candidates = cluster.reachable().filter(|(_, _, view)| view.master() == Some(*id));
        // Where one has to lose what it lags behind, it is the one that lags least.
        let Some((replica, _, view)) =
            candidates.max_by_key(|(index, _, view)| (cluster.stays(*index), view.replication.offset, Reverse(*index)))
        else {
            continue;
        };
        if living > masters / 2 || cluster.all_answer() && view.replication.link_up {
            return wait(format!("{} is about to take over slots {slots}, whose master failed", cluster.pod(replica)));
        }
        heirs.push((replica, slots));
    }
    if !cluster.all_answer_that_can() {
        return None;
    }
    let told: Vec<String> = heirs.iter().map(|(heir, slots)| format!("{} slots {slots}", cluster.pod(*heir))).collect();
    act(
        heirs.into_iter().map(|(replica, _)| Step::TakeOver { replica }).collect(),
        format!(
            "{}: taken over, since the masters are gone, and so is the majority that could elect new ones",
            told.join(", ")
        ),
    )
}

/// The node timeout of masters that are to serve again at once, in milliseconds. Nobody else sets this one, which tells it from theirs.
const HURRIED: u64 = 1000;

/// A master that was among a minority takes no commands for as long as its node timeout, at most 5 s, once it is among a majority, so that it hears
/// of elections that it has missed. Where most masters are on a node that is lost, and the operator has replaced them, there were none: the
/// timeout is made short, and as it was once they serve.
pub(super) fn rejoin(cluster: &Cluster<'_>) -> Option<Plan> {
    let held_up = held_up(cluster);
    let steps =
        cluster.reachable().filter_map(|(on, _, view)| match (held_up.contains(&on), view.node_timeout == HURRIED) {
            (true, false) => Some(Step::SetNodeTimeout { on, milliseconds: HURRIED }),
            (false, true) => Some(Step::SetNodeTimeout { on, milliseconds: REDIS_NODE_TIMEOUT_MILLISECONDS }),
            _ => None,
        });
    let serve = || format!("{} serve again in a moment", cluster.pods(&held_up));
    act(steps.collect(), serve()).or_else(|| if held_up.is_empty() { None } else { wait(serve()) })
}

/// Masters that do not serve yet, though they see all that there are while a Kubernetes node is lost, and have all slots.
fn held_up(cluster: &Cluster<'_>) -> Vec<usize> {
    let is_known = cluster.all_answer_that_can() && !cluster.all_answer();
    if !is_known || !SlotSet::all().difference(&cluster.topology.served()).is_empty() {
        return Vec::new();
    }
    let masters: Vec<_> = cluster.reachable().filter(|(_, _, view)| view.serves()).collect();
    let sees_all = |view: &View| {
        let others = masters.iter().map(|(_, _, other)| &other.myself.id).filter(|id| **id != view.myself.id);
        others.into_iter().all(|id| view.peer(id).is_some_and(Peer::is_alive))
    };
    masters.iter().filter(|(_, _, view)| !view.state_ok && sees_all(view)).map(|(index, ..)| *index).collect()
}

/// The masters that the target asks for: those that serve slots, and empty ones for the shards that are still to come.
pub(super) fn masters(cluster: &Cluster<'_>) -> Vec<usize> {
    let owners = cluster.owners();
    let shards = usize::from(cluster.target.shards);
    let mut blank: Vec<usize> =
        cluster.reachable().filter(|(i, _, view)| cluster.stays(*i) && is_blank(view)).map(|(i, ..)| i).collect();
    // One that has replicas already was chosen before.
    blank.sort_by_key(|index| (Reverse(cluster.replicas(*index).len()), *index));
    let taken: Vec<Place<'_>> = owners.iter().map(|owner| cluster.place(*owner)).collect();
    let places: Vec<Place<'_>> = blank.iter().map(|index| cluster.place(*index)).collect();
    let chosen = placement::choose(&taken, &places, shards.saturating_sub(owners.len()));
    let mut masters = owners;
    masters.extend(chosen.into_iter().filter_map(|position| blank.get(position)));
    masters.sort_unstable();
    masters
}

pub(super) fn too_few_masters(cluster: &Cluster<'_>, found: usize) -> Option<Plan> {
    let shards = cluster.target.shards;
    let keys = cluster.reachable().find(|(i, _, v)| cluster.stays(*i) && v.is_master() && !v.serves() && v.keys > 0);
    match keys {
        Some((index, _, view)) => stuck(format!(
            "{} serves no slot but holds {} keys, so it is not touched: delete its PersistentVolumeClaim and the pod if \
             they may go",
            cluster.pod(index),
            view.keys
        )),
        None => stuck(format!(
            "{shards} shards need {shards} masters, but only {found} are there and the other pods hold replicas: raise \
             replicasPerShard until the new shards have pods of their own, and lower it when they are served"
        )),
    }
}

/// Every shard has a master, and there are no more of them than wanted.
pub(super) fn count_masters(cluster: &Cluster<'_>) -> Option<Plan> {
    let (found, shards) = (masters(cluster).len(), usize::from(cluster.target.shards));
    match found.cmp(&shards) {
        Ordering::Less => too_few_masters(cluster, found),
        Ordering::Equal => None,
        Ordering::Greater => stuck(format!(
            "{found} shards hold slots, more than the {shards} wanted: shards are never merged; set shards: {found}"
        )),
    }
}

/// A pod that is to go hands its slots to a replica that stays.
pub(super) fn drain_surplus(cluster: &Cluster<'_>) -> Option<Plan> {
    let leaving = cluster.owners().into_iter().find(|owner| !cluster.stays(*owner))?;
    let others: Vec<_> =
        cluster.owners().into_iter().filter(|owner| *owner != leaving).map(|owner| cluster.place(owner)).collect();
    let heirs: Vec<usize> =
        cluster.replicas(leaving).into_iter().filter(|heir| cluster.stays(*heir) && cluster.may_lead(*heir)).collect();
    let crowd = |heir: &usize| others.iter().filter(|place| place.is_some() && **place == cluster.place(*heir)).count();
    match heirs.into_iter().min_by_key(crowd) {
        Some(replica) => act(
            vec![Step::Failover { replica }],
            format!("{} takes over from {}, which is to go", cluster.pod(replica), cluster.pod(leaving)),
        ),
        None => wait(format!("{} keeps its slots until a replica that stays is in sync", cluster.pod(leaving))),
    }
}

/// The loss of one Kubernetes node must leave a majority of the masters, or nobody elects new ones.
pub(super) fn spread_masters(cluster: &Cluster<'_>) -> Option<Plan> {
    let owners = cluster.owners();
    let mut hops = Vec::new();
    for owner in &owners {
        let heirs = cluster.replicas(*owner).into_iter().filter(|heir| cluster.stays(*heir) && cluster.may_lead(*heir));
        hops.extend(heirs.map(|heir| (cluster.place(*owner), cluster.place(heir), heir)));
    }
    let masters: Vec<_> = owners.iter().map(|owner| cluster.place(*owner)).collect();
    let all: Vec<_> = (0..cluster.topology.members.len()).map(|index| cluster.place(index)).collect();
    let replica = placement::relieve(&masters, &hops, &all)?;
    act(
        vec![Step::Failover { replica }],
        format!("{} becomes master, so that no Kubernetes node holds a majority of them", cluster.pod(replica)),
    )
}
