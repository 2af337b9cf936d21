//! PgBouncer: two databases, one that writes and one that reads. A router beside it takes its connections to whoever is the primary, or to a
//! replica that keeps up.

use std::fmt::Write;

use serde_json::{Value, json};
use taskplatform_crds::{Cpu, Duration, PoolMode, Resources, Size};

use super::{CredentialFile, Part, Proposal, Share, api, worker};
use crate::{
    Code, Component, Draft, Facts, Finding, Level, Object, Platform, Unit,
    endpoints::{Endpoint, Login, Outsider},
    findings,
    images::Image,
    object::Kind,
    pod,
    pod::Template,
    selector,
    unit::Workload,
};

impl Component {
    /// PgBouncer.
    pub const POOLER: Self = Self::new("pooler");
}

impl Endpoint {
    /// PgBouncer: the database `tasks` writes, `tasks_ro` reads.
    pub const POOLER: Self = Self {
        component: Component::POOLER,
        name: "pgbouncer",
        port: 6432,
        service: "",
        open_to: &[],
        login: Endpoint::PRIMARY.login,
    };

    /// PgBouncer's console on each of its pods.
    pub const POOLER_CONSOLE: Self = Self {
        open_to: &[Outsider::Operator],
        login: Some(Login { user: "pgbouncer", password: "pooler-password", alternates: true }),
        ..Self::POOLER
    };

    /// What the router beside PgBouncer has seen.
    pub const ROUTER: Self = Self {
        component: Component::POOLER,
        name: "router",
        port: 6433,
        service: "",
        open_to: &[Outsider::Cluster],
        login: None,
    };
}

/// PgBouncer's users.
const USERLIST: CredentialFile = CredentialFile {
    key: "userlist.txt",
    text: |credentials| {
        let logins = [Endpoint::POOLER.login, Endpoint::POOLER_CONSOLE.login].into_iter().flatten();
        logins
            .flat_map(|login| credentials.users(login))
            .map(|(user, password)| format!("\"{user}\" \"{password}\"\n"))
            .collect::<Vec<_>>()
            .concat()
    },
};

const COMPONENT: Component = Component::POOLER;

/// The router's ports on loopback: to the primary, and to the replicas.
const PRIMARY: u16 = 5432;
const REPLICAS: u16 = 5433;
/// What the router takes without connections, and for each, in KiB.
const ROUTER_MEMORY: (u64, u64) = (16 << 10, 24);
/// A pause of PgBouncer ends by itself after so many seconds, whoever ordered it and is gone: before requests that wait for it give up.
const LONGEST_PAUSE: u64 = 7;

/// PgBouncer.
pub(super) struct Pooler;

impl Part for Pooler {
    fn component(&self) -> Component {
        COMPONENT
    }

    fn units(&self, platform: &Draft, _: i32) -> Vec<Unit> {
        vec![unit(platform)]
    }

    fn objects(&self, platform: &Platform, facts: &Facts) -> Vec<Object> {
        let name = platform.names().component(COMPONENT);
        let configuration = json!({"pgbouncer.ini": configuration(platform)});
        let service = json!({"spec": {
            "type": "ClusterIP",
            "selector": selector(platform.name(), COMPONENT),
            "ports": [Endpoint::POOLER.service_port()],
        }});
        vec![
            Object::new(platform, COMPONENT, Kind::ConfigMap, &name, json!({"data": configuration})),
            Object::new(platform, COMPONENT, Kind::Service, &name, service),
            deployment(platform, facts, &configuration),
        ]
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        &[Endpoint::POOLER, Endpoint::POOLER_CONSOLE, Endpoint::ROUTER]
    }

    fn calls(&self) -> &'static [Endpoint] {
        &[Endpoint::PRIMARY, Endpoint::PATRONI]
    }

    fn image(&self) -> Image {
        Image::Pgbouncer
    }

    fn passwords(&self) -> &'static [&'static str] {
        &["pooler-password"]
    }

    fn credential_files(&self) -> &'static [CredentialFile] {
        &[USERLIST]
    }

    fn errors(&self, platform: &Draft) -> Vec<Finding> {
        client_connections(platform).into_iter().collect()
    }

    fn warnings(&self, platform: &Draft) -> Vec<Finding> {
        findings::single_pod("spec.pooler.replicas", "the pooler", unit(platform).pods).into_iter().collect()
    }

    fn proposal(&self, _: &Level, share: Share) -> Proposal {
        share.small()
    }
}

