//! PostgreSQL, run by Patroni: it elects, fences, clones and rewinds; Kubernetes keeps its state.

mod findings;
mod logins;
pub(crate) mod settings;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use taskplatform_crds::{Durability, Resources, Size};

use super::{CredentialFile, Part, Proposal, Share, pooler};
use crate::{
    Component, Credentials, Draft, Effect, Facts, Finding, Level, Object, Platform, Unit,
    endpoints::{Endpoint, Login, Outsider},
    images::Image,
    labels,
    object::Kind,
    pod,
    pod::Template,
    selector,
    unit::Workload,
};

impl Component {
    /// PostgreSQL.
    pub const DATABASE: Self = Self::new("database");
}

impl Endpoint {
    /// The PostgreSQL primary; also the name under which Patroni keeps its state.
    pub const PRIMARY: Self = Self {
        component: Component::DATABASE,
        name: "postgresql",
        port: 5432,
        service: "-primary",
        open_to: &[Outsider::Operator],
        login: Some(Login::TASKS),
    };

    /// Patroni's REST API on each member.
    pub const PATRONI: Self = Self {
        component: Component::DATABASE,
        name: "patroni",
        port: 8008,
        service: "",
        open_to: &[Outsider::Operator],
        login: Some(Login { user: "patroni", password: PATRONI_PASSWORD, alternates: false }),
    };
}

impl Login {
    /// PostgreSQL's superuser: the members use it without a password, the operator with one.
    pub const SUPERUSER: Self = Self { user: "postgres", password: "postgres-password", alternates: false };
    /// Streaming replication.
    pub const REPLICATION: Self = Self { user: "replicator", password: "replication-password", alternates: true };
    /// The task API's.
    pub const TASKS: Self = Self { user: "tasks", password: TASKS, alternates: true };
    /// `pg_rewind`.
    pub const REWIND: Self = Self { user: "rewind", password: "rewind-password", alternates: true };
}

/// The first roles, made when the first primary is.
const ROLES: CredentialFile = CredentialFile { key: "roles.sql", text: roles };

/// The key of the password of the task API's role in PostgreSQL.
pub(crate) const TASKS: &str = "tasks-password";
const PATRONI_PASSWORD: &str = "patroni-password";

/// The setting of Patroni that says how many bytes a member may be behind the last known position and lead all the same.
pub const MOST_LAG_TO_LEAD: &str = "maximum_lag_on_failover";

/// Connections beside the poolers': Patroni, upkeep, and a person at night.
const RESERVED_CONNECTIONS: i32 = 20;

const POST_BOOTSTRAP: &str = include_str!("post-bootstrap.sh");

const COMPONENT: Component = Component::DATABASE;

/// PostgreSQL's members.
pub(super) struct Database;

impl Part for Database {
    fn component(&self) -> Component {
        COMPONENT
    }

    fn units(&self, platform: &Draft, _: i32) -> Vec<Unit> {
        vec![unit(platform)]
    }

    fn objects(&self, platform: &Platform, facts: &Facts) -> Vec<Object> {
        let name = platform.names().component(COMPONENT);
        let primary = Endpoint::PRIMARY.host(platform);
        let local = local_configuration(platform);
        let configuration = json!({"patroni.yml": patroni_yml(platform, &local), "post-bootstrap": POST_BOOTSTRAP});
        let account = json!({"automountServiceAccountToken": false});
        let mut objects = vec![
            Object::new(platform, COMPONENT, Kind::ServiceAccount, &name, account).kept_with_volumes(platform),
            role(platform, &name).kept_with_volumes(platform),
            role_binding(platform, &name).kept_with_volumes(platform),
            Object::new(platform, COMPONENT, Kind::ConfigMap, &name, json!({"data": configuration})),
            service(platform, &name, Addresses::Members),
            service(platform, &primary, Addresses::Primary).kept_with_volumes(platform),
            stateful_set(platform, facts, &local),
        ];
        // Patroni keeps its state in Endpoints of these names and of the primary's. Endpoints without a Service are swept away, and the
        // Service's end is theirs. It is as much a part of the data as the volumes: who is taken for up to date follows from it. So that
        // the primary can note its last position when it stops for good, its rights stay as well.
        for state in ["config", "failover", "sync"] {
            objects.push(service(platform, &format!("{primary}-{state}"), Addresses::None).kept_with_volumes(platform));
        }
        objects
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        &[Endpoint::PRIMARY, Endpoint::PATRONI]
    }

