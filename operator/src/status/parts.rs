//! The figures of each component.

use serde_json::Value;
use taskplatform_blueprint::{Band, Component, Kind, Platform, bands, selector};
use taskplatform_crds::{
    AutoscalerStatus, DatabaseMember, DatabaseStatus, PoolerInstance, PoolerStatus, RedisNode, RedisStatus,
    ScalingMetric, ServiceType,
};

use crate::{
    keepers::{Poolers, patroni, pgbouncer, redis},
    world::{Child, Snapshot},
};

pub(super) fn database(
    ready: String,
    cluster: Option<&Result<patroni::Cluster, String>>,
    most_lag: i64,
    before: Option<&DatabaseStatus>,
) -> DatabaseStatus {
    let Some(Ok(cluster)) = cluster else {
        // What has been stays.
        let failovers = before.map(|before| before.failovers.clone()).unwrap_or_default();
        return DatabaseStatus { ready, failovers, ..DatabaseStatus::default() };
    };
    let primary = cluster.primary();
    let member = |member: &patroni::Member| DatabaseMember {
        pod: member.pod.clone(),
        role: if member.leads { "primary" } else { "replica" }.into(),
        state: member.state.clone(),
        timeline: member.timeline,
        lag_bytes: member.lag,
        volume_size_bytes: member.volume.as_ref().and_then(|volume| i64::try_from(volume.size << 20).ok()),
        volume_used_percent: member.volume.as_ref().map(|volume| i32::from(volume.used_percent())),
        volume_full_in_days: member.volume.as_ref().and_then(|volume| volume.full_in_days?.try_into().ok()),
    };
    DatabaseStatus {
        ready,
        primary: primary.map(|primary| primary.pod.clone()).unwrap_or_default(),
        timeline: primary.and_then(|primary| primary.timeline),
        streaming_replicas: count(cluster.streaming(most_lag)),
        failovers: cluster.failovers.clone(),
        members: cluster.members.iter().map(member).collect(),
    }
}

pub(super) fn pooler(ready: String, poolers: Option<&Result<Poolers, String>>) -> PoolerStatus {
    let poolers = poolers.and_then(|poolers| poolers.as_ref().ok()).into_iter().flatten();
    let instance = |pools: &pgbouncer::Pools| PoolerInstance {
        pod: pools.pod.clone(),
        clients: pools.clients,
        waiting: pools.waiting,
        max_wait_milliseconds: i64::try_from(pools.max_wait.as_millis()).unwrap_or(i64::MAX),
        servers_busy: pools.servers_busy,
        servers_idle: pools.servers_idle,
    };
    let mut instances: Vec<PoolerInstance> = poolers.flatten().map(instance).collect();
    instances.sort_by(|one, other| one.pod.cmp(&other.pod));
    PoolerStatus { ready, instances }
}

pub(super) fn redis(ready: String, health: Option<&Result<redis::Health, String>>) -> RedisStatus {
    let Some(Ok(health)) = health else { return RedisStatus { ready, ..RedisStatus::default() } };
    RedisStatus {
        ready,
        slots: i32::from(health.slots_assigned),
        masters: health.shards.iter().map(|shard| shard.master.clone()).collect(),
        nodes: health.shards.iter().zip(0..).flat_map(|(shard, number)| nodes(shard, number)).collect(),
    }
}

fn nodes(shard: &redis::Shard, number: i32) -> Vec<RedisNode> {
    let master = RedisNode {
        pod: shard.master.clone(),
        shard: number,
        role: "master".into(),
        state: "serving".into(),
        slots: Some(i32::from(shard.slots)),
        used_memory_bytes: Some(whole_mebibytes(shard.memory_used)),
        max_memory_bytes: (shard.memory_limit > 0).then_some(whole_mebibytes(shard.memory_limit)),
    };
    let replicas = shard.replicas.iter().map(|replica| RedisNode {
        pod: replica.pod.clone(),
        shard: number,
        role: "replica".into(),
        state: if replica.in_sync { "in sync" } else { "not in sync" }.into(),
        ..RedisNode::default()
    });
    [master].into_iter().chain(replicas).collect()
}

/// Rounded up, so that a platform at rest reports the same again.
fn whole_mebibytes(bytes: u64) -> i64 {
    i64::try_from(bytes.div_ceil(1 << 20) << 20).unwrap_or(i64::MAX)
}