fn unit(platform: &Draft) -> Unit {
    let pooler = &platform.spec().pooler;
    Unit {
        component: COMPONENT,
        name: platform.names().component(COMPONENT),
        workload: Workload::Deployment,
        pods: pooler.replicas.get(),
        resources: pooler.resources,
        storage: None,
    }
}

fn deployment(platform: &Platform, facts: &Facts, configuration: &Value) -> Object {
    let unit = unit(platform);
    let (pgbouncer, router_takes) = split(platform, unit.resources);
    let template = Template {
        service_account: None,
        // The image's stop signal makes PgBouncer finish the running transactions.
        grace_period_seconds: 60,
        labels: &[],
        configuration: &[configuration],
        container: json!({
            "name": "pgbouncer",
            "image": facts.images.get(Image::Pgbouncer),
            "ports": [Endpoint::POOLER.container_port()],
            "readinessProbe": {"tcpSocket": {"port": "pgbouncer"}, "periodSeconds": 2, "timeoutSeconds": 2},
            "livenessProbe": {"tcpSocket": {"port": "pgbouncer"}, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
            // Nobody comes any more after five seconds; those who are there leave with an answer, for another one.
            "lifecycle": {"preStop": {"exec": {"command": [
                "postgres-router", "see-clients-off", "--after=5", format!("--pgbouncer-port={}", Endpoint::POOLER_CONSOLE.port),
            ]}}},
            "resources": pod::resources(pgbouncer),
            "securityContext": pod::security_context(),
            "volumeMounts": [
                {"name": "configuration", "mountPath": "/etc/pgbouncer", "readOnly": true},
                {"name": "credentials", "mountPath": "/etc/pgbouncer-credentials", "readOnly": true},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }),
        sidecars: vec![router(platform, facts, router_takes)],
        volumes: vec![
            json!({"name": "configuration", "configMap": {"name": unit.name}}),
            pod::secret_volume(platform, "credentials", USERLIST.key),
            json!({"name": "tmp", "emptyDir": {}}),
        ],
    };
    pod::deployment(platform, &unit, &1.into(), template)
}

/// It relays on loopback alone, so that no probe tells whether it does; where it ends, it is started again.
fn router(platform: &Platform, facts: &Facts, takes: Resources) -> Value {
    let spec = platform.spec();
    json!({
        "name": "router",
        "image": facts.images.get(Image::Pgbouncer),
        "command": ["postgres-router", "route"],
        "args": [
            format!("--members={}", platform.names().component(Component::DATABASE)),
            format!("--postgresql={}", Endpoint::PRIMARY.port),
            format!("--patroni={}", Endpoint::PATRONI.port),
            format!("--most-lag={}", spec.database.max_replica_lag.as_bytes()),
            format!("--primary={PRIMARY}"),
            format!("--replicas={REPLICAS}"),
            format!("--pgbouncer-port={}", Endpoint::POOLER_CONSOLE.port),
            format!("--login-retry={}", seconds(spec.pooler.server_login_retry)),
            format!("--longest-pause={LONGEST_PAUSE}"),
            format!("--listen={}", Endpoint::ROUTER.port),
        ],
        "ports": [Endpoint::ROUTER.container_port()],
        "resources": pod::resources(takes),
        "securityContext": pod::security_context(),
        // PgBouncer's socket is there.
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    })
}

/// What of a pod's resources PgBouncer gets, and what the router: a third of the CPU, and memory for its connections.
fn split(platform: &Draft, pod: Resources) -> (Resources, Resources) {
    let pooler = &platform.spec().pooler;
    let connections = 2 * (pooler.default_pool_size.get() + pooler.reserve_pool_size.get()).unsigned_abs();
    let (base, each) = ROUTER_MEMORY;
    let memory = ((base + each * u64::from(connections)) >> 10).min(pod.memory.as_mebibytes() / 2).max(1);
    let router = Resources { cpu: Cpu::millicores(pod.cpu.as_millicores() / 3), memory: Size::mebibytes(memory) };
    let rest = Resources {
        cpu: Cpu::millicores(pod.cpu.as_millicores() - router.cpu.as_millicores()),
        memory: Size::bytes(pod.memory.as_bytes().saturating_sub(router.memory.as_bytes())),
    };
    (rest, router)
}

/// Server connections that all poolers together open at most to one database.
pub(crate) fn server_connections(platform: &Draft) -> i32 {
    let pooler = &platform.spec().pooler;
    pooler.replicas.get() * (pooler.default_pool_size.get() + pooler.reserve_pool_size.get())
}

fn configuration(platform: &Platform) -> String {
    let pooler = &platform.spec().pooler;
    let pool_mode = match pooler.pool_mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
    };
    let settings: [(&str, String); 31] = [
        ("listen_addr", "*".into()),
        ("listen_port", Endpoint::POOLER.port.to_string()),
        ("unix_socket_dir", "/tmp".into()),
        ("auth_type", "scram-sha-256".into()),
        ("auth_file", format!("/etc/pgbouncer-credentials/{}", USERLIST.key)),
        ("admin_users", "pgbouncer, pgbouncer_2".into()),
        ("pool_mode", pool_mode.into()),
        ("default_pool_size", pooler.default_pool_size.to_string()),
        ("min_pool_size", pooler.min_pool_size.to_string()),
        ("reserve_pool_size", pooler.reserve_pool_size.to_string()),
        ("reserve_pool_timeout", seconds(pooler.reserve_pool_timeout)),
        ("max_client_conn", pooler.max_client_connections.to_string()),
        ("server_lifetime", seconds(pooler.server_lifetime)),
        ("server_idle_timeout", seconds(pooler.server_idle_timeout)),
        ("server_connect_timeout", seconds(pooler.server_connect_timeout)),
        ("server_login_retry", seconds(pooler.server_login_retry)),
        ("query_timeout", seconds(pooler.query_timeout)),
        ("query_wait_timeout", seconds(pooler.query_wait_timeout)),
        ("client_idle_timeout", seconds(pooler.client_idle_timeout)),
        ("client_login_timeout", seconds(pooler.client_login_timeout)),
        // Named statements survive transaction pooling.
        ("max_prepared_statements", "200".into()),
        ("ignore_startup_parameters", "extra_float_digits,options".into()),
        // A client that is cut off is given up within twenty seconds, not hours.
        ("tcp_keepalive", "1".into()),
        ("tcp_keepidle", "5".into()),
        ("tcp_keepintvl", "5".into()),
        ("tcp_keepcnt", "3".into()),
        ("tcp_user_timeout", "15000".into()),
        // After a failover, connections to the former primary go as soon as their transaction ends.
        ("server_fast_close", "1".into()),
        ("log_connections", "0".into()),
        ("log_disconnections", "0".into()),
        ("stats_period", "60".into()),
    ];
    let mut ini = String::from("[databases]\n");
    for (database, port) in [("tasks", PRIMARY), ("tasks_ro", REPLICAS)] {
        let _ = writeln!(ini, "{database} = host=127.0.0.1 port={port} dbname=tasks");
    }
    ini.push_str("\n[pgbouncer]\n");
    for (name, value) in settings {
        let _ = writeln!(ini, "{name} = {value}");
    }
    ini
}

/// PgBouncer reads seconds, and fractions of them.
fn seconds(duration: Duration) -> String {
    std::time::Duration::from(duration).as_secs_f64().to_string()
}

/// The connections of the API at its largest, against what the poolers accept.
fn client_connections(platform: &Draft) -> Option<Finding> {
    let spec = platform.spec();
    let (instances, workers) = (spec.scaling.max_instances.get(), spec.worker.replicas.get());
    let needed = instances * api::CONNECTIONS + workers * worker::CONNECTIONS;
    let accepted = spec.pooler.replicas.get().saturating_mul(spec.pooler.max_client_connections.get());
    if needed <= accepted {
        return None;
    }
    let each = spec.pooler.max_client_connections.get();
    let poolers = (needed + each - 1) / each;
    Some(Finding::new(
        Code::ClientConnections,
        "spec.pooler.maxClientConnections",
        format!(
            "{instances} instances of the API and {workers} workers may hold {needed} connections ({} an instance, {} a worker), but the poolers accept {accepted}",
            api::CONNECTIONS,
            worker::CONNECTIONS
        ),
        format!("raise it, run {poolers} poolers, or lower scaling.maxInstances"),
    ))
}