    fn calls(&self) -> &'static [Endpoint] {
        &[Endpoint::PRIMARY, Endpoint::PATRONI]
    }

    fn image(&self) -> Image {
        Image::Postgres
    }

    fn passwords(&self) -> &'static [&'static str] {
        &[Login::SUPERUSER.password, Login::REPLICATION.password, Login::REWIND.password, PATRONI_PASSWORD, TASKS]
    }

    fn credential_files(&self) -> &'static [CredentialFile] {
        &[ROLES]
    }

    fn errors(&self, platform: &Draft) -> Vec<Finding> {
        findings::errors(platform)
    }

    fn warnings(&self, platform: &Draft) -> Vec<Finding> {
        findings::warnings(platform)
    }

    fn replacement(&self, pods: &str) -> Effect {
        Effect::disruptive(format!(
            "restarts {pods} one after another, the primary last and after a switchover, for which writes wait some seconds"
        ))
    }

    fn removal(&self, pods: &str) -> Effect {
        Effect::quiet(format!("removes {pods}; their volumes stay"))
    }

    fn proposal(&self, level: &Level, share: Share) -> Proposal {
        let resources =
            Resources { cpu: share.cpu(level.database.cpu(), 100), memory: share.memory(level.database.memory(), 512) };
        Proposal { resources, storage: Some(Size::gibibytes(if share.is_whole() { 100 } else { 10 })) }
    }
}

fn unit(platform: &Draft) -> Unit {
    let database = &platform.spec().database;
    Unit {
        component: COMPONENT,
        name: platform.names().component(COMPONENT),
        workload: Workload::StatefulSet,
        pods: platform.database_members(),
        resources: database.resources,
        storage: Some(database.storage.volume()),
    }
}

/// The connections that the primary may see: it serves the reads as well when no replica is left.
pub(crate) fn connections(platform: &Draft) -> i32 {
    2 * pooler::server_connections(platform) + RESERVED_CONNECTIONS
}

/// Patroni's dynamic configuration: what all members agree on. It is written at the first start; the operator changes it
/// through Patroni's REST API afterwards, which restarts nothing that need not be.
pub fn dynamic_configuration(platform: &Platform) -> Value {
    let durability = platform.spec().database.durability;
    json!({
        "ttl": 20,
        "loop_wait": 5,
        "retry_timeout": 5,
        // While the API server is away, the primary goes on as long as it reaches every member.
        "failsafe_mode": true,
        // A member that missed a failover does not lead.
        "check_timeline": true,
        // A commit waits for one replica, whichever is first. One that has not all that was acknowledged does not lead.
        "synchronous_mode": if durability == Durability::Async { "off" } else { "quorum" },
        "synchronous_mode_strict": durability == Durability::SyncStrict,
        "synchronous_node_count": 1,
        // A primary that crashed is replaced at once rather than started again in place.
        "primary_start_timeout": 0,
        (MOST_LAG_TO_LEAD): 16 << 20,
        "postgresql": {
            "use_pg_rewind": true,
            "use_slots": true,
            "remove_data_directory_on_rewind_failure": true,
            "remove_data_directory_on_diverged_timelines": true,
            "parameters": parameters(platform),
        },
    })
}

