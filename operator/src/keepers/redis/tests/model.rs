//! A model of a cluster: what Redis would make of the planned steps, without what gossip and copies take.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::keepers::redis::{
    Member, Target,
    plan::{Outlook, Step, plan},
    slots::{SLOTS, SlotSet},
    topology::{Direction, NodeId, Observed, OpenSlot, Peer, Replication, Role, Topology, View},
};

/// A node of the model. What it knows of others is always right, so the model is a cluster whose gossip has just converged.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) id: String,
    /// None for a node that is no pod any more.
    pub(super) ordinal: Option<u32>,
    pub(super) worker: usize,
    pub(super) slots: SlotSet,
    pub(super) master: Option<String>,
    /// The slots of which it holds keys.
    pub(super) keys: SlotSet,
    pub(super) knows: BTreeSet<String>,
    pub(super) importing: Option<(u16, String)>,
}

#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) nodes: Vec<Node>,
}

impl Model {
    pub(super) fn fresh(pods: u32, kubernetes_nodes: usize) -> Self {
        let node = |ordinal: u32| Node {
            id: format!("node-{ordinal:03}"),
            ordinal: Some(ordinal),
            worker: ordinal as usize % kubernetes_nodes,
            slots: SlotSet::default(),
            master: None,
            keys: SlotSet::default(),
            knows: BTreeSet::new(),
            importing: None,
        };
        Self { nodes: (0..pods).map(node).collect() }
    }

    pub(super) fn formed(target: &Target, kubernetes_nodes: usize) -> Self {
        let mut model = Self::fresh(target.members(), kubernetes_nodes);
        assert_eq!(model.settle(target, |_| ()), Outlook::Settled);
        for node in &mut model.nodes {
            node.keys = node.slots.clone();
        }
        let keys: Vec<(String, SlotSet)> =
            model.nodes.iter().map(|node| (node.id.clone(), node.keys.clone())).collect();
        for node in &mut model.nodes {
            if let Some((_, held)) = keys.iter().find(|(id, _)| node.master.as_ref() == Some(id)) {
                node.keys = held.clone();
            }
        }
        model
    }

