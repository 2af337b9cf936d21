//! Connections, memory and volumes: what one component may ask of another, against what that one has.

use super::{Code, Finding};
use crate::{
    Draft, RedisCluster, api, database, postgresql,
    redis::{self, Shares},
    worker,
};
use taskplatform_crds::{Resources, Size, Storage};

pub(super) fn errors(platform: &Draft) -> Vec<Finding> {
    [server_connections(platform), client_connections(platform), shared_buffers(platform)]
        .into_iter()
        .flatten()
        .collect()
}

pub(super) fn warnings(platform: &Draft) -> Vec<Finding> {
    let redis = [RedisCluster::Cache, RedisCluster::Sessions]
        .map(|cluster| [redis_volume(platform, cluster), redis_memory(platform, cluster)]);
    [work_memory(platform), api_memory(platform), database_volume(platform)]
        .into_iter()
        .chain(redis.into_iter().flatten())
        .flatten()
        .chain(bytes_alone(platform))
        .collect()
}

/// PgBouncer's pools, against what PostgreSQL accepts.
fn server_connections(platform: &Draft) -> Option<Finding> {
    let given = parameter(platform, "max_connections")?;
    let needed = database::connections(platform);
    // What cannot be read is told by itself.
    if whole("max_connections", given)? >= u64::from(needed.unsigned_abs()) {
        return None;
    }
    let reserved = database::RESERVED_CONNECTIONS;
    Some(Finding::new(
        Code::ServerConnections,
        "spec.database.parameters.max_connections",
        format!(
            "{given}, but the poolers may open {needed} connections (replicas × (defaultPoolSize + reservePoolSize) × 2 databases, and {reserved} for upkeep)"
        ),
        format!("raise it to {needed}, leave it out, or make the pools smaller"),
    ))
}

/// The connections of the API at its largest, against what the poolers accept.
fn client_connections(platform: &Draft) -> Option<Finding> {
    let spec = platform.spec();
    let (instances, workers) = (spec.scaling.max_instances.get(), spec.worker.replicas.get());
    let needed = instances * api::CONNECTIONS + workers * worker::CONNECTIONS;
    let accepted = spec.pooler.replicas.get().saturating_mul(spec.pooler.max_client_connections.get());
    if needed <= accepted {
        return None;
    }
    let each = spec.pooler.max_client_connections.get();
    let poolers = (needed + each - 1) / each;
    Some(Finding::new(
        Code::ClientConnections,
        "spec.pooler.maxClientConnections",
        format!(
            "{instances} instances of the API and {workers} workers may hold {needed} connections ({} an instance, {} a worker), but the poolers accept {accepted}",
            api::CONNECTIONS,
            worker::CONNECTIONS
        ),
        format!("raise it, run {poolers} poolers, or lower scaling.maxInstances"),
    ))
}

/// What PostgreSQL takes at its start, against what a member has.
fn shared_buffers(platform: &Draft) -> Option<Finding> {
    let given = parameter(platform, "shared_buffers")?;
    let size = whole("shared_buffers", given)?;
    let memory = platform.spec().database.resources.memory;
    // The rest is for the processes of its connections, and for what the kernel caches.
    if size <= memory.as_bytes() / 10 * 8 {
        return None;
    }
    Some(Finding::new(
        Code::SharedBuffers,
        "spec.database.parameters.shared_buffers",
        format!("{given} leaves less than a fifth of a member's memory ({memory}) to everything else: it is killed"),
        "lower it, leave it out (a quarter of the memory), or raise database.resources.memory",
    ))
}

/// What PostgreSQL may take when all connections sort at once.
fn work_memory(platform: &Draft) -> Option<Finding> {
    let settings = ["work_mem", "shared_buffers", "max_connections"];
    let given: Vec<&str> = settings.into_iter().filter(|name| parameter(platform, name).is_some()).collect();
    let effective = |name: &str| whole(name, database::parameters(platform).get(name)?.as_str()?);
    let (work, buffers) = (effective("work_mem")?, effective("shared_buffers")?);
    let connections = u64::from(database::connections(platform).unsigned_abs());
    let memory = platform.spec().database.resources.memory;
    let needed = buffers.saturating_add(work.saturating_mul(connections));
    if given.is_empty() || needed <= memory.as_bytes() {
        return None;
    }
    Some(Finding::new(
        Code::WorkMemory,
        "spec.database.parameters.work_mem",
        format!(
            "{connections} connections that each sort in {} MiB, and shared_buffers of {} MiB, take {} MiB, but a member has {memory}",
            work >> 20,
            buffers >> 20,
            needed >> 20
        ),
        format!("leave {} out, or raise database.resources.memory", given.join(" and ")),
    ))
}

