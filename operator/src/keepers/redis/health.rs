//! How a cluster is.

use super::{
    plan::Outlook,
    slots::SlotSet,
    target::Target,
    topology::{Topology, View},
};

/// How a cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    /// The shards in the order of their slots.
    pub(crate) shards: Vec<Shard>,
    /// How many of the 16384 slots are served.
    pub(crate) slots_assigned: u16,
    /// There are pods beyond the target, and what stays without them is all that the target asks for: every slot served, every replica
    /// in sync, and no node alive that was not asked. The StatefulSet may shrink to this target. It says nothing about a smaller one.
    pub(crate) surplus_drained: bool,
    /// What that adds up to.
    pub(crate) state: State,
}

/// A master with its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shard {
    /// The master's pod.
    pub(crate) master: String,
    /// Its replicas in the order of their ordinals.
    pub(crate) replicas: Vec<Replica>,
    /// How many slots it serves.
    pub(crate) slots: u16,
    /// Bytes that the master uses.
    pub(crate) memory_used: u64,
    /// Bytes that it may use; 0 is no limit.
    pub(crate) memory_limit: u64,
}

/// A replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replica {
    /// Its pod.
    pub(crate) pod: String,
    /// It receives its master's writes.
    pub(crate) in_sync: bool,
}

/// What a cluster's health adds up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// As the target says.
    Healthy,
    /// On the way there.
    Working {
        /// What is going on.
        message: String,
    },
    /// It takes Kubernetes or a person to go on.
    Degraded {
        /// What is wrong, and the way out.
        message: String,
    },
}

impl Health {
    pub(super) fn new(topology: &Topology, target: &Target, outlook: Outlook) -> Self {
        let mut masters: Vec<(u16, Shard)> = topology
            .reachable()
            .filter(|(_, _, view)| view.serves())
            .map(|(_, observed, view)| (first(&view.myself.slots), shard(topology, &observed.member.pod, view)))
            .collect();
        masters.sort_by_key(|(slot, _)| *slot);
        Self {
            shards: masters.into_iter().map(|(_, shard)| shard).collect(),
            slots_assigned: topology.served().len(),
            surplus_drained: outlook == Outlook::Settled && topology.pods > target.members(),
            state: match outlook {
                Outlook::Settled => State::Healthy,
                Outlook::Working(message) | Outlook::Incomplete(message) => State::Working { message },
                Outlook::Stuck(message) => State::Degraded { message },
            },
        }
    }
}

fn first(slots: &SlotSet) -> u16 {
    slots.iter().next().unwrap_or(0)
}

fn shard(topology: &Topology, pod: &str, view: &View) -> Shard {
    let replicas = topology.reachable().filter(|(_, _, other)| other.master() == Some(&view.myself.id));
    Shard {
        master: pod.to_owned(),
        replicas: replicas
            .map(|(_, observed, view)| Replica { pod: observed.member.pod.clone(), in_sync: view.replication.link_up })
            .collect(),
        slots: view.myself.slots.len(),
        memory_used: view.memory_used,
        memory_limit: view.memory_limit,
    }
}
