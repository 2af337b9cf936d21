//! Which Kubernetes node should hold which part of a cluster.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The Kubernetes node of a pod, where it is known.
pub(super) type Place<'a> = Option<&'a str>;

/// Chooses `count` of the candidates as masters, each time on the place with the fewest.
pub(super) fn choose(taken: &[Place<'_>], candidates: &[Place<'_>], count: usize) -> Vec<usize> {
    let mut load: BTreeMap<Place<'_>, usize> = BTreeMap::new();
    for place in taken {
        *load.entry(*place).or_default() += 1;
    }
    let mut chosen = Vec::new();
    while chosen.len() < count {
        let left = candidates.iter().enumerate().filter(|(index, _)| !chosen.contains(index));
        let Some((index, place)) = left.min_by_key(|(index, place)| (load.get(*place).copied().unwrap_or(0), *index))
        else {
            break;
        };
        *load.entry(*place).or_default() += 1;
        chosen.push(index);
    }
    chosen
}

/// Gives each free pod a shard: those in need first, and never beside its master where another choice is left. The answer has a
/// shard for every free pod.
pub(super) fn attach(free: &[Place<'_>], shards: &[Place<'_>], needs: &[i64]) -> Vec<usize> {
    let mut needs = needs.to_vec();
    let mut assigned: Vec<usize> = Vec::new();
    for place in free {
        let best = (0..shards.len()).max_by_key(|shard| {
            let need = needs.get(*shard).copied().unwrap_or(0);
            (need, !beside(*place, shards.get(*shard).copied().flatten()), std::cmp::Reverse(*shard))
        });
        let Some(shard) = best else { break };
        if let Some(need) = needs.get_mut(shard) {
            *need -= 1;
        }
        assigned.push(shard);
    }
    exchange(free, shards, &mut assigned);
    assigned
}

/// Exchanges the shards of two pods while that leaves fewer beside their masters.
fn exchange(free: &[Place<'_>], shards: &[Place<'_>], assigned: &mut [usize]) {
    let clash = |pod: usize, shard: usize| {
        usize::from(beside(free.get(pod).copied().flatten(), shards.get(shard).copied().flatten()))
    };
    loop {
        let mut better = None;
        for (a, to_a) in assigned.iter().enumerate() {
            for (b, to_b) in assigned.iter().enumerate().skip(a + 1) {
                if clash(a, *to_b) + clash(b, *to_a) < clash(a, *to_a) + clash(b, *to_b) {
                    better = Some((a, b));
                }
            }
        }
        let Some((a, b)) = better else { return };
        assigned.swap(a, b);
    }
}

fn beside(a: Place<'_>, b: Place<'_>) -> bool {
    a.is_some() && a == b
}

/// The replica that should become master next, where one place holds so many masters that its loss would leave no majority.
/// `hops` are the possible failovers: from a master's place to a replica's. With fewer than three places no choice helps.
pub(super) fn relieve(
    masters: &[Place<'_>],
    hops: &[(Place<'_>, Place<'_>, usize)],
    all: &[Place<'_>],
) -> Option<usize> {
    let places: BTreeSet<&str> = all.iter().copied().flatten().collect();
    if places.len() < 3 || masters.iter().any(Option::is_none) {
        return None;
    }
    let load = |place: &str| masters.iter().filter(|master| **master == Some(place)).count();
    let bearable = masters.len().saturating_sub(1) / 2;
    let crowded = places.iter().copied().filter(|place| load(place) > bearable).max_by_key(|place| load(place))?;
    // A chain of failovers may lead from the crowded place to one with room; its last link comes first, so that no place gets
    // more crowded on the way.
    let mut seen = BTreeSet::from([crowded]);
    let mut queue = VecDeque::from([crowded]);
    while let Some(place) = queue.pop_front() {
        for (from, to, replica) in hops {
            let (Some(from), Some(to)) = (from, to) else { continue };
            if *from != place || !seen.insert(to) {
                continue;
            }
            if load(to) + 1 < load(crowded) {
                return Some(*replica);
            }
            queue.push_back(to);
        }
    }
    None
}
