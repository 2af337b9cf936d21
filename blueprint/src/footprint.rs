//! What a platform asks of the nodes that it runs on.

use taskplatform_crds::{Cpu, Resources, Size};

use crate::{Component, Draft, RedisCluster};

/// The pods of a component, and what each of them asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The component.
    pub component: Component,
    /// How many pods there are.
    pub pods: i32,
    /// CPU of each.
    pub cpu: Cpu,
    /// Memory of each.
    pub memory: Size,
    /// The volume of each; none where it keeps nothing.
    pub volume: Option<Size>,
}

/// What a platform asks for with so many instances of the API, by component.
pub fn footprint(platform: &Draft, api_instances: i32) -> Vec<Load> {
    let spec = platform.spec();
    let load = |component, pods, resources: Resources, volume| Load {
        component,
        pods,
        cpu: resources.cpu,
        memory: resources.memory,
        volume,
    };
    let redis = |cluster: RedisCluster| {
        let volume = Some(cluster.storage(platform).size);
        load(cluster.component(), cluster.nodes(platform), cluster.resources(platform), volume)
    };
    let database = &spec.database;
    vec![
        load(Component::Api, api_instances, spec.api.resources, None),
        load(Component::Gateway, spec.gateway.replicas.get(), spec.gateway.resources, None),
        load(Component::Pooler, spec.pooler.replicas.get(), spec.pooler.resources, None),
        load(Component::Database, platform.database_members(), database.resources, Some(database.storage.size)),
        redis(RedisCluster::Cache),
        redis(RedisCluster::Sessions),
        load(Component::Worker, spec.worker.replicas.get(), spec.worker.resources, None),
    ]
}
