//! What the nodes of a Redis Cluster have, against what they need; what a lost pod or Kubernetes node would do.

use super::{RedisCluster, Shares, memory};
use crate::{Code, Draft, Finding, findings::Nodes, parts::Part};

pub(super) fn warnings(platform: &Draft, cluster: RedisCluster) -> Vec<Finding> {
    let findings = [volume(platform, cluster), small_memory(platform, cluster), no_failover(platform, cluster)];
    findings.into_iter().flatten().collect()
}

/// What Redis may write, against its volume: the cache a snapshot beside the former one, the sessions a rewritten log beside the former one.
fn volume(platform: &Draft, cluster: RedisCluster) -> Option<Finding> {
    let unit = cluster.unit(platform);
    let (memory, storage) = (unit.resources.memory, unit.storage?.size);
    let what = match cluster {
        RedisCluster::Cache => "snapshots",
        RedisCluster::Sessions => "append-only files",
    };
    let data = Shares::of(cluster, memory).data;
    let needed = 2 * data;
    (storage.as_bytes() < needed << 20).then(|| {
        Finding::new(
            Code::SmallVolume,
            &format!("spec.{}.storage.size", cluster.component()),
            format!("{storage}, but two {what} of the {data} MiB that a node may hold take {needed} MiB"),
            format!("give it {needed}Mi or more, or the nodes less memory"),
        )
    })
}

/// What is left for keys beside what a node of Redis takes before it has one.
fn small_memory(platform: &Draft, cluster: RedisCluster) -> Option<Finding> {
    let (memory, shards) = (cluster.unit(platform).resources.memory, cluster.shards(platform));
    let least = memory::least(cluster, shards);
    (memory < least).then(|| {
        Finding::new(
            Code::RedisMemory,
            &format!("spec.{}.resources.memory", cluster.component()),
            format!(
                "of {memory} a node has less than 1 MiB for keys: the program, replication and what Redis keeps of the node's slots (16384 on {shards} shards) take the rest"
            ),
            format!("give it {least} or more"),
        )
    })
}

fn no_failover(platform: &Draft, cluster: RedisCluster) -> Option<Finding> {
    let component = cluster.component();
    let lost = match cluster {
        RedisCluster::Cache => "its part of the cache is not used",
        RedisCluster::Sessions => "the users whose sessions it has cannot be served",
    };
    (cluster.replicas_per_shard(platform) == 0).then(|| {
        Finding::new(
            Code::NoFailover,
            &format!("spec.{component}.replicasPerShard"),
            format!("no replica could take over from a master: while one is away, {lost}"),
            "give it at least 1",
        )
    })
}

/// A failover is decided by the majority of the masters; they are spread over the nodes as evenly as these allow.
pub(super) fn no_quorum(platform: &Draft, cluster: RedisCluster, nodes: &Nodes) -> Option<Finding> {
    let (masters, nodes) = (cluster.shards(platform), nodes.count());
    let together = (masters + nodes - 1) / nodes;
    if cluster.replicas_per_shard(platform) == 0 || (masters - together) * 2 > masters {
        return None;
    }
    let component = cluster.component();
    Some(Finding::new(
        Code::NoQuorum,
        &format!("spec.{component}.shards"),
        format!(
            "{masters} masters on {nodes} nodes: when the node of {together} of them is lost, the others are no majority, elect no new masters, and wait for the operator to name them"
        ),
        "use at least 3 nodes, or more shards than nodes can hold half of",
    ))
}
