//! Decides the next steps for a cluster, from what was observed alone: no connection, clock or randomness.
//!
//! The plan is a ladder. Each rung is one thing that has to be right before the next can be looked at, and the first rung
//! that is not right decides: its steps are carried out, the cluster is observed again, and the ladder climbed from the
//! bottom. So a crash at any point leaves nothing to remember, and forming, healing, growing and shrinking are one path.
//!
//! What holds data is never reset, flushed or overwritten. Where two nodes claim the same data, or data would be given up
//! that some pod may still bring back, the plan is [`Outlook::Stuck`] with a message that says what a person can do.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Target,
    placement::{self, Place},
    slots::{SLOTS, SlotSet},
    topology::{Direction, NodeId, Observed, Peer, Role, Topology, View},
};

/// What to do next, and what it means for the cluster's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) outlook: Outlook,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outlook {
    /// Everything is as the target says.
    Settled,
    /// The steps lead on, or time alone does.
    Working(String),
    /// Pods are still to come; nothing changes before Kubernetes has them.
    Incomplete(String),
    /// It takes Kubernetes or a person to go on.
    Stuck(String),
}

/// One change of the cluster. Members are named by their index in the [`Topology`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
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
    /// CLUSTER SETSLOT STABLE: a leftover of a migration that is not going on.
    Close { on: usize, slots: SlotSet },
    /// The whole migration of these slots with their keys.
    Migrate { from: usize, to: usize, slots: SlotSet },
}

impl Step {
    /// To introduce nodes that are introduced already changes nothing.
    pub(super) fn is_harmless(&self) -> bool {
        matches!(self, Self::Meet { .. })
    }
}

/// The next steps towards the target.
pub(super) fn plan<'a>(topology: &'a Topology, target: &'a Target) -> Plan {
    let cluster = Cluster { topology, target };
    let rungs: [fn(&Cluster<'a>) -> Option<Plan>; 15] = [
        Cluster::part_strangers,
        Cluster::acquaint,
        Cluster::agree,
        Cluster::replace_dead_masters,
        Cluster::await_members,
        Cluster::give_up_lost_shards,
        Cluster::forget_the_dead,
        Cluster::assign_slots,
        Cluster::finish_migrations,
        Cluster::attach_replicas,
        Cluster::await_replicas,
        Cluster::check_copies,
        Cluster::drain_surplus,
        Cluster::balance_slots,
        Cluster::spread_masters,
    ];
    rungs
        .iter()
        .find_map(|rung| rung(&cluster))
        .or_else(|| cluster.await_service())
        .unwrap_or(Plan { steps: Vec::new(), outlook: Outlook::Settled })
}

/// Steps, if there are any.
fn act(steps: Vec<Step>, message: impl Into<String>) -> Option<Plan> {
    (!steps.is_empty()).then(|| Plan { steps, outlook: Outlook::Working(message.into()) })
}

#[expect(clippy::unnecessary_wraps, reason = "as every rung answers")]
fn wait(message: impl Into<String>) -> Option<Plan> {
    Some(Plan { steps: Vec::new(), outlook: Outlook::Working(message.into()) })
}

#[expect(clippy::unnecessary_wraps, reason = "as every rung answers")]
fn stuck(message: impl Into<String>) -> Option<Plan> {
    Some(Plan { steps: Vec::new(), outlook: Outlook::Stuck(message.into()) })
}

/// The topology seen through the target.
struct Cluster<'a> {
    topology: &'a Topology,
    target: &'a Target,
}

impl<'a> Cluster<'a> {
    /// How many pods stay, from ordinal 0.
    fn size(&self) -> u32 {
        self.target.members()
    }

    fn reachable(&self) -> impl Iterator<Item = (usize, &'a Observed, &'a View)> {
        self.topology.reachable()
    }

