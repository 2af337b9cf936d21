//! Connections, memory and volumes: what one component may ask of another, against what that one has.

use super::{Code, Finding};
use crate::{
    Draft, RedisCluster, api, database,
    redis::{self, Shares},
    worker,
};

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
        .collect()
}

/// PgBouncer's pools, against what PostgreSQL accepts.
fn server_connections(platform: &Draft) -> Option<Finding> {
    let given = parameter(platform, "max_connections")?;
    let needed = database::connections(platform);
    if given.parse().is_ok_and(|given: i32| given >= needed) {
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
    let size = parse_memory(given, 8 << 10)?;
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
    let effective = |name: &str, unit: u64| {
        let parameters = database::parameters(platform);
        parameters.get(name).and_then(|value| parse_memory(value.as_str()?, unit))
    };
    let (work, buffers) = (effective("work_mem", 1 << 10)?, effective("shared_buffers", 8 << 10)?);
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

fn parameter<'p>(platform: &'p Draft, name: &str) -> Option<&'p str> {
    platform.spec().database.parameters.get(name).map(|value| value.0.as_str())
}

/// A setting of PostgreSQL in bytes; a bare number counts `unit`.
fn parse_memory(text: &str, unit: u64) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].trim() {
        "" => unit,
        "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_postgresql_reads_it() {
        for (text, unit, bytes) in [
            ("4GB", 1, Some(4 << 30)),
            ("512 MB", 1, Some(512 << 20)),
            ("64kB", 1, Some(64 << 10)),
            ("16384", 8 << 10, Some(128 << 20)),
            ("2097151TB", 1, Some(2_097_151 << 40)),
            ("4G", 1, None),
            ("much", 1, None),
            ("99999999999999999999", 1, None),
            ("18446744073709551615kB", 1, None),
        ] {
            assert_eq!(parse_memory(text, unit), bytes, "{text}");
        }
    }
}
