//! What every member of a cluster says about itself and about the others, as one typed value.
//!
//! No node is the truth. A node's word counts for itself: its id, its role and the slots that it serves. What it says
//! about another is only its opinion, which may be old, and the planner waits until opinions and facts agree.

use std::{fmt, net::SocketAddr};

use super::{slots::SlotSet, target::Member};

/// The id that a node gives itself when it first starts, and keeps in nodes.conf.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NodeId(pub(super) String);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The first characters tell nodes apart, as in `redis-cli --cluster check`.
        f.write_str(self.0.get(..8).unwrap_or(&self.0))
    }
}

/// Every member in the order of its pod's ordinal.
#[derive(Debug, Clone)]
pub(super) struct Topology {
    /// How many pods the StatefulSet runs. Those that are no members have no address now.
    pub(super) pods: u32,
    pub(super) members: Vec<Observed>,
}

/// A member and what it answered.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    pub(super) member: Member,
    /// The number at the end of the pod's name.
    pub(super) ordinal: u32,
    /// What it says, or why it said nothing.
    pub(super) view: Result<View, String>,
}

/// What one node says.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    /// The node itself as CLUSTER NODES shows it.
    pub(super) myself: Peer,
    /// The other nodes that it knows; those whose handshake is still under way are left out, since their id is not theirs yet.
    pub(super) peers: Vec<Peer>,
    /// Whether it says `cluster_state:ok`.
    pub(super) state_ok: bool,
    /// Slots on their way to or from this node.
    pub(super) open: Vec<OpenSlot>,
    /// How many keys it holds.
    pub(super) keys: u64,
    /// Of the slots in question (open, or served by no member): those of which a master holds keys.
    pub(super) held: SlotSet,
    pub(super) replication: Replication,
    pub(super) memory_used: u64,
    /// `maxmemory`; 0 is no limit.
    pub(super) memory_limit: u64,
    /// `cluster-node-timeout`, in milliseconds.
    pub(super) node_timeout: u64,
}

/// One line of CLUSTER NODES.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    /// None where the node lost the address.
    pub(super) address: Option<SocketAddr>,
    pub(super) role: Role,
    /// Failed, or suspected of it.
    pub(super) failing: bool,
    /// Whether the cluster bus is connected.
    pub(super) connected: bool,
    pub(super) slots: SlotSet,
}

impl Peer {
    pub(super) fn is_alive(&self) -> bool {
        self.connected && !self.failing
    }
}

impl Default for Peer {
    fn default() -> Self {
        let id = NodeId(String::new());
        Self { id, address: None, role: Role::Master, failing: false, connected: true, slots: SlotSet::default() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    Master,
    /// Of this master.
    Replica(NodeId),
}

/// A slot in the middle of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenSlot {
    pub(super) slot: u16,
    pub(super) direction: Direction,
    /// The node at the other end.
    pub(super) other: NodeId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Migrating,
    Importing,
}

/// INFO replication: a replica whose link is down still looks connected in CLUSTER NODES.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Replication {
    /// Of a replica: it receives its master's writes.
    pub(super) link_up: bool,
    /// Of a replica: where it looks for its master.
    pub(super) master_host: Option<String>,
    /// How much of the replication stream it has.
    pub(super) offset: u64,
}

impl Topology {
    /// The members that answered, with their index.
    pub(super) fn reachable(&self) -> impl Iterator<Item = (usize, &Observed, &View)> {
        self.members
            .iter()
            .enumerate()
            .filter_map(|(index, observed)| observed.view.as_ref().ok().map(|view| (index, observed, view)))
    }

    pub(super) fn view(&self, index: usize) -> Option<&View> {
        self.members.get(index)?.view.as_ref().ok()
    }

    pub(super) fn pod(&self, index: usize) -> &str {
        self.members.get(index).map_or("", |observed| &observed.member.pod)
    }

    /// The member that runs as this node.
    pub(super) fn find(&self, id: &NodeId) -> Option<usize> {
        self.reachable().find(|(_, _, view)| view.myself.id == *id).map(|(index, ..)| index)
    }

    /// Every slot that a reachable member serves.
    pub(super) fn served(&self) -> SlotSet {
        self.reachable().fold(SlotSet::default(), |served, (_, _, view)| served.union(&view.myself.slots))
    }

    /// The member that serves a slot.
    pub(super) fn owner(&self, slot: u16) -> Option<usize> {
        self.reachable().find(|(_, _, view)| view.myself.slots.contains(slot)).map(|(index, ..)| index)
    }

