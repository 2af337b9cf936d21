//! What a cluster consists of, and what it should be.

use std::net::SocketAddr;

/// The pods of a StatefulSet, as Kubernetes reports them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pods {
    /// How many the StatefulSet runs, whether they are there now or not: the ordinals from 0.
    pub(crate) count: u32,
    /// Those that have an address.
    pub(crate) members: Vec<Member>,
}

/// A pod of the StatefulSet, as Kubernetes reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// The pod's name, which ends in its ordinal.
    pub(crate) pod: String,
    /// Where Redis listens: the pod's IP, whether it is ready or not.
    pub(crate) address: SocketAddr,
    /// The Kubernetes node that the pod runs on.
    pub(crate) node: Option<String>,
    /// Nobody hears of that node any more.
    pub(crate) is_lost: bool,
}

/// What the cluster should be. Its pods are the ordinals from 0; a pod beyond them is about to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// How many masters share the slots.
    pub(crate) shards: u16,
    /// How many replicas each of them has.
    pub(crate) replicas_per_shard: u16,
}

impl Target {
    /// How many pods that takes.
    pub(crate) fn members(&self) -> u32 {
        u32::from(self.shards) * (u32::from(self.replicas_per_shard) + 1)
    }
}
