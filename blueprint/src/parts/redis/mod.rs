//! The two Redis Clusters. The operator forms and heals them over the Redis protocol; here are their pods.

mod findings;
mod memory;

use memory::Shares;
use serde_json::{Value, json};
use taskplatform_crds::{Resources, Size};

use super::{CredentialFile, Part, Proposal, Share};
use crate::{
    Component, Credentials, Draft, Effect, Facts, Finding, Level, Object, Platform, Unit,
    endpoints::{Endpoint, Login, Outsider},
    findings::Nodes,
    images::Image,
    object::Kind,
    pod,
    pod::Template,
    selector,
    unit::Workload,
};

impl Component {
    /// The Redis Cluster for what can be computed again.
    pub const CACHE: Self = Self::new("cache");
    /// The Redis Cluster for sessions.
    pub const SESSIONS: Self = Self::new("sessions");
}

impl Endpoint {
    /// The cache's nodes.
    pub const CACHE: Self = Self {
        component: Component::CACHE,
        name: "redis",
        port: 6379,
        service: "",
        open_to: &[Outsider::Operator],
        login: Some(Login { user: "", password: "cache-password", alternates: false }),
    };

    /// The session store's nodes. Each by its own address: those of a node that was lost without a word accept no more, and one address for all of
    /// them leads to these as long as Kubernetes does not know. The cache is not waited for that long.
    pub const SESSIONS: Self = Self {
        component: Component::SESSIONS,
        service: "-nodes",
        login: Some(Login { user: "", password: "sessions-password", alternates: false }),
        ..Self::CACHE
    };

    /// The bus between the cache's nodes.
    pub const CACHE_BUS: Self = Self { name: "bus", port: 16379, open_to: &[], login: None, ..Self::CACHE };

    /// The bus between the session store's nodes.
    pub const SESSIONS_BUS: Self = Self { component: Component::SESSIONS, ..Self::CACHE_BUS };
}

/// The nodes' passwords, as Redis reads them.
/// A Redis node that does not answer for this long is taken for failed (plan section 4.1).
pub const REDIS_NODE_TIMEOUT_MILLISECONDS: u64 = 5000;

const CACHE_CONF: CredentialFile =
    CredentialFile { key: "cache.conf", text: |credentials| passwords(credentials, RedisCluster::Cache) };
const SESSIONS_CONF: CredentialFile =
    CredentialFile { key: "sessions.conf", text: |credentials| passwords(credentials, RedisCluster::Sessions) };

/// The password in force is the one that a node itself uses.
fn passwords(credentials: &Credentials, cluster: RedisCluster) -> String {
    let current = credentials.current(cluster.password()).unwrap_or_default();
    let former = credentials.former(cluster.password()).map(|former| format!(" >{former}")).unwrap_or_default();
    format!("user default on sanitize-payload ~* &* +@all >{current}{former}\nmasterauth {current}\n")
}

/// Which of the two clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisCluster {
    /// What can be computed again: evicted when memory is short, not written to disk.
    Cache,
    /// Sessions: never evicted, and written to disk.
    Sessions,
}

impl RedisCluster {
    /// Where its nodes answer.
    pub const fn endpoint(self) -> Endpoint {
        match self {
            Self::Cache => Endpoint::CACHE,
            Self::Sessions => Endpoint::SESSIONS,
        }
    }

    /// The key of its password in the platform's credentials.
    pub const fn password(self) -> &'static str {
        match self.endpoint().login {
            Some(login) => login.password,
            None => "",
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

    /// Its nodes.
    pub fn unit(self, platform: &Draft) -> Unit {
        let spec = platform.spec();
        let (resources, storage) = match self {
            Self::Cache => (spec.cache.resources, &spec.cache.storage),
            Self::Sessions => (spec.sessions.resources, &spec.sessions.storage),
        };
        Unit {
            component: self.component(),
            name: platform.names().component(self.component()),
            workload: Workload::StatefulSet,
            pods: self.nodes(platform),
            resources,
            storage: Some(storage.clone()),
        }
    }

    const fn credentials_file(self) -> CredentialFile {
        match self {
            Self::Cache => CACHE_CONF,
            Self::Sessions => SESSIONS_CONF,
        }
    }
}

impl Part for RedisCluster {
    fn component(&self) -> Component {
        self.endpoint().component
    }

    fn units(&self, platform: &Draft, _: i32) -> Vec<Unit> {
        vec![self.unit(platform)]
    }

    fn objects(&self, platform: &Platform, facts: &Facts) -> Vec<Object> {
        let unit = self.unit(platform);
        let configuration = json!({"redis.conf": configuration(platform, *self)});
        let data = json!({"data": configuration});
        let nodes = format!("{}-nodes", unit.name);
        vec![
            Object::new(platform, self.component(), Kind::ConfigMap, &unit.name, data),
            service(platform, *self, &unit.name, None),
            service(platform, *self, &nodes, Some("None")),
            stateful_set(platform, facts, *self, &nodes, &configuration),
        ]
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        match self {
            Self::Cache => &[Endpoint::CACHE, Endpoint::CACHE_BUS],
            Self::Sessions => &[Endpoint::SESSIONS, Endpoint::SESSIONS_BUS],
        }
    }