/// What an instance may take however little it does, against what the autoscaler aims at.
fn api_memory(platform: &Draft) -> Option<Finding> {
    let spec = platform.spec();
    let memory = spec.api.resources.memory.as_bytes();
    let target = memory / 100 * u64::try_from(spec.scaling.target_memory.get()).unwrap_or_default();
    let used = api::IDLE_MEMORY + api::local_cache_bytes(platform);
    if used <= target {
        return None;
    }
    // An eighth of the memory is the cache's.
    let percent = u64::try_from(spec.scaling.target_memory.get()).unwrap_or_default();
    let enough = percent.checked_mul(2).and_then(|twice| twice.checked_sub(25)).filter(|rest| *rest > 0);
    let remedy = match enough {
        Some(rest) => {
            format!("give api.resources.memory {}Mi or more", (api::IDLE_MEMORY * 200 / rest).div_ceil(1 << 20))
        }
        None => "raise scaling.targetMemory".to_owned(),
    };
    Some(Finding::new(
        Code::ApiMemory,
        "spec.api.resources.memory",
        format!(
            "an instance may take {} MiB however low the load, and the autoscaler aims at {} MiB ({percent} % of {}): it could add instances and keep them though there is little to do",
            used >> 20,
            target >> 20,
            spec.api.resources.memory
        ),
        remedy,
    ))
}

/// The least volume with which PostgreSQL's write-ahead log keeps its shares (a tenth, and a quarter for a replica that is away).
const SMALLEST_DATABASE: u64 = 1 << 30;

fn database_volume(platform: &Draft) -> Option<Finding> {
    let size = platform.spec().database.storage.size;
    (size.as_bytes() < SMALLEST_DATABASE).then(|| {
        Finding::new(
            Code::SmallVolume,
            "spec.database.storage.size",
            format!("{size} is little more than PostgreSQL's write-ahead log takes"),
            "give it 1Gi or more",
        )
    })
}

/// What Redis may write, against its volume: the cache a snapshot beside the former one, the sessions a rewritten log beside the former one.
fn redis_volume(platform: &Draft, cluster: RedisCluster) -> Option<Finding> {
    let (memory, storage) = (cluster.resources(platform).memory, &cluster.storage(platform).size);
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
fn redis_memory(platform: &Draft, cluster: RedisCluster) -> Option<Finding> {
    let (memory, shards) = (cluster.resources(platform).memory, cluster.shards(platform));
    let least = redis::least(cluster, shards);
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

/// Less than this, nobody means.
const SMALLEST_SIZE: u64 = 1 << 20;

/// Sizes that count bytes, since they were given without a unit.
fn bytes_alone(platform: &Draft) -> impl Iterator<Item = Finding> {
    let spec = platform.spec();
    let memory = |component, resources: &Resources| (format!("spec.{component}.resources.memory"), resources.memory);
    let volume = |component, storage: &Storage| (format!("spec.{component}.storage.size"), storage.size);
    let sizes = [
        memory("api", &spec.api.resources),
        memory("gateway", &spec.gateway.resources),
        memory("database", &spec.database.resources),
        volume("database", &spec.database.storage),
        memory("pooler", &spec.pooler.resources),
        memory("cache", &spec.cache.resources),
        volume("cache", &spec.cache.storage),
        memory("sessions", &spec.sessions.resources),
        volume("sessions", &spec.sessions.storage),
        memory("worker", &spec.worker.resources),
    ];
    let is_small = |(_, size): &(String, Size)| size.as_bytes() < SMALLEST_SIZE;
    sizes.into_iter().filter(is_small).map(|(field, size)| {
        let bytes = size.as_bytes();
        let reason = format!("it is {bytes} bytes: a number without a unit counts bytes");
        Finding::new(Code::BytesAlone, &field, reason, "write its unit, such as 512Mi or 10Gi")
    })
}

fn parameter<'p>(platform: &'p Draft, name: &str) -> Option<&'p str> {
    platform.spec().database.parameters.get(name).map(|value| value.0.as_str())
}

/// A setting of PostgreSQL as a number, or in bytes.
fn whole(name: &str, value: &str) -> Option<u64> {
    postgresql::setting(name)?.whole(value)
}
