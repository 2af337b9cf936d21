//! Decides the next steps for a cluster, from what was observed alone: no connection, clock or randomness.
//!
//! The plan is a ladder. Each rung is one thing that has to be right before the next can be looked at, and the first rung
//! that is not right decides: its steps are carried out, the cluster is observed again, and the ladder climbed from the
//! bottom. So a crash at any point leaves nothing to remember, and forming, healing, growing and shrinking are one path.
//!
//! What holds data is never reset, flushed or overwritten. Where two nodes claim the same data, or data would be given up
//! that some pod may still bring back, the plan is [`Outlook::Stuck`] with a message that says what a person can do.

mod cluster;
mod introductions;
mod losses;
mod masters;
mod outlook;
mod replicas;
mod sharding;
mod step;

use super::{target::Target, topology::Topology};
use cluster::Cluster;
pub(super) use outlook::{Outlook, Plan};
pub(super) use step::Step;

/// Answers with what its matter needs, or nothing where that is right.
type Rung = fn(&Cluster<'_>) -> Option<Plan>;

/// The rungs from the bottom to the top.
const LADDER: [Rung; 21] = [
    // A timeout that was made short for a moment stays so for no longer.
    masters::rejoin,
    // Nodes that do not know each other tell nothing of the cluster; but who claims the same slots must not meet.
    introductions::part_strangers,
    introductions::acquaint,
    // While they contradict each other, gossip or a failover is under way, and the next look may show something else.
    introductions::agree,
    introductions::mend_links,
    // A shard without a master serves nobody: it gets one before anything else, whoever else is missing.
    masters::replace_dead_masters,
    // All that follows takes every pod. Only then is what none of them has provably gone.
    losses::await_members,
    losses::give_up_lost_shards,
    losses::forget_the_dead,
    // Every slot is served, and by one node.
    sharding::serve_held_keys,
    sharding::assign_slots,
    sharding::finish_migrations,
    // Every shard has its copies, before anything moves that would need them if it failed.
    masters::count_masters,
    replicas::attach_replicas,
    replicas::await_replicas,
    replicas::check_copies,
    // All is safe. Now where it is: first off the pods that are to go, then evenly over those that stay.
    masters::drain_surplus,
    sharding::balance_slots,
    masters::spread_masters,
    // Nothing is left to do; the nodes may need a moment to find that, too.
    introductions::await_service,
    losses::await_the_unseen,
];

/// The next steps towards the target.
pub(super) fn plan(topology: &Topology, target: &Target) -> Plan {
    let cluster = Cluster { topology, target };
    let first = LADDER.iter().find_map(|rung| rung(&cluster));
    first.unwrap_or(Plan { steps: Vec::new(), outlook: Outlook::Settled })
}
