//! Looks after a Redis Cluster's nodes: its pods, as they are now.

use std::{net::SocketAddr, sync::Arc};

use kube::{ResourceExt, core::DynamicObject};
use taskplatform_blueprint::{Facts, Platform, RedisCluster, ports};

use crate::{
    act::address,
    credentials::Credentials,
    redis::{self, Error, Health, Member, Pods, Target},
};

/// Forms or heals the cluster of these pods; none while there are no pods.
pub(crate) async fn look_after(
    platform: &Platform,
    facts: &Facts,
    cluster: RedisCluster,
    pods: &[Arc<DynamicObject>],
    credentials: &Credentials,
) -> Option<Result<Health, Error>> {
    let members: Vec<Member> = pods.iter().filter_map(|pod| member(pod)).collect();
    let password = credentials.get(cluster.password_key())?;
    if members.is_empty() {
        return None;
    }
    let pods = Pods { count: u32::try_from(cluster.pods(platform, facts)).unwrap_or_default(), members };
    let count = |number: i32| u16::try_from(number).unwrap_or(u16::MAX);
    let target = Target {
        shards: count(cluster.shards(platform)),
        replicas_per_shard: count(cluster.replicas_per_shard(platform)),
    };
    Some(redis::reconcile(&pods, &target, password).await)
}

fn member(pod: &DynamicObject) -> Option<Member> {
    let port = u16::try_from(ports::REDIS).ok()?;
    Some(Member {
        pod: pod.name_any(),
        address: SocketAddr::new(address(pod)?, port),
        node: pod.data["spec"]["nodeName"].as_str().map(str::to_owned),
    })
}
