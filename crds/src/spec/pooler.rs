//! PgBouncer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Resources, rules};
use crate::{Count, Duration};

/// PgBouncer (plan 2.3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.minPoolSize <= self.defaultPoolSize", "minPoolSize must not be above defaultPoolSize: lower the one or raise the other"),
])))]
pub struct Pooler {
    /// How many PgBouncer pods run.
    pub replicas: Count<1, 100>,
    /// When a server connection is given back to the pool.
    pub pool_mode: PoolMode,
    /// Server connections that a pod keeps at most to each database.
    pub default_pool_size: Count<1, 1000>,
    /// Server connections that a pod keeps at least to each database.
    pub min_pool_size: Count<0, 1000>,
    /// Server connections beyond defaultPoolSize that a pod opens when clients have waited for reservePoolTimeout.
    pub reserve_pool_size: Count<0, 1000>,
    /// How long a client waits before the reserve is used.
    pub reserve_pool_timeout: Duration,
    /// Client connections that a pod accepts at most.
    pub max_client_connections: Count<1, 100_000>,
    /// The age at which a server connection is closed once it is idle.
    pub server_lifetime: Duration,
    /// How long a server connection may idle before it is closed.
    pub server_idle_timeout: Duration,
    /// How long opening a server connection may take.
    pub server_connect_timeout: Duration,
    /// How long to wait before trying again after opening a server connection failed.
    pub server_login_retry: Duration,
    /// How long a query may take; 0s is without limit.
    pub query_timeout: Duration,
    /// How long a query may wait for a server connection; 0s is without limit.
    pub query_wait_timeout: Duration,
    /// How long a client may idle; 0s is without limit.
    pub client_idle_timeout: Duration,
    /// How long a client may take to log in.
    pub client_login_timeout: Duration,
    /// What each pod gets. PgBouncer uses one core at most.
    pub resources: Resources,
}

impl Default for Pooler {
    fn default() -> Self {
        Self {
            replicas: Count::clamped(2),
            pool_mode: PoolMode::Transaction,
            default_pool_size: Count::clamped(25),
            min_pool_size: Count::clamped(10),
            reserve_pool_size: Count::clamped(5),
            reserve_pool_timeout: Duration::seconds(3),
            max_client_connections: Count::clamped(10_000),
            server_lifetime: Duration::seconds(3600),
            server_idle_timeout: Duration::seconds(600),
            server_connect_timeout: Duration::seconds(15),
            server_login_retry: Duration::seconds(15),
            query_timeout: Duration::seconds(0),
            query_wait_timeout: Duration::seconds(120),
            client_idle_timeout: Duration::seconds(0),
            client_login_timeout: Duration::seconds(60),
            resources: Resources::new(1000, 256),
        }
    }
}

/// When a server connection is given back to the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PoolMode {
    /// When the client disconnects.
    Session,
    /// When the transaction ends.
    #[default]
    Transaction,
}
