//! The topology seen through the target: what the rungs ask.

use std::collections::{BTreeMap, BTreeSet};

use crate::keepers::redis::{
    placement::Place,
    slots::SlotSet,
    target::Target,
    topology::{NodeId, Observed, Peer, Role, Topology, View},
};

/// The topology seen through the target.
pub(super) struct Cluster<'a> {
    pub(super) topology: &'a Topology,
    pub(super) target: &'a Target,
}

impl<'a> Cluster<'a> {
    /// How many pods stay, from ordinal 0.
    pub(super) fn size(&self) -> u32 {
        self.target.members()
    }

    pub(super) fn reachable(&self) -> impl Iterator<Item = (usize, &'a Observed, &'a View)> {
        self.topology.reachable()
    }

    pub(super) fn view(&self, index: usize) -> Option<&'a View> {
        self.topology.view(index)
    }

    pub(super) fn pod(&self, index: usize) -> &'a str {
        self.topology.pod(index)
    }

    pub(super) fn pods(&self, indices: &[usize]) -> String {
        indices.iter().map(|index| self.pod(*index)).collect::<Vec<_>>().join(", ")
    }

    /// Whether the pod stays when the StatefulSet has its target's size.
    pub(super) fn stays(&self, index: usize) -> bool {
        self.topology.members.get(index).is_some_and(|observed| observed.ordinal < self.size())
    }

    pub(super) fn place(&self, index: usize) -> Place<'a> {
        self.topology.members.get(index).and_then(|observed| observed.member.node.as_deref())
    }

    pub(super) fn owners(&self) -> Vec<usize> {
        self.reachable().filter(|(_, _, view)| view.serves()).map(|(index, ..)| index).collect()
    }

    pub(super) fn replicas(&self, master: usize) -> Vec<usize> {
        let Some(id) = self.view(master).map(|view| &view.myself.id) else { return Vec::new() };
        self.reachable().filter(|(_, _, view)| view.master() == Some(id)).map(|(index, ..)| index).collect()
    }

    pub(super) fn in_sync(&self, replica: usize) -> bool {
        self.view(replica).is_some_and(|view| view.replication.link_up)
    }

    /// Whether a replica may take over from a living master: it follows, and it has what it should. A former master that deleted its
    /// keys can follow its old replica without ever copying them.
    pub(super) fn may_lead(&self, replica: usize) -> bool {
        self.in_sync(replica) && self.is_whole(replica)
    }

    /// Whether a replica has about as many keys as its master. Expiry makes no difference worth the name, nor does the moment
    /// between the two questions.
    pub(super) fn is_whole(&self, replica: usize) -> bool {
        const WORTH_A_WORD: u64 = 100;
        let master = self.view(replica).and_then(|view| self.view(self.topology.find(view.master()?)?));
        let (Some(view), Some(master)) = (self.view(replica), master) else { return false };
        master.keys < WORTH_A_WORD || view.keys > master.keys / 2
    }

    /// Nodes that members remember and that no member is.
    pub(super) fn unknown_ids(&self) -> BTreeMap<&'a NodeId, Vec<(usize, &'a Peer)>> {
        let mut unknown: BTreeMap<&NodeId, Vec<(usize, &Peer)>> = BTreeMap::new();
        for (index, _, view) in self.reachable() {
            for peer in view.peers.iter().filter(|peer| self.topology.find(&peer.id).is_none()) {
                unknown.entry(&peer.id).or_default().push((index, peer));
            }
        }
        unknown
    }

    /// What keeps the pods that are to stay from being complete.
    pub(super) fn missing(&self) -> Vec<String> {
        let mut missing: Vec<String> = self
            .topology
            .members
            .iter()
            .filter(|observed| observed.ordinal < self.size())
            .filter_map(|observed| Some((&observed.member.pod, observed.view.as_ref().err()?)))
            .map(|(pod, reason)| format!("{pod} does not answer: {reason}"))
            .collect();
        let absent = self.without_address(self.size());
        missing.extend(absent.iter().map(|ordinal| format!("the pod with ordinal {ordinal} has no address yet")));
        missing
    }

    /// Every pod answers, those that are to go included. Only then is a node that none of them is provably gone, since a
    /// StatefulSet never runs a pod twice.
    pub(super) fn all_answer(&self) -> bool {
        self.all_are(|observed| observed.view.is_ok())
    }

    /// The same, but for the pods on Kubernetes nodes that are lost.
    pub(super) fn all_answer_that_can(&self) -> bool {
        self.all_are(|observed| observed.view.is_ok() || observed.member.is_lost)
    }

    fn all_are(&self, is_such: impl Fn(&Observed) -> bool) -> bool {
        let pods = self.topology.pods.max(self.size());
        self.without_address(pods).is_empty() && self.topology.members.iter().all(is_such)
    }

    /// The ordinals below `pods` whose pods are not there now.
    fn without_address(&self, pods: u32) -> Vec<u32> {
        let present: BTreeSet<u32> = self.topology.members.iter().map(|observed| observed.ordinal).collect();
        (0..pods).filter(|ordinal| !present.contains(ordinal)).collect()
    }

    /// Nodes that are no member and that no member reaches, with the slots that they served.
    pub(super) fn dead_owners(&self) -> BTreeMap<&'a NodeId, SlotSet> {
        self.absent_owners(|peer| !peer.is_alive())
    }

    /// Nodes that are no member, of which every member's opinion is such, with the slots that nobody else serves.
    pub(super) fn absent_owners(&self, is_such: impl Fn(&Peer) -> bool) -> BTreeMap<&'a NodeId, SlotSet> {
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
}

/// A node that serves nothing and holds nothing.
pub(super) fn is_blank(view: &View) -> bool {
    view.myself.role == Role::Master && view.myself.slots.is_empty() && view.keys == 0
}
