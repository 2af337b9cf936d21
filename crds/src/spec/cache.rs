//! The cache.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Resources, Storage, rules};
use crate::{Count, Duration};

/// The Redis Cluster that holds what can be computed again (plan 4.2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("duration(self.localTTL) >= duration('1s')", "localTTL is at least 1s"),
    ("duration(self.localTTL) <= duration(self.ttl)", "localTTL must not be above ttl: lower the one or raise the other"),
    ("self.shards >= oldSelf.shards", "shards cannot be taken away: keep the number, or create a TaskPlatform with fewer"),
])))]
pub struct Cache {
    /// Masters, each with its part of the 16384 slots. Fewer than three cannot elect a new master.
    pub shards: Count<3, 100>,
    /// Replicas of each master; one of them takes over when it is lost.
    pub replicas_per_shard: Count<0, 5>,
    /// How long the cluster keeps what the API has put into it (plan 4.1).
    pub ttl: Duration,
    /// How long each instance of the API keeps it in its own memory besides (plan 4.1).
    #[serde(rename = "localTTL")]
    pub local_ttl: Duration,
    /// What each node gets. Three fifths of the memory above 32 MiB hold data.
    pub resources: Resources,
    /// The volume of each node.
    pub storage: Storage,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            shards: Count::clamped(3),
            replicas_per_shard: Count::clamped(1),
            ttl: Duration::seconds(300),
            local_ttl: Duration::seconds(60),
            resources: Resources::new(1000, 4 << 10),
            storage: Storage::new(10),
        }
    }
}
