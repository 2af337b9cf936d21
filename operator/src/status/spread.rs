//! What would be lost with a Kubernetes node.

use std::collections::{BTreeMap, BTreeSet};

use taskplatform_blueprint::Component;

use crate::{
    keepers::{Observed, seen},
    world::Snapshot,
};

/// For each node whose loss would interrupt the platform, by its name: what would be lost.
pub(super) fn lost_with_a_node(snapshot: &Snapshot, observed: &Observed) -> BTreeMap<String, Vec<String>> {
    let mut lost = BTreeMap::new();
    let mut note = |node: &str, what: String| lost.entry(node.to_owned()).or_insert_with(Vec::new).push(what);
    for component in Component::all() {
        if let Some((node, pods)) = all_on_one(snapshot, component) {
            note(node, format!("all {pods} pods of {component}"));
        }
    }
    for (component, health) in [(Component::CACHE, &observed.cache), (Component::SESSIONS, &observed.sessions)] {
        let Some(Ok(health)) = seen(health.as_ref()) else { continue };
        let nodes = nodes_of(snapshot, component);
        for (number, shard) in health.shards.iter().enumerate() {
            let replicas = shard.replicas.iter().map(|replica| &*replica.pod);
            let places: BTreeSet<_> = replicas.chain([&*shard.master]).map(|pod| nodes.get(pod)).collect();
            if let (true, Some(Some(node))) = (places.len() == 1 && !shard.replicas.is_empty(), places.first()) {
                note(node, format!("shard {number} of {component} with its replicas"));
            }
        }
    }
    lost
}

/// The node of all pods of a component that has more than one.
fn all_on_one(snapshot: &Snapshot, component: Component) -> Option<(&str, usize)> {
    let nodes: Vec<&str> =
        snapshot.pods(component).filter(|pod| !pod.is_ending()).filter_map(|pod| pod.node()).collect();
    let first = *nodes.first()?;
    (nodes.len() > 1 && nodes.iter().all(|node| *node == first)).then_some((first, nodes.len()))
}

fn nodes_of(snapshot: &Snapshot, component: Component) -> BTreeMap<&str, &str> {
    snapshot.pods(component).filter_map(|pod| Some((&*pod.name, pod.node()?))).collect()
}
