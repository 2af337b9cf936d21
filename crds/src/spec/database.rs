//! PostgreSQL.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Resources, Storage, VOLUME_RULES, rules};
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
    pub storage: DatabaseStorage,
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
            storage: DatabaseStorage { size: Size::gibibytes(100), class: None, autogrow: None },
            resources: Resources::new(4000, 16 << 10),
            parameters: BTreeMap::new(),
        }
    }
}

/// A volume a member, which may grow by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    VOLUME_RULES[0],
    VOLUME_RULES[1],
    ("!has(self.autogrow) || quantity(string(self.autogrow.limit)).compareTo(quantity(string(self.size))) >= 0", "storage.autogrow.limit is less than storage.size: give the size that the volumes may grow to, such as four times storage.size"),
])))]
pub struct DatabaseStorage {
    /// The size of each volume, such as 100Gi. It can grow, where the storage class allows expansion; it never shrinks.
    pub size: Size,
    /// The StorageClass. Left out, the cluster's default class.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class: Option<String>,
    /// Has the volumes grow by themselves. Left out, they grow only when `size` is raised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autogrow: Option<Autogrow>,
}

/// All volumes grow by a quarter, to whole gibibytes, when one of them is four fifths full, where the storage class allows expansion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Autogrow {
    /// The size that they do not grow beyond, such as 500Gi.
    pub limit: Size,
}

impl DatabaseStorage {
    /// The volume as such.
    pub fn volume(&self) -> Storage {
        Storage { size: self.size, class: self.class.clone() }
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
