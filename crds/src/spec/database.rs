//! PostgreSQL.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Resources, Storage, rules};
use crate::{Count, Size};

/// PostgreSQL: one primary and its read replicas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Database {
    /// Streaming replicas beside the primary: they serve reads, and one of them takes over when the primary is lost.
    pub read_replicas: Count<0, 15>,
    /// On how many members a commit is before it is acknowledged.
    pub durability: Durability,
    /// How far a replica may be behind the primary, in bytes of its log. One that is further behind is told as not replicating.
    pub max_replica_lag: Size,
    /// The volume of each member.
    pub storage: Storage,
    /// What each member gets. Memory settings such as `shared_buffers` follow from it.
    pub resources: Resources,
    /// Settings of postgresql.conf, by name. They come before the ones that follow from the resources. Names and values
    /// that PostgreSQL 17 cannot use are refused; names with a dot belong to extensions and are not checked.
    #[schemars(extend("maxProperties" = 200))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[
        ("self.all(name, name.matches('^[a-z][a-z0-9_.]{0,62}$'))", "names of PostgreSQL settings are lower-case letters, digits, underscores and dots, such as work_mem"),
        ("['listen_addresses', 'port', 'data_directory', 'hba_file', 'ident_file', 'config_file', 'unix_socket_directories', 'cluster_name', 'primary_conninfo', 'primary_slot_name', 'hot_standby', 'wal_level', 'wal_log_hints', 'recovery_target_timeline', 'restore_command', 'archive_mode', 'archive_command', 'synchronous_standby_names', 'ssl', 'shared_preload_libraries'].all(name, !(name in self))", "this setting belongs to the operator or to Patroni (listen_addresses, port, wal_level, hot_standby, synchronous_standby_names, …): leave it out"),
    ])))]
    pub parameters: BTreeMap<String, Parameter>,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            read_replicas: Count::clamped(3),
            durability: Durability::default(),
            max_replica_lag: Size::mebibytes(64),
            storage: Storage::new(100),
            resources: Resources::new(4000, 16 << 10),
            parameters: BTreeMap::new(),
        }
    }
}

/// On how many members a commit is before it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Durability {
    /// On the primary and one replica, whichever is first: a lost primary loses nothing. While no replica streams, on the primary alone,
    /// which the condition `DatabaseDurable` tells.
    #[default]
    Sync,
    /// On the primary alone. What was acknowledged in the last moment before it is lost is lost with it.
    Async,
    /// On the primary and one replica. While no replica streams, nothing is acknowledged: writes wait.
    SyncStrict,
}

/// The value of a PostgreSQL setting, as text: numbers and switches in quotes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Parameter(#[schemars(length(max = 1024))] pub String);
