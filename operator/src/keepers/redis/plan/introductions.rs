//! What the nodes know of each other.

use super::{
    cluster::Cluster,
    outlook::{Plan, act, stuck, wait},
    step::Step,
};
use crate::keepers::redis::{
    slots::SlotSet,
    topology::{Direction, View},
};

/// Strangers that claim the same slots must not meet: Redis would let the one with the higher epoch win, and the other would
/// delete its keys. An empty one gives up its claim first, and whoever knew of the claim forgets it: a node's friends defend
/// its claim as it does itself.
pub(super) fn part_strangers(cluster: &Cluster<'_>) -> Option<Plan> {
    let mut steps = Vec::new();
    for (a, _, first) in cluster.reachable().filter(|(_, _, view)| view.serves()) {
        for (b, _, second) in cluster.reachable().filter(|(b, _, second)| *b != a && !acquainted(first, second)) {
            let both = first.myself.slots.intersection(&second.myself.slots);
            if both.is_empty() {
                if let Some(slots) = idle_claims(cluster, first, second) {
                    steps.push(Step::Release { on: b, slots });
                }
            } else if first.keys > 0 && second.keys > 0 {
                return stuck(format!(
                    "{} and {} both hold keys and claim slots {both}, but belong to different clusters: joining them would \
                     delete keys; keep one: delete the PersistentVolumeClaim and the pod of the other",
                    cluster.pod(a),
                    cluster.pod(b)
                ));
            } else if second.keys == 0 && (first.keys > 0 || a < b) {
                steps.push(Step::Release { on: b, slots: both });
            }
        }
    }
    act(steps, "joining parts that were formed apart")
}

/// The slots that `owner` serves and of which the other, which never heard of it, thinks that they belong to a node that does
/// not claim them any more.
fn idle_claims(cluster: &Cluster<'_>, owner: &View, other: &View) -> Option<SlotSet> {
    if owner.peer(&other.myself.id).is_some() || other.peer(&owner.myself.id).is_some() {
        return None;
    }
    let remembered = other.peers.iter().fold(SlotSet::default(), |slots, peer| {
        let claimed =
            cluster.topology.find(&peer.id).and_then(|index| cluster.view(index)).map(|view| &view.myself.slots);
        slots.union(&claimed.map_or_else(|| peer.slots.clone(), |claimed| peer.slots.difference(claimed)))
    });
    let idle = remembered.intersection(&owner.myself.slots);
    (!idle.is_empty()).then_some(idle)
}

/// Every member has to know every other at the address that its pod has now.
pub(super) fn acquaint(cluster: &Cluster<'_>) -> Option<Plan> {
    let mut steps = Vec::new();
    for (on, _, view) in cluster.reachable() {
        for (peer, observed, other) in cluster.reachable().filter(|(peer, ..)| *peer != on) {
            let known = view.peer(&other.myself.id);
            let current = known.is_some_and(|known| known.address == Some(observed.member.address));
            // One of two strangers is enough to begin with.
            let strangers = known.is_none() && other.peer(&view.myself.id).is_none();
            if !(current || strangers && on > peer) {
                steps.push(Step::Meet { on, peer });
            }
        }
    }
    act(steps, "introducing the nodes to each other")
}

/// What nodes think of each other has to be what they say of themselves: until then a failover is under way, or gossip is.
pub(super) fn agree(cluster: &Cluster<'_>) -> Option<Plan> {
    for (on, _, view) in cluster.reachable() {
        for (about, _, other) in cluster.reachable().filter(|(about, ..)| *about != on) {
            let Some(opinion) = view.peer(&other.myself.id) else { continue };
            let (observer, pod) = (cluster.pod(on), cluster.pod(about));
            if opinion.failing {
                return wait(format!("{observer} takes {pod} for failed; waiting for it to see that it is back"));
            }
            if !opinion.connected {
                return wait(format!("{observer} is connecting to {pod}"));
            }
            // A node believes nothing that it hears of a slot while it imports it.
            let imported = view.open.iter().filter(|open| open.direction == Direction::Importing);
            let imported: SlotSet = imported.map(|open| open.slot).collect();
            let heard = |slots: &SlotSet| slots.difference(&imported);
            if opinion.role != other.myself.role || heard(&opinion.slots) != heard(&other.myself.slots) {
                return wait(format!("{observer} has not yet heard of a change of {pod}"));
            }
        }
    }
    None
}

/// A replica can learn its master's new address by gossip and go on replicating from the old one.
pub(super) fn mend_links(cluster: &Cluster<'_>) -> Option<Plan> {
    let steps = cluster
        .reachable()
        .filter(|(_, _, view)| !view.replication.link_up)
        .filter_map(|(replica, _, view)| {
            let master = cluster.topology.find(view.master()?)?;
            let address = cluster.topology.members.get(master)?.member.address.ip();
            let looks_at = view.replication.master_host.as_ref()?.parse().ok();
            (looks_at != Some(address)).then_some(Step::Replicate { replica, master })
        })
        .collect();
    act(steps, "pointing replicas at their masters' new addresses")
}

/// The nodes themselves take the cluster for complete.
pub(super) fn await_service(cluster: &Cluster<'_>) -> Option<Plan> {
    let (index, ..) = cluster.reachable().find(|(_, _, view)| !view.state_ok)?;
    wait(format!("{} does not yet take the cluster for complete", cluster.pod(index)))
}

/// Whether each has heard of the other.
fn acquainted(a: &View, b: &View) -> bool {
    a.peer(&b.myself.id).is_some() && b.peer(&a.myself.id).is_some()
}
