//! The copies of each shard.

use super::{
    cluster::Cluster,
    masters::masters,
    outlook::{Plan, act, stuck, wait},
    step::Step,
};
use crate::keepers::redis::{placement, topology::View};

/// Every shard gets its replicas, on other Kubernetes nodes than its master where possible.
pub(super) fn attach_replicas(cluster: &Cluster<'_>) -> Option<Plan> {
    let masters = masters(cluster);
    let free = free_nodes(cluster, &masters);
    if let Some(keys) = free.iter().find(|index| cluster.view(**index).is_some_and(|v| v.is_master() && v.keys > 0)) {
        return stuck(format!(
            "{} serves no slot but holds keys, so it is not made a replica: delete its PersistentVolumeClaim and the pod if \
             they may go",
            cluster.pod(*keys)
        ));
    }
    let needs: Vec<i64> = masters.iter().map(|master| need(cluster, *master)).collect();
    if free.is_empty() {
        return move_a_replica(cluster, &masters, &needs);
    }
    let places: Vec<_> = free.iter().map(|index| cluster.place(*index)).collect();
    let shards: Vec<_> = masters.iter().map(|master| cluster.place(*master)).collect();
    let steps = placement::attach(&places, &shards, &needs)
        .into_iter()
        .zip(&free)
        .filter_map(|(shard, replica)| Some(Step::Replicate { replica: *replica, master: *masters.get(shard)? }))
        .collect();
    act(steps, format!("making {} replicas", cluster.pods(&free)))
}

/// The nodes that stay and belong to no shard.
fn free_nodes(cluster: &Cluster<'_>, masters: &[usize]) -> Vec<usize> {
    let ids: Vec<_> = masters.iter().filter_map(|master| Some(&cluster.view(*master)?.myself.id)).collect();
    let is_free = |index: usize, view: &View| {
        let attached = view.master().is_some_and(|master| ids.contains(&master));
        cluster.stays(index) && !masters.contains(&index) && !attached && !view.serves()
    };
    cluster.reachable().filter(|(index, _, view)| is_free(*index, view)).map(|(index, ..)| index).collect()
}

/// How many pods that stay a shard lacks; negative where it has more than its due.
fn need(cluster: &Cluster<'_>, master: usize) -> i64 {
    let replicas = cluster.replicas(master);
    let has = replicas.iter().chain([&master]).filter(|index| cluster.stays(**index)).count();
    i64::from(cluster.target.replicas_per_shard) + 1 - i64::try_from(has).unwrap_or(i64::MAX)
}

/// A shard that lacks a replica gets one from a shard that has one too many, one at a time. A shard with its due may pass one
/// on too, where its replica runs beside its own master and would be of more use elsewhere.
fn move_a_replica(cluster: &Cluster<'_>, masters: &[usize], needs: &[i64]) -> Option<Plan> {
    let (position, need) = needs.iter().enumerate().max_by_key(|(_, need)| **need)?;
    if *need <= 0 {
        return None;
    }
    let to = *masters.get(position)?;
    let givers = masters.iter().zip(needs).filter(|(_, need)| **need < 0).map(|(master, _)| *master);
    let spare = givers.flat_map(|from| cluster.replicas(from).into_iter().map(move |replica| (from, replica)));
    let (_, replica) = spare.filter(|(_, replica)| cluster.stays(*replica)).min_by_key(|(from, replica)| {
        let beside_new = cluster.place(*replica).is_some() && cluster.place(*replica) == cluster.place(to);
        let beside_old = cluster.place(*replica).is_some() && cluster.place(*replica) == cluster.place(*from);
        (beside_new, !beside_old, cluster.in_sync(*replica))
    })?;
    act(
        vec![Step::Replicate { replica, master: to }],
        format!("{} becomes a replica of {}", cluster.pod(replica), cluster.pod(to)),
    )
}

/// Every replica receives its master's writes.
pub(super) fn await_replicas(cluster: &Cluster<'_>) -> Option<Plan> {
    let syncing: Vec<usize> = cluster
        .reachable()
        .filter(|(index, _, view)| cluster.stays(*index) && !view.is_master() && !view.replication.link_up)
        .map(|(index, ..)| index)
        .collect();
    if syncing.is_empty() {
        return None;
    }
    wait(format!("{} is copying its master's data", cluster.pods(&syncing)))
}

/// A replica that is in sync by its own account can still lack the keys that its master had before.
pub(super) fn check_copies(cluster: &Cluster<'_>) -> Option<Plan> {
    let (replica, ..) = cluster
        .reachable()
        .find(|(i, _, view)| cluster.stays(*i) && !view.is_master() && cluster.in_sync(*i) && !cluster.is_whole(*i))?;
    stuck(format!(
        "{} follows its master but holds less than half of its keys: delete its PersistentVolumeClaim and the pod, so that it \
         copies them anew",
        cluster.pod(replica)
    ))
}
