//! What each example renders to, object by object, and the documented numbers in it.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use serde_json::Value;
use taskplatform_blueprint::{Facts, Kind, Object, Platform, blueprint};
use taskplatform_crds::TaskPlatform;

fn example(name: &str) -> TaskPlatform {
    // Told when the tests run: checkouts may share what is compiled.
    let path = format!("{}/../examples/{name}.yaml", std::env::var("CARGO_MANIFEST_DIR").unwrap());
    let platform: TaskPlatform = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    platform.check_rules().unwrap();
    platform
}

fn render(platform: &TaskPlatform) -> Vec<Object> {
    blueprint(&Platform::new(platform).unwrap(), &Facts::default())
}

/// The objects as `taskplatform render` prints them.
fn snapshot(name: &str) {
    let objects = render(&example(name));
    let mut yaml = String::new();
    for object in &objects {
        yaml.push_str("---\n");
        yaml.push_str(&serde_saphyr::to_string(object.value()).unwrap());
    }
    insta::assert_snapshot!(name, yaml);
}

#[test]
fn quickstart() {
    snapshot("quickstart");
}

#[test]
fn production() {
    snapshot("production");
}

#[test]
fn production_is_what_an_empty_spec_means() {
    let empty = TaskPlatform::new("tasks", taskplatform_crds::TaskPlatformSpec::default());
    assert_eq!(render(&empty), render(&example("production")));
}

fn find(objects: &[Object], kind: Kind, name: &str) -> Value {
    objects.iter().find(|object| object.kind() == kind && object.name() == name).unwrap().value().clone()
}

#[test]
fn production_has_the_documented_numbers() {
    let objects = render(&example("production"));

    let autoscaler = find(&objects, Kind::HorizontalPodAutoscaler, "tasks-api")["spec"].clone();
    assert_eq!((&autoscaler["minReplicas"], &autoscaler["maxReplicas"]), (&3.into(), &50.into()));
    assert_eq!(autoscaler["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
    assert_eq!(autoscaler["metrics"][1]["resource"]["target"]["averageUtilization"], 80);
    assert_eq!(autoscaler["metrics"][2]["pods"]["target"]["averageValue"], "1000");
    let up = &autoscaler["behavior"]["scaleUp"];
    assert_eq!(up["stabilizationWindowSeconds"], 60);
    assert_eq!((&up["policies"][0]["value"], &up["policies"][0]["periodSeconds"]), (&2.into(), &300.into()));
    let down = &autoscaler["behavior"]["scaleDown"];
    assert_eq!(down["stabilizationWindowSeconds"], 300);
    assert_eq!((&down["policies"][0]["value"], &down["policies"][0]["periodSeconds"]), (&1.into(), &600.into()));

    let pgbouncer = find(&objects, Kind::ConfigMap, "tasks-pooler")["data"]["pgbouncer.ini"].clone();
    for line in [
        "pool_mode = transaction",
        "default_pool_size = 25",
        "min_pool_size = 10",
        "reserve_pool_size = 5",
        "reserve_pool_timeout = 3",
        "max_client_conn = 10000",
        "server_lifetime = 3600",
        "server_idle_timeout = 600",
        "server_connect_timeout = 15",
        "server_login_retry = 15",
        "query_timeout = 0",
        "query_wait_timeout = 120",
        "client_idle_timeout = 0",
        "client_login_timeout = 60",
    ] {
        assert!(pgbouncer.as_str().unwrap().lines().any(|other| other == line), "pgbouncer.ini lacks {line:?}");
    }

    let nginx = find(&objects, Kind::ConfigMap, "tasks-gateway")["data"]["nginx.conf"].clone();
    for line in [
        "limit_req_zone $binary_remote_addr zone=global:10m rate=100r/s;",
        "limit_req_zone $binary_remote_addr zone=auth:10m rate=5r/m;",
        "limit_req_zone $binary_remote_addr zone=api:10m rate=1000r/s;",
        "limit_req zone=auth burst=10 nodelay;",
        "limit_req zone=api burst=2000 nodelay;",
        "limit_req_status 429;",
    ] {
        assert!(nginx.as_str().unwrap().lines().any(|other| other.trim() == line), "nginx.conf lacks {line:?}");
    }

    let probe =
        find(&objects, Kind::Deployment, "tasks-api")["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]
            .clone();
    assert_eq!(probe["httpGet"]["path"], "/api/health");
    assert_eq!((&probe["periodSeconds"], &probe["timeoutSeconds"]), (&30.into(), &10.into()));
    assert_eq!((&probe["successThreshold"], &probe["failureThreshold"]), (&2.into(), &3.into()));

    let database = find(&objects, Kind::StatefulSet, "tasks-database");
    assert_eq!(database["spec"]["replicas"], 4, "a primary and three read replicas");
}
