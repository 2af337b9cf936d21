//! The two Redis Clusters. The operator forms and heals them over the Redis protocol; here are their pods.

mod memory;

pub(crate) use memory::{Shares, least};
use serde_json::{Value, json};
use taskplatform_crds::{Resources, Storage};

use crate::{
    Component, Draft, Facts, Object, Platform, credentials::keys, network, network::Caller, object::Kind, pod,
    pod::Template, ports, selector,
};

/// Which of the two clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisCluster {
    /// What can be computed again: evicted when memory is short, not written to disk.
    Cache,
    /// Sessions: never evicted, and written to disk.
    Sessions,
}

impl RedisCluster {
    /// The component that it is.
    pub const fn component(self) -> Component {
        match self {
            Self::Cache => Component::Cache,
            Self::Sessions => Component::Sessions,
        }
    }

    /// The key of its password in the platform's credentials.
    pub const fn password_key(self) -> &'static str {
        match self {
            Self::Cache => keys::CACHE,
            Self::Sessions => keys::SESSIONS,
        }
    }

    /// Its number of shards.
    pub const fn shards(self, platform: &Draft) -> i32 {
        match self {
            Self::Cache => platform.spec().cache.shards.get(),
            Self::Sessions => platform.spec().sessions.shards.get(),
        }
    }

    /// The replicas of each shard's master.
    pub const fn replicas_per_shard(self, platform: &Draft) -> i32 {
        match self {
            Self::Cache => platform.spec().cache.replicas_per_shard.get(),
            Self::Sessions => platform.spec().sessions.replicas_per_shard.get(),
        }
    }

    /// Its number of nodes.
    pub const fn nodes(self, platform: &Draft) -> i32 {
        self.shards(platform) * (1 + self.replicas_per_shard(platform))
    }

    /// How many pods its StatefulSet runs: those that are to go stay while they hold what nobody else does.
    pub fn pods(self, platform: &Platform, facts: &Facts) -> i32 {
        let in_use = match self {
            Self::Cache => facts.cache_nodes_in_use,
            Self::Sessions => facts.sessions_nodes_in_use,
        };
        in_use.unwrap_or_default().max(self.nodes(platform))
    }

    const fn credentials_file(self) -> &'static str {
        match self {
            Self::Cache => keys::CACHE_CONF,
            Self::Sessions => keys::SESSIONS_CONF,
        }
    }

    pub(crate) const fn resources(self, platform: &Draft) -> Resources {
        match self {
            Self::Cache => platform.spec().cache.resources,
            Self::Sessions => platform.spec().sessions.resources,
        }
    }

    pub(crate) const fn storage(self, platform: &Draft) -> &Storage {
        match self {
            Self::Cache => &platform.spec().cache.storage,
            Self::Sessions => &platform.spec().sessions.storage,
        }
    }
}

pub(crate) fn objects(platform: &Platform, facts: &Facts, cluster: RedisCluster) -> Vec<Object> {
    let component = cluster.component();
    let name = platform.names().component(component);
    let configuration = json!({"redis.conf": configuration(platform, cluster)});
    vec![
        network::policy(
            platform,
            facts,
            component,
            &[
                (&[Caller::Component(Component::Api), Caller::Component(component), Caller::Operator], &[ports::REDIS]),
                (&[Caller::Component(component)], &[ports::REDIS_BUS]),
            ],
        ),
        Object::new(platform, component, Kind::ConfigMap, &name, json!({"data": configuration})),
        service(platform, component, &name, None),
        service(platform, component, &format!("{name}-nodes"), Some("None")),
        pod::disruption_budget(platform, component),
        stateful_set(platform, facts, cluster, &name, &configuration),
    ]
}

/// The Service that clients begin with, or the headless one that gives the nodes their names.
fn service(platform: &Platform, component: Component, name: &str, cluster_ip: Option<&str>) -> Object {
    let mut spec = json!({
        "type": "ClusterIP",
        "selector": selector(platform.name(), component),
        "ports": [{"name": "redis", "port": ports::REDIS, "targetPort": "redis", "protocol": "TCP"}],
    });
    if let Some(cluster_ip) = cluster_ip {
        spec["clusterIP"] = cluster_ip.into();
        spec["publishNotReadyAddresses"] = true.into();
    }
    Object::new(platform, component, Kind::Service, name, json!({"spec": spec}))
}

fn stateful_set(
    platform: &Platform,
    facts: &Facts,
    cluster: RedisCluster,
    name: &str,
    configuration: &Value,
) -> Object {
    let component = cluster.component();
    let replicas = cluster.pods(platform, facts);
    let template = Template {
        component,
        service_account: None,
        grace_period_seconds: 60,
        labels: &[],
        configuration: &[configuration],
        container: container(platform, facts, cluster),
        volumes: vec![
            json!({"name": "configuration", "configMap": {"name": name}}),
            pod::secret_volume(platform, "credentials", cluster.credentials_file()),
            json!({"name": "tmp", "emptyDir": {}}),
        ],
    };
    pod::stateful_set(platform, replicas, &format!("{name}-nodes"), cluster.storage(platform), template)
}

fn container(platform: &Platform, facts: &Facts, cluster: RedisCluster) -> Value {
    json!({
        "name": "redis",
        "image": facts.images.redis,
        "args": ["/etc/redis/redis.conf", "--cluster-announce-ip", "$(POD_IP)"],
        "env": [
            pod::field_env("POD_IP", "status.podIP"),
            pod::secret_env(platform, "REDISCLI_AUTH", cluster.password_key()),
        ],
        "ports": [
            {"name": "redis", "containerPort": ports::REDIS, "protocol": "TCP"},
            {"name": "bus", "containerPort": ports::REDIS_BUS, "protocol": "TCP"},
        ],
        "startupProbe": {"tcpSocket": {"port": "redis"}, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 300},
        "readinessProbe": {"exec": {"command": ["redis-ready"]}, "periodSeconds": 5, "timeoutSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": "redis"}, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        // A master hands over before it stops.
        "lifecycle": {"preStop": {"exec": {"command": ["redis-pre-stop"]}}},
        "resources": pod::resources(cluster.resources(platform)),
        "securityContext": pod::security_context(),
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "configuration", "mountPath": "/etc/redis", "readOnly": true},
            {"name": "credentials", "mountPath": "/etc/redis-credentials", "readOnly": true},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    })
}

fn configuration(platform: &Platform, cluster: RedisCluster) -> String {
    let Shares { data, backlog, replica_buffer } = Shares::of(cluster, cluster.resources(platform).memory);
    let own = match cluster {
        RedisCluster::Cache => "maxmemory-policy allkeys-lfu\nappendonly no",
        // What does not fit is refused: nobody is logged out to make room.
        RedisCluster::Sessions => "maxmemory-policy noeviction\nappendonly yes\nappendfsync everysec",
    };
    format!(
        "{}\nmaxmemory {data}mb\nrepl-backlog-size {backlog}mb\nclient-output-buffer-limit replica {replica_buffer}mb 0 0\n{own}\nsave \"\"\n\ninclude /etc/redis-credentials/{}\n",
        include_str!("redis.conf"),
        cluster.credentials_file()
    )
}
