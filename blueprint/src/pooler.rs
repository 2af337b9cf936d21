//! PgBouncer: two databases, one that writes and one that reads.

use std::fmt::Write;

use serde_json::{Value, json};
use taskplatform_crds::{Duration, PoolMode};

use crate::{
    Component, Draft, Facts, Object, Platform, credentials::keys, network, network::Caller, object::Kind, pod,
    pod::Template, ports, selector,
};

const COMPONENT: Component = Component::Pooler;

pub(crate) fn objects(platform: &Platform, facts: &Facts) -> Vec<Object> {
    let name = platform.names().component(COMPONENT);
    let configuration = json!({"pgbouncer.ini": configuration(platform)});
    vec![
        network::policy(
            platform,
            facts,
            COMPONENT,
            &[(
                &[Caller::Component(Component::Api), Caller::Component(Component::Worker), Caller::Operator],
                &[ports::PGBOUNCER],
            )],
        ),
        Object::new(platform, COMPONENT, Kind::ConfigMap, &name, json!({"data": configuration})),
        Object::new(
            platform,
            COMPONENT,
            Kind::Service,
            &name,
            json!({"spec": {
                "type": "ClusterIP",
                "selector": selector(platform.name(), COMPONENT),
                "ports": [{"name": "pgbouncer", "port": ports::PGBOUNCER, "targetPort": "pgbouncer", "protocol": "TCP"}],
            }}),
        ),
        pod::disruption_budget(platform, COMPONENT),
        deployment(platform, facts, &name, &configuration),
    ]
}

fn deployment(platform: &Platform, facts: &Facts, name: &str, configuration: &Value) -> Object {
    let pooler = &platform.spec().pooler;
    let template = Template {
        component: COMPONENT,
        service_account: None,
        // The image's stop signal makes PgBouncer finish the running transactions.
        grace_period_seconds: 60,
        labels: &[],
        configuration: &[configuration],
        container: json!({
            "name": "pgbouncer",
            "image": facts.images.pgbouncer,
            "ports": [{"name": "pgbouncer", "containerPort": ports::PGBOUNCER, "protocol": "TCP"}],
            "readinessProbe": {"tcpSocket": {"port": "pgbouncer"}, "periodSeconds": 2, "timeoutSeconds": 2},
            "livenessProbe": {"tcpSocket": {"port": "pgbouncer"}, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
            "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
            "resources": pod::resources(pooler.resources),
            "securityContext": pod::security_context(),
            "volumeMounts": [
                {"name": "configuration", "mountPath": "/etc/pgbouncer", "readOnly": true},
                {"name": "credentials", "mountPath": "/etc/pgbouncer-credentials", "readOnly": true},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }),
        volumes: vec![
            json!({"name": "configuration", "configMap": {"name": name}}),
            pod::secret_volume(platform, "credentials", keys::USERLIST),
            json!({"name": "tmp", "emptyDir": {}}),
        ],
    };
    pod::deployment(platform, pooler.replicas.get(), &1.into(), template)
}

/// Server connections that all poolers together open at most to one database.
pub(crate) fn server_connections(platform: &Draft) -> i32 {
    let pooler = &platform.spec().pooler;
    pooler.replicas.get() * (pooler.default_pool_size.get() + pooler.reserve_pool_size.get())
}

fn configuration(platform: &Platform) -> String {
    let pooler = &platform.spec().pooler;
    let primary = platform.names().primary();
    // Without replicas the primary serves the reads.
    let reads =
        if platform.spec().database.read_replicas.get() > 0 { platform.names().replicas() } else { primary.clone() };
    let pool_mode = match pooler.pool_mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
    };
    let settings: [(&str, String); 31] = [
        ("listen_addr", "*".into()),
        ("listen_port", ports::PGBOUNCER.to_string()),
        ("unix_socket_dir", "/tmp".into()),
        ("auth_type", "scram-sha-256".into()),
        ("auth_file", format!("/etc/pgbouncer-credentials/{}", keys::USERLIST)),
        ("admin_users", "pgbouncer".into()),
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
        // A server that is cut off is given up within twenty seconds, not hours.
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
    for (database, host) in [("tasks", primary), ("tasks_ro", reads)] {
        let _ = writeln!(ini, "{database} = host={host} port={} dbname=tasks", ports::POSTGRESQL);
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
