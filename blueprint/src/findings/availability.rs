//! What a lost pod, a lost node or a drain would do.

use super::{Code, Finding, Nodes};
use crate::{Draft, RedisCluster};

pub(super) fn warnings(platform: &Draft, nodes: Option<&Nodes>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = single_pods(platform).collect();
    if platform.spec().database.read_replicas.get() == 0 {
        findings.push(Finding::new(
            Code::NoFailover,
            "spec.database.readReplicas",
            "there is no replica that could take over from the primary: when it is lost, the platform waits until it is back".to_owned(),
            "give it at least 1",
        ));
    }
    for cluster in [RedisCluster::Cache, RedisCluster::Sessions] {
        findings.extend(no_redis_failover(platform, cluster));
        findings.extend(nodes.and_then(|nodes| no_quorum(platform, cluster, nodes)));
    }
    findings
}

/// Components of one pod: a drain interrupts them, since their disruption budget lets it go.
fn single_pods(platform: &Draft) -> impl Iterator<Item = Finding> {
    let spec = platform.spec();
    let pods = [
        ("spec.scaling.minInstances", "the API", spec.scaling.min_instances.get()),
        ("spec.gateway.replicas", "the gateway", spec.gateway.replicas.get()),
        ("spec.pooler.replicas", "the pooler", spec.pooler.replicas.get()),
    ];
    pods.into_iter().filter(|(_, _, pods)| *pods == 1).map(|(field, what, _)| {
        Finding::new(
            Code::SinglePod,
            field,
            format!("{what} may be one pod: nothing serves while it moves to another node"),
            "give it at least 2",
        )
    })
}

fn no_redis_failover(platform: &Draft, cluster: RedisCluster) -> Option<Finding> {
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
fn no_quorum(platform: &Draft, cluster: RedisCluster, nodes: &Nodes) -> Option<Finding> {
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
            "{masters} masters on {nodes} nodes: when the node of {together} of them is lost, the others are no majority and elect no new masters"
        ),
        "use at least 3 nodes, or more shards than nodes can hold half of",
    ))
}