/// PostgreSQL's settings: what follows from the resources, then what the user says.
pub(crate) fn parameters(platform: &Draft) -> BTreeMap<String, Value> {
    let database = &platform.spec().database;
    let memory = database.resources.memory.as_mebibytes();
    let disk = database.storage.size.as_mebibytes();
    // In steps of a hundred: a slightly larger pool must not restart PostgreSQL.
    let connections = (connections(platform) + 99) / 100 * 100;
    let megabytes = |value: u64| Value::from(format!("{value}MB"));
    let sort_memory = memory / 4 / u64::from(connections.unsigned_abs());
    let mut parameters: BTreeMap<String, Value> = [
        ("max_connections", connections.to_string().into()),
        ("shared_buffers", megabytes((memory / 4).max(16))),
        ("effective_cache_size", megabytes((memory * 3 / 4).max(32))),
        ("work_mem", megabytes(sort_memory.clamp(1, 64))),
        ("maintenance_work_mem", megabytes((memory / 16).clamp(16, 2048))),
        ("wal_log_hints", "on".into()),
        ("wal_compression", "on".into()),
        ("checkpoint_timeout", "15min".into()),
        ("max_wal_size", megabytes((disk / 10).clamp(128, 16384))),
        ("min_wal_size", megabytes((disk / 40).clamp(80, 4096))),
        // A replica that is gone must not fill the primary's disk: it is cloned again.
        ("max_slot_wal_keep_size", megabytes((disk / 4).max(128))),
        ("random_page_cost", "1.1".into()),
        ("jit", "off".into()),
        ("hot_standby_feedback", "on".into()),
        ("idle_in_transaction_session_timeout", "60s".into()),
        // A query whose client is gone stops.
        ("client_connection_check_interval", "10s".into()),
        // A member whose node is gone, frozen or cut off is not waited for longer. It is asked after half of that.
        ("wal_sender_timeout", "10s".into()),
        ("wal_receiver_timeout", "10s".into()),
        // A replica that has just lost its primary sleeps for so long before it notices that it is promoted: 5 s, if it were PostgreSQL's own.
        ("wal_retrieve_retry_interval", "250ms".into()),
        ("tcp_keepalives_idle", "30".into()),
        ("tcp_keepalives_interval", "10".into()),
        ("tcp_keepalives_count", "3".into()),
        ("log_checkpoints", "on".into()),
        ("log_lock_waits", "on".into()),
        ("log_min_duration_statement", "1s".into()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    parameters.extend(database.parameters.iter().map(|(name, value)| (name.clone(), value.0.as_str().into())));
    parameters
}

/// What a member reads when it starts. A change of it restarts the members.
fn local_configuration(platform: &Platform) -> Value {
    let mut patroni_labels = Map::new();
    patroni_labels.extend(labels(platform.name(), COMPONENT));
    json!({
        "scope": Endpoint::PRIMARY.host(platform),
        // Routers, the operator and the kubelet ask at once while it is busy with a switchover: whoever finds the queue of 5, Patroni's own, full is
        // heard a second later.
        "restapi": {"listen": format!("*:{}", Endpoint::PATRONI.port), "request_queue_size": 128},
        "kubernetes": {
            "labels": patroni_labels,
            "scope_label": "cluster-name",
            // Patroni moves the primary's endpoint in the same write that moves the lead. Labels of pods would go stale
            // on a node that is cut off.
            "use_endpoints": true,
            "ports": [{"name": "postgresql", "port": Endpoint::PRIMARY.port}],
            "bypass_api_service": false,
        },
        "postgresql": {
            "listen": format!("*:{}", Endpoint::PRIMARY.port),
            "bin_dir": "/usr/lib/postgresql/17/bin",
            "data_dir": "/data/pgdata",
            "pgpass": "/tmp/pgpass",
            "use_unix_socket": true,
            "parameters": {"unix_socket_directories": "/tmp"},
            "pg_hba": [
                "local all all trust",
                "host replication replicator,replicator_2 all scram-sha-256",
                "host all rewind,rewind_2 all scram-sha-256",
                "host tasks tasks,tasks_2 all scram-sha-256",
                "host postgres postgres all scram-sha-256",
            ],
            "basebackup": [{"checkpoint": "fast"}],
            "authentication": {
                "superuser": {"username": Login::SUPERUSER.user},
            },
        },
    })
}

fn patroni_yml(platform: &Platform, local: &Value) -> String {
    let mut configuration = local.clone();
    configuration["bootstrap"] = json!({
        "dcs": dynamic_configuration(platform),
        "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums"],
        "post_bootstrap": "/bin/sh /etc/patroni/post-bootstrap",
    });
    // JSON is YAML.
    format!("{configuration:#}\n")
}

#[derive(Clone, Copy)]
enum Addresses {
    /// All members, ready or not: they find each other.
    Members,
    /// The one that Patroni names.
    Primary,
    /// None.
    None,
}

fn service(platform: &Platform, name: &str, addresses: Addresses) -> Object {
    let mut spec = json!({
        "type": "ClusterIP",
        "ports": [Endpoint::PRIMARY.service_port()],
    });
    match addresses {
        Addresses::Members => {
            spec["clusterIP"] = "None".into();
            spec["publishNotReadyAddresses"] = true.into();
            spec["selector"] = selector(platform.name(), COMPONENT).into();
        }
        Addresses::Primary => {}
        Addresses::None => spec["clusterIP"] = "None".into(),
    }
    Object::new(platform, COMPONENT, Kind::Service, name, json!({"spec": spec}))
}

fn role(platform: &Platform, name: &str) -> Object {
    Object::new(
        platform,
        COMPONENT,
        Kind::Role,
        name,
        json!({"rules": [
            {"apiGroups": [""], "resources": ["endpoints"], "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "patch", "update", "watch"]},
        ]}),
    )
}

fn role_binding(platform: &Platform, name: &str) -> Object {
    Object::new(
        platform,
        COMPONENT,
        Kind::RoleBinding,
        name,
        json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": platform.namespace()}],
        }),
    )
}

