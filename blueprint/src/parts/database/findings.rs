//! What PostgreSQL is asked for, against what it has; settings that it does not know, and values that it cannot use.

use taskplatform_crds::Durability;

use super::{RESERVED_CONNECTIONS, connections, parameters, settings};
use crate::{Code, Draft, Finding};

pub(super) fn errors(platform: &Draft) -> Vec<Finding> {
    let budgets = [server_connections(platform), shared_buffers(platform)].into_iter().flatten();
    let settings = platform.spec().database.parameters.iter().filter_map(|(name, value)| wrong(name, &value.0));
    budgets.chain(settings).chain(never_durable(platform)).collect()
}

pub(super) fn warnings(platform: &Draft) -> Vec<Finding> {
    [work_memory(platform), volume(platform), no_failover(platform), durability(platform)]
        .into_iter()
        .flatten()
        .collect()
}

/// Commits that wait for a replica, where there is none.
fn never_durable(platform: &Draft) -> Option<Finding> {
    let database = &platform.spec().database;
    (database.durability == Durability::SyncStrict && database.read_replicas.get() == 0).then(|| {
        Finding::new(
            Code::NeverDurable,
            "spec.database.durability",
            "SyncStrict acknowledges a commit only when it is on a replica, and readReplicas is 0: no write would end"
                .to_owned(),
            "set database.readReplicas to 2 or more, or durability to Sync",
        )
    })
}

/// What is lost, or waits, with the primary or a replica.
fn durability(platform: &Draft) -> Option<Finding> {
    let database = &platform.spec().database;
    let (message, way_out) = match (database.durability, database.read_replicas.get()) {
        (Durability::Async, _) => (
            "with Async, what was acknowledged in the last moment before the primary is lost is lost with it",
            "leave it out: Sync has each commit on a replica before it is acknowledged",
        ),
        (Durability::SyncStrict, 1) => (
            "with SyncStrict and one replica, no write ends while that replica is away",
            "set database.readReplicas to 2 or more, or durability to Sync",
        ),
        _ => return None,
    };
    Some(Finding::new(Code::Durability, "spec.database.durability", message.to_owned(), way_out))
}

/// PgBouncer's pools, against what PostgreSQL accepts.
fn server_connections(platform: &Draft) -> Option<Finding> {
    let given = parameter(platform, "max_connections")?;
    let needed = connections(platform);
    // What cannot be read is told by itself.
    if whole("max_connections", given)? >= u64::from(needed.unsigned_abs()) {
        return None;
    }
    let reserved = RESERVED_CONNECTIONS;
    Some(Finding::new(
        Code::ServerConnections,
        "spec.database.parameters.max_connections",
        format!(
            "{given}, but the poolers may open {needed} connections (replicas × (defaultPoolSize + reservePoolSize) × 2 databases, and {reserved} for upkeep)"
        ),
        format!("raise it to {needed}, leave it out, or make the pools smaller"),
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
    let effective = |name: &str| whole(name, parameters(platform).get(name)?.as_str()?);
    let (work, buffers) = (effective("work_mem")?, effective("shared_buffers")?);
    let connections = u64::from(connections(platform).unsigned_abs());
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

/// The least volume with which PostgreSQL's write-ahead log keeps its shares (a tenth, and a quarter for a replica that is away).
const SMALLEST_DATABASE: u64 = 1 << 30;

fn volume(platform: &Draft) -> Option<Finding> {
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

fn no_failover(platform: &Draft) -> Option<Finding> {
    (platform.spec().database.read_replicas.get() == 0).then(|| {
        Finding::new(
            Code::NoFailover,
            "spec.database.readReplicas",
            "there is no replica that could take over from the primary: when it is lost, the platform waits until it is back".to_owned(),
            "give it at least 1",
        )
    })
}

fn wrong(name: &str, value: &str) -> Option<Finding> {
    let field = format!("spec.database.parameters.{name}");
    match settings::setting(name) {
        Some(setting) => {
            let refusal = setting.check(value).err()?;
            Some(Finding::new(Code::SettingValue, &field, refusal.reason, refusal.remedy))
        }
        None if is_of_extension(name) => None,
        None => {
            let remedy = match settings::likely(name) {
                Some(likely) => format!("write {likely}, if that was meant"),
                None => "leave it out; settings of extensions have a dot, such as pg_stat_statements.max".to_owned(),
            };
            Some(Finding::new(Code::UnknownSetting, &field, "PostgreSQL 17 has no such setting".to_owned(), remedy))
        }
    }
}

fn is_of_extension(name: &str) -> bool {
    name.contains('.')
}

fn parameter<'p>(platform: &'p Draft, name: &str) -> Option<&'p str> {
    platform.spec().database.parameters.get(name).map(|value| value.0.as_str())
}

/// A setting of PostgreSQL as a number, or in bytes.
fn whole(name: &str, value: &str) -> Option<u64> {
    settings::setting(name)?.whole(value)
}
