//! What can be done to a cluster.

use std::fmt;

use crate::keepers::redis::{
    slots::SlotSet,
    topology::{NodeId, Topology},
};

/// One change of the cluster. Members are named by their index in the [`Topology`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::keepers::redis) enum Step {
    /// CLUSTER MEET: `on` learns where `peer` is now.
    Meet { on: usize, peer: usize },
    /// CLUSTER DELSLOTSRANGE: an empty node gives up a claim.
    Release { on: usize, slots: SlotSet },
    /// CLUSTER ADDSLOTSRANGE.
    Assign { on: usize, slots: SlotSet },
    /// CLUSTER REPLICATE.
    Replicate { replica: usize, master: usize },
    /// CLUSTER FORGET.
    Forget { on: usize, id: NodeId },
    /// CLUSTER FAILOVER: the replica and its living master agree on the change, and no write is lost.
    Failover { replica: usize },
    /// CLUSTER FAILOVER TAKEOVER: for a master that is gone, where no majority is left to elect a new one.
    TakeOver { replica: usize },
    /// CONFIG SET cluster-node-timeout: for a moment, or as it should be.
    SetNodeTimeout { on: usize, milliseconds: u64 },
    /// CLUSTER SETSLOT STABLE: a leftover of a migration that is not going on.
    Close { on: usize, slots: SlotSet },
    /// The whole migration of these slots with their keys.
    Migrate { from: usize, to: usize, slots: SlotSet },
}

impl Step {
    /// To introduce nodes that are introduced already changes nothing, nor does a node's timeout for a moment.
    pub(in crate::keepers::redis) fn is_harmless(&self) -> bool {
        matches!(self, Self::Meet { .. } | Self::SetNodeTimeout { .. })
    }

    /// The step in words, with the names of the pods.
    pub(in crate::keepers::redis) fn sentence<'a>(&'a self, topology: &'a Topology) -> Sentence<'a> {
        Sentence { step: self, topology }
    }
}

/// See [`Step::sentence`].
pub(in crate::keepers::redis) struct Sentence<'a> {
    step: &'a Step,
    topology: &'a Topology,
}

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pod = |index: &usize| self.topology.pod(*index);
        match self.step {
            Step::Meet { on, peer } => write!(f, "introducing {} to {}", pod(on), pod(peer)),
            Step::Release { on, slots } => write!(f, "releasing slots {slots} of the empty {}", pod(on)),
            Step::Assign { on, slots } => write!(f, "assigning slots {slots} to {}", pod(on)),
            Step::Replicate { replica, master } => write!(f, "making {} a replica of {}", pod(replica), pod(master)),
            Step::Forget { on, id } => write!(f, "forgetting node {id} on {}", pod(on)),
            Step::Failover { replica } => write!(f, "failing over to {}", pod(replica)),
            Step::TakeOver { replica } => write!(f, "letting {} take over without a vote", pod(replica)),
            Step::SetNodeTimeout { on, milliseconds } => {
                write!(f, "setting the node timeout of {} to {milliseconds} ms", pod(on))
            }
            Step::Close { on, slots } => write!(f, "closing slots {slots} on {}", pod(on)),
            Step::Migrate { from, to, slots } => write!(f, "moving slots {slots} from {} to {}", pod(from), pod(to)),
        }
    }
}