fn stateful_set(platform: &Platform, facts: &Facts, local: &Value) -> Object {
    let unit = unit(platform);
    let template = Template {
        service_account: Some(unit.name.clone()),
        // A primary writes its last checkpoint.
        grace_period_seconds: 120,
        labels: &[("cluster-name", Endpoint::PRIMARY.host(platform))],
        configuration: &[local],
        container: container(platform, facts),
        sidecars: Vec::new(),
        volumes: vec![
            json!({"name": "configuration", "configMap": {"name": unit.name}}),
            pod::secret_volume(platform, "credentials", ROLES.key),
            json!({"name": "tmp", "emptyDir": {}}),
            // Parallel queries share memory here; a container's own /dev/shm has 64 MB.
            json!({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shared_memory(platform)}}),
        ],
    };
    pod::stateful_set(platform, &unit, facts, &unit.name, template)
}

fn user(facts: &Facts, login: Login) -> String {
    login.user_at(facts.version(login.password))
}

/// `tasks` owns the database, whoever logs in.
fn roles(credentials: &Credentials) -> String {
    let logins = [Login::SUPERUSER, Login::TASKS].into_iter();
    let admitted = logins
        .filter_map(|login| credentials.users(login).next().map(|(user, password)| login.admission(&user, password)));
    format!("CREATE ROLE tasks;\nCREATE DATABASE tasks OWNER tasks;\n{}", admitted.collect::<String>())
}

fn shared_memory(platform: &Platform) -> String {
    format!("{}Mi", (platform.spec().database.resources.memory.as_mebibytes() / 4).max(64))
}

fn container(platform: &Platform, facts: &Facts) -> Value {
    json!({
        "name": "postgres",
        "image": facts.images.get(Image::Postgres),
        "env": [
            pod::field_env("PATRONI_NAME", "metadata.name"),
            // Commits wait for a replica on another node.
            pod::field_env("NODE_NAME", "spec.nodeName"),
            pod::field_env("PATRONI_KUBERNETES_NAMESPACE", "metadata.namespace"),
            pod::field_env("PATRONI_KUBERNETES_POD_IP", "status.podIP"),
            {"name": "PATRONI_RESTAPI_CONNECT_ADDRESS", "value": format!("$(PATRONI_KUBERNETES_POD_IP):{}", Endpoint::PATRONI.port)},
            {"name": "PATRONI_POSTGRESQL_CONNECT_ADDRESS", "value": format!("$(PATRONI_KUBERNETES_POD_IP):{}", Endpoint::PRIMARY.port)},
            {"name": "PATRONI_RESTAPI_USERNAME", "value": "patroni"},
            pod::secret_env(platform, facts, "PATRONI_RESTAPI_PASSWORD", PATRONI_PASSWORD),
            {"name": "PATRONI_REPLICATION_USERNAME", "value": user(facts, Login::REPLICATION)},
            pod::secret_env(platform, facts, "PATRONI_REPLICATION_PASSWORD", Login::REPLICATION.password),
            {"name": "PATRONI_REWIND_USERNAME", "value": user(facts, Login::REWIND)},
            pod::secret_env(platform, facts, "PATRONI_REWIND_PASSWORD", Login::REWIND.password),
        ],
        "ports": [
            Endpoint::PRIMARY.container_port(),
            Endpoint::PATRONI.container_port(),
        ],
        "readinessProbe": {"httpGet": {"path": "/readiness", "port": "patroni"}, "periodSeconds": 2, "timeoutSeconds": 3},
        // Patroni itself, not PostgreSQL: whether PostgreSQL is to be restarted is Patroni's decision.
        "livenessProbe": {"httpGet": {"path": "/liveness", "port": "patroni"}, "initialDelaySeconds": 30, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        "resources": pod::resources(platform.spec().database.resources),
        "securityContext": pod::security_context(),
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "configuration", "mountPath": "/etc/patroni", "readOnly": true},
            {"name": "credentials", "mountPath": "/etc/patroni-credentials", "readOnly": true},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    })
}
