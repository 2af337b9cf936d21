//! The session store.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Resources, Storage, rules};
use crate::{Count, Duration};

/// The Redis Cluster that holds the users' sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.shards >= oldSelf.shards", "shards cannot be taken away: keep the number, or create a TaskPlatform with fewer"),
])))]
pub struct Sessions {
    /// Masters, each with its part of the 16384 slots. Fewer than three cannot elect a new master.
    pub shards: Count<3, 100>,
    /// Replicas of each master; one of them takes over when it is lost.
    pub replicas_per_shard: Count<0, 5>,
    /// How long a session lasts (plan 3.1).
    #[schemars(extend("x-kubernetes-validations" = rules(&[
        ("duration(self) >= duration('1m')", "a session lasts at least 1m"),
    ])))]
    pub ttl: Duration,
    /// What each node gets. Two fifths of the memory above 16 MiB hold data: rewriting the append-only file takes as much again.
    pub resources: Resources,
    /// The volume of each node.
    pub storage: Storage,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            shards: Count::clamped(3),
            replicas_per_shard: Count::clamped(1),
            ttl: Duration::seconds(86400),
            resources: Resources::new(500, 1 << 10),
            storage: Storage::new(10),
        }
    }
}
