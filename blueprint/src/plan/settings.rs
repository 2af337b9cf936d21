//! PostgreSQL's settings: they change through Patroni, which reloads or restarts the members.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::in_a_line;
use crate::{Platform, database};

/// A setting of PostgreSQL, before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingChange {
    /// Its name.
    pub name: String,
    /// What it was; nothing, if it was PostgreSQL's own default.
    pub before: Option<String>,
    /// What it will be; nothing, if it will be PostgreSQL's own default.
    pub after: Option<String>,
    /// Whether the members restart for it, one after another, the replicas first.
    pub restarts: bool,
}

/// The settings that PostgreSQL 17 reads at its start alone: those of `pg_settings` whose context is `postmaster`, without
/// those that belong to the operator.
const AT_START: [&str; 51] = [
    "autovacuum_freeze_max_age",
    "autovacuum_max_workers",
    "autovacuum_multixact_freeze_max_age",
    "bonjour",
    "bonjour_name",
    "commit_timestamp_buffers",
    "data_sync_retry",
    "debug_io_direct",
    "dynamic_shared_memory_type",
    "event_source",
    "external_pid_file",
    "huge_page_size",
    "huge_pages",
    "ignore_invalid_pages",
    "jit_provider",
    "logging_collector",
    "max_connections",
    "max_files_per_process",
    "max_locks_per_transaction",
    "max_logical_replication_workers",
    "max_notify_queue_pages",
    "max_pred_locks_per_transaction",
    "max_prepared_transactions",
    "max_replication_slots",
    "max_wal_senders",
    "max_worker_processes",
    "min_dynamic_shared_memory",
    "multixact_member_buffers",
    "multixact_offset_buffers",
    "notify_buffers",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "reserved_connections",
    "serializable_buffers",
    "shared_buffers",
    "shared_memory_type",
    "subtransaction_buffers",
    "superuser_reserved_connections",
    "trace_connection_negotiation",
    "track_activity_query_size",
    "track_commit_timestamp",
    "transaction_buffers",
    "unix_socket_group",
    "unix_socket_permissions",
    "wal_buffers",
    "wal_decode_buffer_size",
];

/// The settings of PostgreSQL that change with the spec.
pub fn settings(before: &Platform, after: &Platform) -> Vec<SettingChange> {
    let (before, after) = (database::parameters(before), database::parameters(after));
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let text = |value: Option<&Value>| value.map(in_a_line);
    names
        .into_iter()
        .map(|name| SettingChange {
            name: name.clone(),
            before: text(before.get(name)),
            after: text(after.get(name)),
            restarts: AT_START.contains(&name.as_str()),
        })
        .filter(|setting| setting.before != setting.after)
        .collect()
}