    /// The slots about which the keys have to be looked at: open ones, and those that no reachable member serves.
    pub(super) fn slots_in_question(&self) -> SlotSet {
        let open = self.reachable().flat_map(|(_, _, view)| view.open.iter().map(|open| open.slot)).collect();
        SlotSet::all().difference(&self.served()).union(&open)
    }
}

impl View {
    pub(super) fn peer(&self, id: &NodeId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.id == *id)
    }

    pub(super) fn is_master(&self) -> bool {
        self.myself.role == Role::Master
    }

    pub(super) fn master(&self) -> Option<&NodeId> {
        match &self.myself.role {
            Role::Master => None,
            Role::Replica(master) => Some(master),
        }
    }

    /// A master that serves slots.
    pub(super) fn serves(&self) -> bool {
        self.is_master() && !self.myself.slots.is_empty()
    }

    /// Reads what a node answered to CLUSTER NODES, CLUSTER INFO, INFO and DBSIZE.
    pub(super) fn parse(nodes: &str, cluster: &str, info: &str, keys: u64) -> Result<Self, String> {
        let mut view = Self { keys, ..Self::default() };
        let mut found = false;
        for line in nodes.lines().filter(|line| !line.trim().is_empty()) {
            let Some((peer, flags, open)) = parse_peer(line) else {
                return Err(format!("CLUSTER NODES answered a line that cannot be read: {line}"));
            };
            if flags.contains(&"myself") {
                found = true;
                view.myself = peer;
                view.open = open;
            } else if !flags.contains(&"handshake") {
                view.peers.push(peer);
            }
        }
        if !found {
            return Err("CLUSTER NODES does not name the node itself".to_owned());
        }
        view.state_ok = field(cluster, "cluster_state") == Some("ok");
        view.replication = parse_replication(info);
        view.memory_used = field(info, "used_memory").and_then(|value| value.parse().ok()).unwrap_or(0);
        view.memory_limit = field(info, "maxmemory").and_then(|value| value.parse().ok()).unwrap_or(0);
        Ok(view)
    }
}

fn parse_replication(info: &str) -> Replication {
    let replica = field(info, "role") == Some("slave");
    let offset = if replica { "slave_repl_offset" } else { "master_repl_offset" };
    Replication {
        link_up: replica && field(info, "master_link_status") == Some("up"),
        master_host: field(info, "master_host").filter(|_| replica).map(str::to_owned),
        offset: field(info, offset).and_then(|value| value.parse().ok()).unwrap_or(0),
    }
}

/// The value of a line `name:value`, as INFO and CLUSTER INFO answer.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
}

/// `id ip:port@cport[,hostname] flags master ping pong epoch link slot…`
fn parse_peer(line: &str) -> Option<(Peer, Vec<&str>, Vec<OpenSlot>)> {
    let mut words = line.split_whitespace();
    let id = NodeId(words.next()?.to_owned());
    let address = words.next()?.split(['@', ',']).next().and_then(parse_address);
    let flags: Vec<&str> = words.next()?.split(',').collect();
    let master = words.next()?;
    let (_ping, _pong, _epoch) = (words.next()?, words.next()?, words.next()?);
    let connected = words.next()? == "connected";
    let mut slots = SlotSet::default();
    let mut open = Vec::new();
    for word in words {
        if let Some(word) = word.strip_prefix('[') {
            open.push(parse_open(word.strip_suffix(']')?)?);
        } else {
            let (start, end) = word.split_once('-').unwrap_or((word, word));
            (start.parse().ok()?..=end.parse().ok()?).for_each(|slot| slots.insert(slot));
        }
    }
    let peer = Peer {
        id,
        address: address.filter(|_| !flags.contains(&"noaddr")),
        role: if master == "-" { Role::Master } else { Role::Replica(NodeId(master.to_owned())) },
        failing: flags.iter().any(|flag| ["fail", "fail?"].contains(flag)),
        connected,
        slots,
    };
    Some((peer, flags, open))
}

/// `ip:port`, where an IPv6 address has no brackets.
fn parse_address(address: &str) -> Option<SocketAddr> {
    let (ip, port) = address.rsplit_once(':')?;
    Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
}

/// `slot->-id` while migrating, `slot-<-id` while importing.
fn parse_open(word: &str) -> Option<OpenSlot> {
    let (direction, (slot, other)) = match word.split_once("->-") {
        Some(parts) => (Direction::Migrating, parts),
        None => (Direction::Importing, word.split_once("-<-")?),
    };
    Some(OpenSlot { slot: slot.parse().ok()?, direction, other: NodeId(other.to_owned()) })
}