    fn view(&self, index: usize) -> Option<&'a View> {
        self.topology.view(index)
    }

    fn pod(&self, index: usize) -> &'a str {
        self.topology.pod(index)
    }

    fn pods(&self, indices: &[usize]) -> String {
        indices.iter().map(|index| self.pod(*index)).collect::<Vec<_>>().join(", ")
    }

    /// Whether the pod stays when the StatefulSet has its target's size.
    fn stays(&self, index: usize) -> bool {
        self.topology.members.get(index).is_some_and(|observed| observed.ordinal < self.size())
    }

    fn place(&self, index: usize) -> Place<'a> {
        self.topology.members.get(index).and_then(|observed| observed.member.node.as_deref())
    }

    fn owners(&self) -> Vec<usize> {
        self.reachable().filter(|(_, _, view)| view.serves()).map(|(index, ..)| index).collect()
    }

    fn replicas(&self, master: usize) -> Vec<usize> {
        let Some(id) = self.view(master).map(|view| &view.myself.id) else { return Vec::new() };
        self.reachable().filter(|(_, _, view)| view.master() == Some(id)).map(|(index, ..)| index).collect()
    }

    fn in_sync(&self, replica: usize) -> bool {
        self.view(replica).is_some_and(|view| view.replication.link_up)
    }

    /// Whether a replica may take over from a living master: it follows, and it has what it should. A former master that deleted its
    /// keys can follow its old replica without ever copying them.
    fn may_lead(&self, replica: usize) -> bool {
        self.in_sync(replica) && self.is_whole(replica)
    }

    /// Whether a replica has about as many keys as its master. Expiry makes no difference worth the name, nor does the moment
    /// between the two questions.
    fn is_whole(&self, replica: usize) -> bool {
        const WORTH_A_WORD: u64 = 100;
        let master = self.view(replica).and_then(|view| self.view(self.topology.find(view.master()?)?));
        let (Some(view), Some(master)) = (self.view(replica), master) else { return false };
        master.keys < WORTH_A_WORD || view.keys > master.keys / 2
    }

    /// Nodes that members remember and that no member is.
    fn unknown_ids(&self) -> BTreeMap<&'a NodeId, Vec<(usize, &'a Peer)>> {
        let mut unknown: BTreeMap<&NodeId, Vec<(usize, &Peer)>> = BTreeMap::new();
        for (index, _, view) in self.reachable() {
            for peer in view.peers.iter().filter(|peer| self.topology.find(&peer.id).is_none()) {
                unknown.entry(&peer.id).or_default().push((index, peer));
            }
        }
        unknown
    }

    /// What keeps the pods that are to stay from being complete.
    fn missing(&self) -> Vec<String> {
        let mut missing: Vec<String> = self
            .topology
            .members
            .iter()
            .filter(|observed| observed.ordinal < self.size())
            .filter_map(|observed| Some((&observed.member.pod, observed.view.as_ref().err()?)))
            .map(|(pod, reason)| format!("{pod} does not answer: {reason}"))
            .collect();
        let present: BTreeSet<u32> = self.topology.members.iter().map(|observed| observed.ordinal).collect();
        let absent = (0..self.size()).filter(|ordinal| !present.contains(ordinal));
        missing.extend(absent.map(|ordinal| format!("the pod with ordinal {ordinal} has no address yet")));
        missing
    }

    /// Every pod answers, those that are to go included. Only then is a node that none of them is provably gone, since a
    /// StatefulSet never runs a pod twice.
    fn all_answer(&self) -> bool {
        self.missing().is_empty() && self.topology.members.iter().all(|observed| observed.view.is_ok())
    }

    /// Strangers that claim the same slots must not meet: Redis would let the one with the higher epoch win, and the other would
    /// delete its keys. An empty one gives up its claim first, and whoever knew of the claim forgets it: a node's friends defend
    /// its claim as it does itself.
    fn part_strangers(&self) -> Option<Plan> {
        let mut steps = Vec::new();
        for (a, _, first) in self.reachable().filter(|(_, _, view)| view.serves()) {
            for (b, _, second) in self.reachable().filter(|(b, _, second)| *b != a && !acquainted(first, second)) {
                let both = first.myself.slots.intersection(&second.myself.slots);
                if both.is_empty() {
                    if let Some(slots) = self.idle_claims(first, second) {
                        steps.push(Step::Release { on: b, slots });
                    }
                } else if first.keys > 0 && second.keys > 0 {
                    return stuck(format!(
                        "{} and {} both hold keys and claim slots {both}, but belong to different clusters: joining them would \
                         delete keys; keep one: delete the PersistentVolumeClaim and the pod of the other",
                        self.pod(a),
                        self.pod(b)
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
    fn idle_claims(&self, owner: &View, other: &View) -> Option<SlotSet> {
        if owner.peer(&other.myself.id).is_some() || other.peer(&owner.myself.id).is_some() {
            return None;
        }
        let remembered = other.peers.iter().fold(SlotSet::default(), |slots, peer| {
            let claimed =
                self.topology.find(&peer.id).and_then(|index| self.view(index)).map(|view| &view.myself.slots);
            slots.union(&claimed.map_or_else(|| peer.slots.clone(), |claimed| peer.slots.difference(claimed)))
        });
        let idle = remembered.intersection(&owner.myself.slots);
        (!idle.is_empty()).then_some(idle)
    }

    /// Every member has to know every other at the address that its pod has now.
    fn acquaint(&self) -> Option<Plan> {
        let mut steps = Vec::new();
        for (on, _, view) in self.reachable() {
            for (peer, observed, other) in self.reachable().filter(|(peer, ..)| *peer != on) {
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
    fn agree(&self) -> Option<Plan> {
        for (on, _, view) in self.reachable() {
            for (about, _, other) in self.reachable().filter(|(about, ..)| *about != on) {
                let Some(opinion) = view.peer(&other.myself.id) else { continue };
                let (observer, pod) = (self.pod(on), self.pod(about));
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
        self.mend_links()
    }

    /// A replica can learn its master's new address by gossip and go on replicating from the old one.
    fn mend_links(&self) -> Option<Plan> {
        let steps = self
            .reachable()
            .filter(|(_, _, view)| !view.replication.link_up)
            .filter_map(|(replica, _, view)| {
                let master = self.topology.find(view.master()?)?;
                let address = self.topology.members.get(master)?.member.address.ip();
                let looks_at = view.replication.master_host.as_ref()?.parse().ok();
                (looks_at != Some(address)).then_some(Step::Replicate { replica, master })
            })
            .collect();
        act(steps, "pointing replicas at their masters' new addresses")
    }

    /// A dead master's replica takes its place. Redis elects it while a majority of the masters lives; without one, nobody
    /// would, and once the master's pod provably runs as another node the operator decides.
    fn replace_dead_masters(&self) -> Option<Plan> {
        let living = self.owners().len();
        let dead = self.dead_owners();
        let masters = living + dead.len();
        for (id, slots) in &dead {
            let candidates = self.reachable().filter(|(_, _, view)| view.master() == Some(*id));
            // Where one has to lose what it lags behind, it is the one that lags least.
            let Some((replica, _, view)) = candidates.max_by_key(|(index, _, view)| {
                (self.stays(*index), view.replication.offset, std::cmp::Reverse(*index))
            }) else {
                continue;
            };
            if living > masters / 2 || self.all_answer() && view.replication.link_up {
                return wait(format!("{} is about to take over slots {slots}, whose master failed", self.pod(replica)));
            }
            if self.all_answer() {
                return act(
                    vec![Step::TakeOver { replica }],
                    format!(
                        "{} takes over slots {slots}: their master is gone, and so is the majority that could elect a new one",
                        self.pod(replica)
                    ),
                );
            }
        }
        None
    }

    /// Nodes that are no member and that no member reaches, with the slots that they served.
    fn dead_owners(&self) -> BTreeMap<&'a NodeId, SlotSet> {
        self.absent_owners(|peer| peer.failing || !peer.connected)
    }

    /// Nodes that are no member, of which every member's opinion is such, with the slots that nobody else serves.
    fn absent_owners(&self, is_such: impl Fn(&Peer) -> bool) -> BTreeMap<&'a NodeId, SlotSet> {
        let served = self.topology.served();
        let unknown = self.unknown_ids().into_iter();
        let such = unknown.filter(|(_, opinions)| opinions.iter().all(|(_, peer)| is_such(peer)));
        such.map(|(id, opinions)| {
            let claimed = opinions.iter().fold(SlotSet::default(), |claimed, (_, peer)| claimed.union(&peer.slots));
            (id, claimed.difference(&served))
        })
        .filter(|(_, slots)| !slots.is_empty())
        .collect()
    }

    /// Beyond this rung every pod is there.
    fn await_members(&self) -> Option<Plan> {
        let missing = self.missing();
        if missing.is_empty() {
            return None;
        }
        let absent = self.absent_owners(|_| true);
        let alive = self.absent_owners(|peer| peer.connected && !peer.failing);
        let served = alive.values().fold(self.topology.served(), |served, slots| served.union(slots));
        let uncovered = SlotSet::all().difference(&served);
        let formed = !(self.owners().is_empty() && absent.is_empty());
        let served = match (formed, uncovered.is_empty()) {
            (false, _) => {
                let message = format!("the cluster is formed once every pod is there: {}", missing.join("; "));
                return Some(Plan { steps: Vec::new(), outlook: Outlook::Incomplete(message) });
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
    fn give_up_lost_shards(&self) -> Option<Plan> {
        let dead = self.absent_owners(|_| true);
        if dead.is_empty() {
            return None;
        }
        if !self.all_answer() || dead.len() > self.dead_owners().len() {
            return stuck(format!(
                "slots {} are served by a node that does not answer the operator, and is no pod that stays",
                dead.values().fold(SlotSet::default(), |slots, more| slots.union(more))
            ));
        }
        if let Some((replica, ..)) =
            self.reachable().find(|(_, _, view)| view.master().is_some_and(|id| dead.contains_key(id)))
        {
            return wait(format!("{} holds the only copy of a lost node's data", self.pod(replica)));
        }
        let lost = dead.values().fold(SlotSet::default(), |lost, slots| lost.union(slots));
        if let Some((index, _, view)) = self.reachable().find(|(_, _, view)| !view.held.intersection(&lost).is_empty())
        {
            return stuck(format!(
                "slots {lost} lost their nodes, but {} still holds keys of slots {}: inspect them with CLUSTER GETKEYSINSLOT, \
                 then give it those slots with CLUSTER ADDSLOTS, or delete these keys",
                self.pod(index),
                view.held.intersection(&lost)
            ));
        }
        let spare = self.reachable().filter(|(index, _, view)| self.stays(*index) && is_blank(view)).count();
        if spare == 0 {
            return stuck(format!(
                "slots {lost} lost every copy of their data, and no pod is empty to serve them anew: delete the pod that lost \
                 its volume, or add replicas"
            ));
        }
        let ids: Vec<_> = dead.keys().copied().collect();
        self.forget(&ids, &format!("slots {lost} lost every copy of their data; an empty node will serve them"))
    }

    /// Nodes that no pod is any more, and that serve nothing.
    fn forget_the_dead(&self) -> Option<Plan> {
        if !self.all_answer() {
            return None;
        }
        let ids: Vec<_> = self
            .unknown_ids()
            .into_iter()
            // Whoever is connected to it would be talking to a node that lives outside this StatefulSet.
            .filter(|(_, opinions)| opinions.iter().all(|(_, peer)| !peer.connected || peer.failing))
            .map(|(id, _)| id)
            .collect();
        self.forget(&ids, "forgetting nodes that no longer exist")
    }

    fn forget(&self, ids: &[&NodeId], message: &str) -> Option<Plan> {
        let mut orphans = Vec::new();
        let mut steps = Vec::new();
        for (on, _, view) in self.reachable() {
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
        let owners = self.owners();
        let steps = orphans
            .iter()
            .filter_map(|replica| {
                let master = *owners.iter().min_by_key(|owner| self.replicas(**owner).len())?;
                Some(Step::Replicate { replica: *replica, master })
            })
            .collect();
        act(steps, format!("giving {} a living master", self.pods(&orphans)))
    }

    /// The masters that the target asks for: those that serve slots, and empty ones for the shards that are still to come.
    fn masters(&self) -> Vec<usize> {
        let owners = self.owners();
        let shards = usize::from(self.target.shards);
        let mut blank: Vec<usize> =
            self.reachable().filter(|(i, _, view)| self.stays(*i) && is_blank(view)).map(|(i, ..)| i).collect();
        // One that has replicas already was chosen before.
        blank.sort_by_key(|index| (std::cmp::Reverse(self.replicas(*index).len()), *index));
        let taken: Vec<Place<'_>> = owners.iter().map(|owner| self.place(*owner)).collect();
        let places: Vec<Place<'_>> = blank.iter().map(|index| self.place(*index)).collect();
        let chosen = placement::choose(&taken, &places, shards.saturating_sub(owners.len()));
        let mut masters = owners;
        masters.extend(chosen.into_iter().filter_map(|position| blank.get(position)));
        masters.sort_unstable();
        masters
    }

    /// Slots that nobody serves and nobody remembers serving: the first forming, or one that was interrupted.
    fn assign_slots(&self) -> Option<Plan> {
        let unserved = SlotSet::all().difference(&self.topology.served());
        if unserved.is_empty() {
            return None;
        }
        let held = self.reachable().find_map(|(index, _, view)| {
            let slots = view.held.intersection(&unserved);
            (view.is_master() && !slots.is_empty()).then_some((index, slots))
        });
        if let Some((on, slots)) = held {
            let rival = self.reachable().find(|(i, _, view)| *i != on && !view.held.intersection(&slots).is_empty());
            if let Some((rival, ..)) = rival {
                return stuck(format!(
                    "{} and {} both hold keys of slots {slots}, which no node serves: delete these keys on one of them",
                    self.pod(on),
                    self.pod(rival)
                ));
            }
            let message = format!("giving {} the slots of which it holds keys", self.pod(on));
            return act(vec![Step::Assign { on, slots }], message);
        }
        let masters = self.masters();
        if masters.len() < usize::from(self.target.shards) {
            return self.too_few_masters(masters.len());
        }
        let mut rest = unserved.iter();
        let mut steps = Vec::new();
        for (index, on) in masters.iter().enumerate() {
            let has = self.view(*on).map_or(0, |view| view.myself.slots.len());
            let room = share(masters.len(), index).saturating_sub(has);
            let slots: SlotSet = rest.by_ref().take(usize::from(room)).collect();
            if !slots.is_empty() {
                steps.push(Step::Assign { on: *on, slots });
            }
        }
        // Masters with more than their share leave too little room only where there are none to spare.
        let left: SlotSet = rest.collect();
        if let Some(Step::Assign { slots, .. }) = steps.last_mut() {
            *slots = slots.union(&left);
        } else if let Some(on) = masters.last() {
            steps.push(Step::Assign { on: *on, slots: left });
        }
        act(steps, format!("assigning slots {unserved}"))
    }

    fn too_few_masters(&self, found: usize) -> Option<Plan> {
        let shards = self.target.shards;
        let keys = self.reachable().find(|(i, _, v)| self.stays(*i) && v.is_master() && !v.serves() && v.keys > 0);
        match keys {
            Some((index, _, view)) => stuck(format!(
                "{} serves no slot but holds {} keys, so it is not touched: delete its PersistentVolumeClaim and the pod if \
                 they may go",
                self.pod(index),
                view.keys
            )),
            None => stuck(format!(
                "{shards} shards need {shards} masters, but only {found} are there and the other pods hold replicas: raise \
                 replicasPerShard until the new shards have pods of their own, and lower it when they are served"
            )),
        }
    }

    /// Migrations that were interrupted go on where they stopped.
    fn finish_migrations(&self) -> Option<Plan> {
        let mut moves: BTreeMap<(usize, usize), SlotSet> = BTreeMap::new();
        let mut leftovers: BTreeMap<usize, SlotSet> = BTreeMap::new();
        let open: BTreeSet<u16> =
            self.reachable().flat_map(|(_, _, view)| view.open.iter().map(|open| open.slot)).collect();
        for slot in open {
            let Some(owner) = self.topology.owner(slot) else { continue };
            let destination = self.destination(slot, owner);
            if let Some(to) = destination {
                moves.entry((owner, to)).or_default().insert(slot);
            }
            for (on, ..) in self.reachable().filter(|(_, _, view)| view.open.iter().any(|open| open.slot == slot)) {
                let part_of_it = destination.is_some_and(|to| on == to || on == owner);
                let confused = on == owner && self.is_open(on, slot, Direction::Importing);
                if !part_of_it || confused {
                    leftovers.entry(on).or_default().insert(slot);
                }
            }
        }
        let closes = leftovers.into_iter().map(|(on, slots)| Step::Close { on, slots });
        let moves = moves.into_iter().map(|((from, to), slots)| Step::Migrate { from, to, slots });
        act(closes.chain(moves).collect(), "finishing a migration of slots that was interrupted")
    }

    fn is_open(&self, on: usize, slot: u16, direction: Direction) -> bool {
        let mut open = self.view(on).into_iter().flat_map(|view| &view.open);
        open.any(|open| open.slot == slot && open.direction == direction)
    }

    /// Where an open slot was going: its owner knows, or the node that imports it does, or the keys that are there already tell
    /// (the state of a migration does not outlive a failover, the keys do).
    fn destination(&self, slot: u16, owner: usize) -> Option<usize> {
        let others = || self.reachable().filter(|(index, _, view)| *index != owner && view.is_master());
        let told =
            self.view(owner)?.open.iter().find(|open| open.slot == slot && open.direction == Direction::Migrating);
        let told = told.and_then(|open| self.topology.find(&open.other));
        told.filter(|to| others().any(|(index, ..)| index == *to))
            .or_else(|| others().find(|(i, ..)| self.is_open(*i, slot, Direction::Importing)).map(|(i, ..)| i))
            .or_else(|| others().find(|(_, _, view)| view.held.contains(slot)).map(|(index, ..)| index))
    }

    /// Every shard gets its replicas, on other Kubernetes nodes than its master where possible.
    fn attach_replicas(&self) -> Option<Plan> {
        let masters = self.masters();
        if masters.len() != usize::from(self.target.shards) {
            return self.wrong_number_of_masters(masters.len());
        }
        let ids: Vec<_> = masters.iter().filter_map(|master| Some(&self.view(*master)?.myself.id)).collect();
        let is_free = |index: usize, view: &View| {
            let attached = view.master().is_some_and(|master| ids.contains(&master));
            self.stays(index) && !masters.contains(&index) && !attached && !view.serves()
        };
        let free: Vec<_> = self.reachable().filter(|(index, _, view)| is_free(*index, view)).map(|(i, ..)| i).collect();
        if let Some(keys) = free.iter().find(|index| self.view(**index).is_some_and(|v| v.is_master() && v.keys > 0)) {
            return stuck(format!(
                "{} serves no slot but holds keys, so it is not made a replica: delete its PersistentVolumeClaim and the pod if \
                 they may go",
                self.pod(*keys)
            ));
        }
        let needs: Vec<i64> = masters.iter().map(|master| self.need(*master)).collect();
        if free.is_empty() {
            return self.move_a_replica(&masters, &needs);
        }
        let places: Vec<_> = free.iter().map(|index| self.place(*index)).collect();
        let shards: Vec<_> = masters.iter().map(|master| self.place(*master)).collect();
        let steps = placement::attach(&places, &shards, &needs)
            .into_iter()
            .zip(&free)
            .filter_map(|(shard, replica)| Some(Step::Replicate { replica: *replica, master: *masters.get(shard)? }))
            .collect();
        act(steps, format!("making {} replicas", self.pods(&free)))
    }

    fn wrong_number_of_masters(&self, found: usize) -> Option<Plan> {
        let shards = usize::from(self.target.shards);
        if found < shards {
            return self.too_few_masters(found);
        }
        stuck(format!(
            "{found} shards hold slots, more than the {shards} wanted: shards are never merged; set shards: {found}"
        ))
    }

    /// How many pods that stay a shard lacks; negative where it has more than its due.
    fn need(&self, master: usize) -> i64 {
        let replicas = self.replicas(master);
        let has = replicas.iter().chain([&master]).filter(|index| self.stays(**index)).count();
        i64::from(self.target.replicas_per_shard) + 1 - i64::try_from(has).unwrap_or(i64::MAX)
    }

    /// A shard that lacks a replica gets one from a shard that has one too many, one at a time. A shard with its due may pass one
    /// on too, where its replica runs beside its own master and would be of more use elsewhere.
    fn move_a_replica(&self, masters: &[usize], needs: &[i64]) -> Option<Plan> {
        let (position, need) = needs.iter().enumerate().max_by_key(|(_, need)| **need)?;
        if *need <= 0 {
            return None;
        }
        let to = *masters.get(position)?;
        let givers = masters.iter().zip(needs).filter(|(_, need)| **need < 0).map(|(master, _)| *master);
        let spare = givers.flat_map(|from| self.replicas(from).into_iter().map(move |replica| (from, replica)));
        let (_, replica) = spare.filter(|(_, replica)| self.stays(*replica)).min_by_key(|(from, replica)| {
            let beside_new = self.place(*replica).is_some() && self.place(*replica) == self.place(to);
            let beside_old = self.place(*replica).is_some() && self.place(*replica) == self.place(*from);
            (beside_new, !beside_old, self.in_sync(*replica))
        })?;
        act(
            vec![Step::Replicate { replica, master: to }],
            format!("{} becomes a replica of {}", self.pod(replica), self.pod(to)),
        )
    }

    fn await_replicas(&self) -> Option<Plan> {
        let syncing: Vec<usize> = self
            .reachable()
            .filter(|(index, _, view)| self.stays(*index) && !view.is_master() && !view.replication.link_up)
            .map(|(index, ..)| index)
            .collect();
        if syncing.is_empty() {
            return None;
        }
        wait(format!("{} is copying its master's data", self.pods(&syncing)))
    }

    fn check_copies(&self) -> Option<Plan> {
        let (replica, ..) = self
            .reachable()
            .find(|(i, _, view)| self.stays(*i) && !view.is_master() && self.in_sync(*i) && !self.is_whole(*i))?;
        stuck(format!(
            "{} follows its master but holds less than half of its keys: delete its PersistentVolumeClaim and the pod, so that it \
             copies them anew",
            self.pod(replica)
        ))
    }

    /// A pod that is to go hands its slots to a replica that stays.
    fn drain_surplus(&self) -> Option<Plan> {
        let leaving = self.owners().into_iter().find(|owner| !self.stays(*owner))?;
        let others: Vec<_> =
            self.owners().into_iter().filter(|owner| *owner != leaving).map(|owner| self.place(owner)).collect();
        let heirs: Vec<usize> =
            self.replicas(leaving).into_iter().filter(|heir| self.stays(*heir) && self.may_lead(*heir)).collect();
        let crowd =
            |heir: &usize| others.iter().filter(|place| place.is_some() && **place == self.place(*heir)).count();
        match heirs.into_iter().min_by_key(crowd) {
            Some(replica) => act(
                vec![Step::Failover { replica }],
                format!("{} takes over from {}, which is to go", self.pod(replica), self.pod(leaving)),
            ),
            None => wait(format!("{} keeps its slots until a replica that stays is in sync", self.pod(leaving))),
        }
    }

    /// Every master serves its share of the slots.
    fn balance_slots(&self) -> Option<Plan> {
        let masters = self.masters();
        let mut givers = Vec::new();
        let mut takers = Vec::new();
        // The larger shares go to those with the most slots already, so that nothing moves for the rounding alone.
        let mut ranked: Vec<(usize, &SlotSet)> =
            masters.iter().filter_map(|master| Some((*master, &self.view(*master)?.myself.slots))).collect();
        ranked.sort_by_key(|(master, slots)| (std::cmp::Reverse(slots.len()), *master));
        for (rank, (master, slots)) in ranked.iter().enumerate() {
            let due = share(ranked.len(), rank);
            if slots.len() > due {
                // The highest slots go, so that each shard keeps one range.
                givers.push((*master, slots.iter().skip(usize::from(due)).collect::<Vec<u16>>()));
            } else if slots.len() < due {
                takers.push((*master, usize::from(due - slots.len())));
            }
        }
        let mut steps = Vec::new();
        for (to, mut room) in takers {
            for (from, spare) in &mut givers {
                let slots: SlotSet = spare.drain(..room.min(spare.len())).collect();
                room = room.saturating_sub(usize::from(slots.len()));
                if !slots.is_empty() {
                    steps.push(Step::Migrate { from: *from, to, slots });
                }
            }
        }
        let count: usize =
            steps.iter().map(|step| if let Step::Migrate { slots, .. } = step { slots.len().into() } else { 0 }).sum();
        act(steps, format!("moving {count} slots to where there are too few"))
    }

    /// The loss of one Kubernetes node must leave a majority of the masters, or nobody elects new ones.
    fn spread_masters(&self) -> Option<Plan> {
        let owners = self.owners();
        let mut hops = Vec::new();
        for owner in &owners {
            let heirs = self.replicas(*owner).into_iter().filter(|heir| self.stays(*heir) && self.may_lead(*heir));
            hops.extend(heirs.map(|heir| (self.place(*owner), self.place(heir), heir)));
        }
        let masters: Vec<_> = owners.iter().map(|owner| self.place(*owner)).collect();
        let all: Vec<_> = (0..self.topology.members.len()).map(|index| self.place(index)).collect();
        let replica = placement::relieve(&masters, &hops, &all)?;
        act(
            vec![Step::Failover { replica }],
            format!("{} becomes master, so that no Kubernetes node holds a majority of them", self.pod(replica)),
        )
    }

    fn await_service(&self) -> Option<Plan> {
        if let Some((index, ..)) = self.reachable().find(|(_, _, view)| !view.state_ok) {
            return wait(format!("{} does not yet take the cluster for complete", self.pod(index)));
        }
        let id = *self.unknown_ids().keys().next()?;
        wait(format!("node {id} is no pod of the StatefulSet, but still connected; it is forgotten when it is gone"))
    }
}

/// Whether each has heard of the other.
fn acquainted(a: &View, b: &View) -> bool {
    a.peer(&b.myself.id).is_some() && b.peer(&a.myself.id).is_some()
}

/// A node that serves nothing and holds nothing.
fn is_blank(view: &View) -> bool {
    view.myself.role == Role::Master && view.myself.slots.is_empty() && view.keys == 0
}

/// How many slots the master of this rank serves.
fn share(masters: usize, rank: usize) -> u16 {
    let Ok(masters) = u16::try_from(masters.max(1)) else { return 0 };
    SLOTS / masters + u16::from(rank < usize::from(SLOTS % masters))
}
