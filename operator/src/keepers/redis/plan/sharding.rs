//! Which master serves which slots.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    cluster::Cluster,
    masters::{masters, too_few_masters},
    outlook::{Plan, act, stuck},
    step::Step,
};
use crate::keepers::redis::{
    slots::{SLOTS, SlotSet},
    topology::Direction,
};

/// Slots that nobody serves go to the master that holds keys of them, whatever became of the one that served them.
pub(super) fn serve_held_keys(cluster: &Cluster<'_>) -> Option<Plan> {
    let unserved = unserved(cluster);
    let (on, slots) = cluster.reachable().find_map(|(index, _, view)| {
        let slots = view.held.intersection(&unserved);
        (view.is_master() && !slots.is_empty()).then_some((index, slots))
    })?;
    let rival = cluster.reachable().find(|(i, _, view)| *i != on && !view.held.intersection(&slots).is_empty());
    if let Some((rival, ..)) = rival {
        return stuck(format!(
            "{} and {} both hold keys of slots {slots}, which no node serves: delete these keys on one of them",
            cluster.pod(on),
            cluster.pod(rival)
        ));
    }
    let message = format!("giving {} the slots of which it holds keys", cluster.pod(on));
    act(vec![Step::Assign { on, slots }], message)
}

/// Slots that nobody serves and nobody remembers serving: the first forming, or one that was interrupted.
pub(super) fn assign_slots(cluster: &Cluster<'_>) -> Option<Plan> {
    let unserved = unserved(cluster);
    if unserved.is_empty() {
        return None;
    }
    let masters = masters(cluster);
    if masters.len() < usize::from(cluster.target.shards) {
        return too_few_masters(cluster, masters.len());
    }
    act(deal_out(cluster, &unserved, &masters), format!("assigning slots {unserved}"))
}

fn unserved(cluster: &Cluster<'_>) -> SlotSet {
    SlotSet::all().difference(&cluster.topology.served())
}

fn deal_out(cluster: &Cluster<'_>, slots: &SlotSet, masters: &[usize]) -> Vec<Step> {
    let mut rest = slots.iter();
    let mut steps = Vec::new();
    for (index, on) in masters.iter().enumerate() {
        let has = cluster.view(*on).map_or(0, |view| view.myself.slots.len());
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
    steps
}

/// Migrations that were interrupted go on where they stopped.
pub(super) fn finish_migrations(cluster: &Cluster<'_>) -> Option<Plan> {
    let mut moves: BTreeMap<(usize, usize), SlotSet> = BTreeMap::new();
    let mut leftovers: BTreeMap<usize, SlotSet> = BTreeMap::new();
    let open: BTreeSet<u16> =
        cluster.reachable().flat_map(|(_, _, view)| view.open.iter().map(|open| open.slot)).collect();
    for slot in open {
        let Some(owner) = cluster.topology.owner(slot) else { continue };
        let destination = destination(cluster, slot, owner);
        if let Some(to) = destination {
            moves.entry((owner, to)).or_default().insert(slot);
        }
        for (on, ..) in cluster.reachable().filter(|(_, _, view)| view.open.iter().any(|open| open.slot == slot)) {
            let part_of_it = destination.is_some_and(|to| on == to || on == owner);
            let confused = on == owner && is_open(cluster, on, slot, Direction::Importing);
            if !part_of_it || confused {
                leftovers.entry(on).or_default().insert(slot);
            }
        }
    }
    let closes = leftovers.into_iter().map(|(on, slots)| Step::Close { on, slots });
    let moves = moves.into_iter().map(|((from, to), slots)| Step::Migrate { from, to, slots });
    act(closes.chain(moves).collect(), "finishing a migration of slots that was interrupted")
}

fn is_open(cluster: &Cluster<'_>, on: usize, slot: u16, direction: Direction) -> bool {
    let mut open = cluster.view(on).into_iter().flat_map(|view| &view.open);
    open.any(|open| open.slot == slot && open.direction == direction)
}

/// Where an open slot was going: its owner knows, or the node that imports it does, or the keys that are there already tell
/// (the state of a migration does not outlive a failover, the keys do).
fn destination(cluster: &Cluster<'_>, slot: u16, owner: usize) -> Option<usize> {
    let others = || cluster.reachable().filter(|(index, _, view)| *index != owner && view.is_master());
    let told =
        cluster.view(owner)?.open.iter().find(|open| open.slot == slot && open.direction == Direction::Migrating);
    let told = told.and_then(|open| cluster.topology.find(&open.other));
    told.filter(|to| others().any(|(index, ..)| index == *to))
        .or_else(|| others().find(|(i, ..)| is_open(cluster, *i, slot, Direction::Importing)).map(|(i, ..)| i))
        .or_else(|| others().find(|(_, _, view)| view.held.contains(slot)).map(|(index, ..)| index))
}

/// Every master serves its share of the slots.
pub(super) fn balance_slots(cluster: &Cluster<'_>) -> Option<Plan> {
    let dues = dues(cluster);
    // The highest slots go, so that each shard keeps one range.
    let mut spare: Vec<(usize, Vec<u16>)> =
        dues.iter().map(|(master, slots, due)| (*master, slots.iter().skip(usize::from(*due)).collect())).collect();
    let mut steps = Vec::new();
    let mut count = 0;
    for (to, slots, due) in dues {
        let mut room = usize::from(due.saturating_sub(slots.len()));
        for (from, spare) in &mut spare {
            let slots: SlotSet = spare.drain(..room.min(spare.len())).collect();
            room = room.saturating_sub(usize::from(slots.len()));
            count += slots.len();
            if !slots.is_empty() {
                steps.push(Step::Migrate { from: *from, to, slots });
            }
        }
    }
    act(steps, format!("moving {count} slots to where there are too few"))
}

/// The masters with the slots that they serve and how many these should be. The larger shares are for those with the most slots
/// already, so that nothing moves for the rounding alone.
fn dues<'a>(cluster: &Cluster<'a>) -> Vec<(usize, &'a SlotSet, u16)> {
    let masters = masters(cluster);
    let served = masters.iter().filter_map(|master| Some((*master, &cluster.view(*master)?.myself.slots)));
    let mut ranked: Vec<_> = served.collect();
    ranked.sort_by_key(|(master, slots)| (Reverse(slots.len()), *master));
    let dues = (0..).map(|rank| share(masters.len(), rank));
    ranked.into_iter().zip(dues).map(|((master, slots), due)| (master, slots, due)).collect()
}

/// How many slots the master of this rank serves.
fn share(masters: usize, rank: usize) -> u16 {
    let Ok(masters) = u16::try_from(masters.max(1)) else { return 0 };
    SLOTS / masters + u16::from(rank < usize::from(SLOTS % masters))
}