/// What the autoscaler says, beside the bands of the spec.
pub(super) fn autoscaler(autoscaler: &Child, platform: &Platform, requests_per_second: bool) -> AutoscalerStatus {
    let (scaling, data) = (&platform.spec().scaling, autoscaler.data());
    let status = &data["status"];
    let metric = |band: Band| ScalingMetric {
        current: current(&status["currentMetrics"], &band.metric),
        metric: band.metric,
        unit: band.unit.trim().to_owned(),
        below: band.below,
        target: band.target,
        above: band.above,
    };
    AutoscalerStatus {
        desired: status["desiredReplicas"].as_i64().and_then(|desired| i32::try_from(desired).ok()).unwrap_or_default(),
        minimum: scaling.min_instances.get(),
        maximum: scaling.max_instances.get(),
        last_scaled: status["lastScaleTime"].as_str().map(str::to_owned),
        metrics: bands(scaling, requests_per_second).into_iter().map(metric).collect(),
    }
}

/// The value of a band's metric: a resource's use in percent, or the pods' average.
fn current(metrics: &Value, band: &str) -> Option<i64> {
    metrics.as_array()?.iter().find_map(|metric| {
        let resource = &metric["resource"];
        match resource["name"].as_str() {
            Some(name) if name.eq_ignore_ascii_case(band) => resource["current"]["averageUtilization"].as_i64(),
            None if band == "requests" => whole(metric["pods"]["current"]["averageValue"].as_str()?),
            _ => None,
        }
    })
}

/// A quantity in whole numbers: `12`, `12500m`, `2k`.
fn whole(quantity: &str) -> Option<i64> {
    if let Some(thousandths) = quantity.strip_suffix('m') {
        return Some(thousandths.parse::<i64>().ok()? / 1000);
    }
    match quantity.strip_suffix('k') {
        Some(thousands) => Some(thousands.parse::<i64>().ok()? * 1000),
        None => quantity.parse().ok(),
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

pub(super) fn label_selector(platform: &Platform) -> String {
    let labels = selector(platform.name(), Component::API);
    let pairs = labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    pairs.collect::<Vec<_>>().join(",")
}

/// Where the gateway answers.
pub(super) fn address(snapshot: &Snapshot, platform: &Platform) -> String {
    let name = platform.names().component(Component::GATEWAY);
    let inside = format!("http://{name}.{}.svc", platform.namespace());
    let Some(service) = snapshot.get(Kind::Service, &name) else { return inside };
    let data = service.data();
    let ingress = &data["status"]["loadBalancer"]["ingress"][0];
    let node_port = data["spec"]["ports"][0]["nodePort"].as_i64();
    match (platform.spec().gateway.service.kind, ingress["hostname"].as_str().or(ingress["ip"].as_str()), node_port) {
        (ServiceType::LoadBalancer, Some(host), _) => format!("http://{host}"),
        (ServiceType::LoadBalancer | ServiceType::NodePort, _, Some(port)) => format!("port {port} of every node"),
        _ => inside,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_has_been_stays_while_no_member_answers() {
        let failovers = vec![taskplatform_crds::Failover { timeline: 2, ..taskplatform_crds::Failover::default() }];
        let before = DatabaseStatus { failovers, primary: "a-database-0".into(), ..DatabaseStatus::default() };
        for cluster in [None, Some(Err("it does not answer".to_owned()))] {
            let now = database("0/2".into(), cluster.as_ref(), 0, Some(&before));
            assert_eq!((now.failovers, now.primary), (before.failovers.clone(), String::new()));
        }
    }

    #[test]
    fn each_band_finds_its_metric() {
        let metrics = json!([
            {"type": ""},
            {"type": "Resource", "resource": {"name": "memory", "current": {"averageUtilization": 5}}},
            {"type": "Pods", "pods": {"metric": {"name": "http_requests_per_second"}, "current": {"averageValue": "12500m"}}},
        ]);
        let found = ["CPU", "memory", "requests"].map(|band| current(&metrics, band));
        assert_eq!(found, [None, Some(5), Some(12)]);
        assert_eq!(["7", "2k", "1500m", "?"].map(whole), [Some(7), Some(2000), Some(1), None]);
    }
}