    fn calls(&self) -> &'static [Endpoint] {
        self.endpoints()
    }

    fn image(&self) -> Image {
        Image::Redis
    }

    fn passwords(&self) -> &'static [&'static str] {
        match self {
            Self::Cache => &["cache-password"],
            Self::Sessions => &["sessions-password"],
        }
    }

    fn credential_files(&self) -> &'static [CredentialFile] {
        match self {
            Self::Cache => &[CACHE_CONF],
            Self::Sessions => &[SESSIONS_CONF],
        }
    }

    fn warnings(&self, platform: &Draft) -> Vec<Finding> {
        findings::warnings(platform, *self)
    }

    fn warnings_on(&self, platform: &Draft, nodes: &Nodes) -> Vec<Finding> {
        findings::no_quorum(platform, *self, nodes).into_iter().collect()
    }

    fn replacement(&self, pods: &str) -> Effect {
        Effect::disruptive(format!(
            "restarts {pods} one after another; a master's turn is a failover of some seconds for its part of the keys"
        ))
    }

    fn removal(&self, pods: &str) -> Effect {
        Effect::quiet(format!(
            "removes {pods}, which give away the data that only they hold before; their volumes stay"
        ))
    }

    fn proposal(&self, level: &Level, share: Share) -> Proposal {
        let memory = match self {
            // A shard holds its part of the cache.
            Self::Cache => Size::mebibytes(level.cache.memory().as_mebibytes() / 3),
            Self::Sessions => Size::gibibytes(1),
        };
        let resources = Resources { cpu: share.small().resources.cpu, memory: share.memory(memory, 128) };
        let storage = Size::gibibytes((resources.memory.as_mebibytes() * 2).div_ceil(1024).max(1));
        Proposal { resources, storage: Some(storage) }
    }
}

/// The Service that leads to any node, or the headless one that gives each its name.
fn service(platform: &Platform, cluster: RedisCluster, name: &str, cluster_ip: Option<&str>) -> Object {
    let component = cluster.component();
    let mut spec = json!({
        "type": "ClusterIP",
        "selector": selector(platform.name(), component),
        "ports": [cluster.endpoint().service_port()],
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
    service: &str,
    configuration: &Value,
) -> Object {
    let unit = cluster.unit(platform);
    let template = Template {
        service_account: None,
        grace_period_seconds: 60,
        labels: &[],
        configuration: &[configuration],
        container: container(platform, facts, cluster),
        sidecars: Vec::new(),
        volumes: vec![
            json!({"name": "configuration", "configMap": {"name": unit.name}}),
            pod::secret_volume(platform, "credentials", cluster.credentials_file().key),
            json!({"name": "tmp", "emptyDir": {}}),
        ],
    };
    pod::stateful_set(platform, &unit, facts, service, template)
}

fn container(platform: &Platform, facts: &Facts, cluster: RedisCluster) -> Value {
    json!({
        "name": "redis",
        "image": facts.images.get(Image::Redis),
        "args": ["/etc/redis/redis.conf", "--cluster-announce-ip", "$(POD_IP)"],
        "env": [pod::field_env("POD_IP", "status.podIP")],
        "ports": cluster.endpoints().iter().map(Endpoint::container_port).collect::<Vec<_>>(),
        // Whether it serves its part of the cluster is asked only until it does, for as long as a day: the operator sees what becomes of it, and
        // to run a command takes some 140 ms of CPU, which adds up to half a core where twelve pods do so every few seconds.
        "startupProbe": {"exec": {"command": ["redis-ready"]}, "periodSeconds": 3, "timeoutSeconds": 5, "failureThreshold": 28_800},
        "readinessProbe": {"tcpSocket": {"port": "redis"}, "periodSeconds": 5, "timeoutSeconds": 2},
        // The kernel would accept connections for a Redis that hangs; any answer will do, were it that it loads its data. Redis 8.0 was
        // seen to turn in a circle for ever over a packet of another node (clusterProcessPingExtensions).
        "livenessProbe": {"exec": {"command": ["timeout", "4", "redis-cli", "PING"]}, "periodSeconds": 30, "timeoutSeconds": 5, "failureThreshold": 3},
        // A master hands over before it stops.
        "lifecycle": {"preStop": {"exec": {"command": ["redis-pre-stop"]}}},
        "resources": pod::resources(cluster.unit(platform).resources),
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
    let Shares { data, backlog, replica_buffer } = Shares::of(cluster, cluster.unit(platform).resources.memory);
    let own = match cluster {
        RedisCluster::Cache => "maxmemory-policy allkeys-lfu\nappendonly no",
        // What does not fit is refused: nobody is logged out to make room.
        RedisCluster::Sessions => "maxmemory-policy noeviction\nappendonly yes\nappendfsync everysec",
    };
    format!(
        "{}\nmaxmemory {data}mb\nrepl-backlog-size {backlog}mb\nclient-output-buffer-limit replica {replica_buffer}mb 0 0\n{own}\nsave \"\"\n\ninclude /etc/redis-credentials/{}\n",
        include_str!("redis.conf").replace("{node_timeout}", &REDIS_NODE_TIMEOUT_MILLISECONDS.to_string()),
        cluster.credentials_file().key
    )
}