    pub(super) fn pods(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| self.nodes[*index].ordinal.is_some()).collect()
    }

    pub(super) fn topology(&self) -> Topology {
        let members: Vec<Observed> = self.pods().into_iter().map(|index| self.observe(&self.nodes[index])).collect();
        Topology { pods: members.iter().map(|observed| observed.ordinal + 1).max().unwrap_or(0), members }
    }

    fn observe(&self, node: &Node) -> Observed {
        let ordinal = node.ordinal.expect("a pod");
        let member = Member {
            pod: format!("redis-{ordinal}"),
            address: address(ordinal),
            node: Some(format!("worker-{}", node.worker)),
            is_lost: false,
        };
        let open = node.importing.iter().map(|(slot, other)| OpenSlot {
            slot: *slot,
            direction: Direction::Importing,
            other: NodeId(other.clone()),
        });
        let view = View {
            myself: peer(node),
            peers: self.nodes.iter().filter(|other| node.knows.contains(&other.id)).map(peer).collect(),
            state_ok: true,
            open: open.collect(),
            keys: u64::from(node.keys.len()),
            held: if node.master.is_none() { node.keys.difference(&node.slots) } else { SlotSet::default() },
            replication: Replication {
                link_up: node.master.is_some(),
                master_host: None,
                offset: u64::from(node.keys.len()),
            },
            memory_used: 0,
            memory_limit: 0,
            node_timeout: 5000,
        };
        Observed { member, ordinal, view: Ok(view) }
    }

    pub(super) fn index(&self, id: &str) -> usize {
        self.nodes.iter().position(|node| node.id == id).expect("a node of the model")
    }

    /// Does what Redis would do, and fails where data would go.
    pub(super) fn apply(&mut self, step: &Step) {
        let pods = self.pods();
        match step {
            Step::Meet { on, peer } => self.meet(pods[*on], pods[*peer]),
            Step::Release { on, slots } => {
                let node = &mut self.nodes[pods[*on]];
                assert!(node.keys.intersection(slots).is_empty(), "slots with keys were released");
                node.slots = node.slots.difference(slots);
            }
            Step::Assign { on, slots } => {
                for node in self.pods().into_iter().map(|index| &self.nodes[index]) {
                    assert!(node.slots.intersection(slots).is_empty(), "assigned twice");
                    assert!(
                        node.id == self.nodes[pods[*on]].id
                            || node.keys.intersection(slots).is_empty()
                            || node.master.is_some()
                    );
                }
                let node = &mut self.nodes[pods[*on]];
                assert!(node.master.is_none());
                node.slots = node.slots.union(slots);
            }
            Step::Replicate { replica, master } => {
                let (id, keys) = (self.nodes[pods[*master]].id.clone(), self.nodes[pods[*master]].keys.clone());
                assert!(self.nodes[pods[*master]].master.is_none(), "a replica cannot be replicated");
                let node = &mut self.nodes[pods[*replica]];
                assert!(node.slots.is_empty() && (node.master.is_some() || node.keys.is_empty()), "a master with data");
                let kept: BTreeSet<u16> = node.keys.difference(&keys).iter().collect();
                node.master = Some(id);
                node.keys = keys;
                for slot in kept {
                    assert!(
                        self.nodes.iter().any(|node| node.keys.contains(slot)),
                        "the last copy of slot {slot} is gone"
                    );
                }
            }
            Step::Forget { on, id } => {
                let node = &mut self.nodes[pods[*on]];
                assert!(node.master.as_deref() != Some(&id.0), "a replica cannot forget its master");
                assert!(node.knows.remove(&id.0));
            }
            Step::Failover { replica } | Step::TakeOver { replica } => self.promote(pods[*replica]),
            Step::SetNodeTimeout { .. } => panic!("no node is lost"),
            Step::Close { on, .. } => self.nodes[pods[*on]].importing = None,
            Step::Migrate { from, to, slots } => {
                let (from, to) = (pods[*from], pods[*to]);
                let moved = self.nodes[from].keys.intersection(slots);
                assert!(self.nodes[from].slots.intersection(slots) == *slots && self.nodes[to].master.is_none());
                self.nodes[from].slots = self.nodes[from].slots.difference(slots);
                self.nodes[from].keys = self.nodes[from].keys.difference(slots);
                self.nodes[to].slots = self.nodes[to].slots.union(slots);
                self.nodes[to].keys = self.nodes[to].keys.union(&moved);
                self.nodes[to].importing = None;
                self.follow();
            }
        }
    }

    pub(super) fn meet(&mut self, a: usize, b: usize) {
        let overlap = self.nodes[a].slots.intersection(&self.nodes[b].slots);
        assert!(overlap.is_empty(), "strangers met that both claim slots {overlap}");
        // Gossip introduces everybody else.
        let mut all: BTreeSet<String> = self.nodes[a].knows.union(&self.nodes[b].knows).cloned().collect();
        all.extend([self.nodes[a].id.clone(), self.nodes[b].id.clone()]);
        for node in self.nodes.iter_mut().filter(|node| all.contains(&node.id)) {
            node.knows = all.iter().filter(|id| **id != node.id).cloned().collect();
        }
    }

    pub(super) fn promote(&mut self, replica: usize) {
        let old = self.nodes[replica].master.take().expect("a replica");
        let old = self.index(&old);
        let (id, old_id) = (self.nodes[replica].id.clone(), self.nodes[old].id.clone());
        self.nodes[replica].slots = std::mem::take(&mut self.nodes[old].slots);
        self.nodes[old].master = Some(id.clone());
        for node in &mut self.nodes {
            if node.master.as_ref() == Some(&old_id) {
                node.master = Some(id.clone());
            }
        }
    }

    /// Replicas get what their masters have.
    fn follow(&mut self) {
        for index in 0..self.nodes.len() {
            if let Some(master) = self.nodes[index].master.clone() {
                self.nodes[index].keys = self.nodes[self.index(&master)].keys.clone();
            }
        }
    }

    /// Plans and applies until nothing is left to do.
    pub(super) fn settle(&mut self, target: &Target, mut seen: impl FnMut(&Step)) -> Outlook {
        for _ in 0..100 {
            let next = plan(&self.topology(), target);
            if next.steps.is_empty() {
                return next.outlook;
            }
            for step in &next.steps {
                seen(step);
                self.apply(step);
            }
        }
        panic!("the plan never ends: {:?}", plan(&self.topology(), target));
    }

    pub(super) fn assert_shape(&self, target: &Target) {
        let masters: Vec<&Node> =
            self.nodes.iter().filter(|node| !node.slots.is_empty() && node.ordinal.is_some()).collect();
        assert_eq!(masters.len(), usize::from(target.shards));
        let total: u32 = masters.iter().map(|node| u32::from(node.slots.len())).sum();
        assert_eq!(total, u32::from(SLOTS));
        for master in masters {
            assert!(master.ordinal < Some(target.members()), "a pod that is to go serves slots");
            assert!(master.slots.len().abs_diff(SLOTS / target.shards) <= 1);
            let stays = |node: &&Node| node.ordinal.is_some_and(|ordinal| ordinal < target.members());
            let replicas =
                self.nodes.iter().filter(stays).filter(|node| node.master.as_ref() == Some(&master.id)).count();
            assert_eq!(replicas, usize::from(target.replicas_per_shard), "{} of {self:#?}", master.id);
        }
    }
}

fn address(ordinal: u32) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(ordinal).expect("small")], 6379))
}

fn peer(node: &Node) -> Peer {
    Peer {
        id: NodeId(node.id.clone()),
        address: node.ordinal.map(address),
        role: node.master.clone().map_or(Role::Master, |master| Role::Replica(NodeId(master))),
        failing: node.ordinal.is_none(),
        connected: node.ordinal.is_some(),
        slots: node.slots.clone(),
    }
}
