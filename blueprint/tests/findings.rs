//! Each code of a finding: a spec that has it, and one that just has not. The first two come of reading a document, and are tested where that
//! is done.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use taskplatform_blueprint::{Code, Finding, Nodes, Platform, Severity, findings, fixed_instances};
use taskplatform_crds::TaskPlatform;

fn platform(spec: &Value) -> TaskPlatform {
    let document = json!({
        "apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform", "metadata": {"name": "tasks"}, "spec": spec,
    });
    TaskPlatform::parse(document).unwrap()
}

fn of(code: Code, spec: &Value, nodes: Option<&str>) -> Vec<Finding> {
    let nodes: Option<Nodes> = nodes.map(|nodes| nodes.parse().unwrap());
    let mut found = findings(&platform(spec), nodes.as_ref());
    found.retain(|finding| finding.code == code);
    found
}

/// `has` has the finding at `field`, `has_not` is next to it and has none.
#[track_caller]
fn boundary(code: Code, field: &str, has: &Value, has_not: &Value, nodes: Option<&str>) {
    let found = of(code, has, nodes);
    let fields: Vec<&str> = found.iter().map(|finding| finding.field.as_str()).collect();
    assert_eq!(fields, [field], "{found:#?}");
    assert_eq!(of(code, has_not, nodes), [], "{has_not}");
    let buildable = Platform::new(&platform(has)).is_ok();
    assert_eq!(buildable, code.severity() == Severity::Warning, "an error is refused, a warning is not");
}

fn parameters(name: &str, value: &str) -> Value {
    json!({"database": {"parameters": {name: value}}})
}

#[test]
fn server_connections() {
    // 2 poolers × (25 + 5) × 2 databases + 20.
    let field = "spec.database.parameters.max_connections";
    let with = |value| parameters("max_connections", value);
    boundary(Code::ServerConnections, field, &with("139"), &with("140"), None);
    assert_eq!(of(Code::ServerConnections, &with("many"), None), [], "what cannot be read is told by itself");
}

#[test]
fn client_connections() {
    // 50 instances × 16 + 1 worker × 12, over two poolers.
    let with = |each| json!({"pooler": {"maxClientConnections": each}});
    boundary(Code::ClientConnections, "spec.pooler.maxClientConnections", &with(405), &with(406), None);
}

#[test]
fn shared_buffers() {
    // Four fifths of 10 GiB.
    let with = |value: &str| json!({"database": {"resources": {"cpu": "1", "memory": "10Gi"}, "parameters": {"shared_buffers": value}}});
    boundary(Code::SharedBuffers, "spec.database.parameters.shared_buffers", &with("8193MB"), &with("8GB"), None);
    boundary(Code::SharedBuffers, "spec.database.parameters.shared_buffers", &with("1048577"), &with("1048576"), None);
}

#[test]
fn work_memory() {
    // 140 connections; a quarter of 16 GiB are shared buffers, so 12 GiB are left: 87.7 MiB each.
    let field = "spec.database.parameters.work_mem";
    boundary(Code::WorkMemory, field, &parameters("work_mem", "88MB"), &parameters("work_mem", "87MB"), None);
}

#[test]
fn api_memory() {
    // 40 MiB and an eighth, of which 80 percent: 40 / (0.8 - 0.125) = 59.3 MiB.
    let with = |memory| json!({"api": {"resources": {"cpu": "1", "memory": memory}}});
    boundary(Code::ApiMemory, "spec.api.resources.memory", &with("59Mi"), &with("60Mi"), None);
    let tight = json!({"scaling": {"targetMemory": 12}});
    assert!(of(Code::ApiMemory, &tight, None)[0].remedy.contains("targetMemory"));
}

#[test]
fn small_volumes() {
    let redis = |component: &str, size: &str| json!({component: {"resources": {"cpu": "1", "memory": "4Gi"}, "storage": {"size": size}}});
    // Two of 2438 and of 1632 MiB.
    let cache = ["4875Mi", "4876Mi"].map(|size| redis("cache", size));
    boundary(Code::SmallVolume, "spec.cache.storage.size", &cache[0], &cache[1], None);
    let sessions = ["3263Mi", "3264Mi"].map(|size| redis("sessions", size));
    boundary(Code::SmallVolume, "spec.sessions.storage.size", &sessions[0], &sessions[1], None);
    let database = ["1023Mi", "1Gi"].map(|size| json!({"database": {"storage": {"size": size}}}));
    boundary(Code::SmallVolume, "spec.database.storage.size", &database[0], &database[1], None);
}

#[test]
fn small_nodes_of_redis() {
    let with = |component: &str, shards: i32, memory: &str| json!({component: {"shards": shards, "resources": {"cpu": "1", "memory": memory}}});
    for (component, shards, has, has_not) in [
        ("cache", 3, "61Mi", "62Mi"),
        ("sessions", 3, "60Mi", "61Mi"),
        ("sessions", 6, "43Mi", "44Mi"),
        ("sessions", 100, "28Mi", "29Mi"),
    ] {
        let field = format!("spec.{component}.resources.memory");
        boundary(Code::RedisMemory, &field, &with(component, shards, has), &with(component, shards, has_not), None);
    }
    let found = of(Code::RedisMemory, &with("sessions", 3, "32Mi"), None);
    assert!(found[0].remedy.contains("61Mi"), "{found:?}");
}

#[test]
fn bytes_alone() {
    let resources = |memory: &Value| json!({"cpu": "1", "memory": memory});
    let with = |size: Value| {
        json!({
            "api": {"resources": resources(&size)}, "gateway": {"resources": resources(&size)},
            "database": {"resources": resources(&size), "storage": {"size": size}}, "pooler": {"resources": resources(&size)},
            "cache": {"resources": resources(&size), "storage": {"size": size}},
            "sessions": {"resources": resources(&size), "storage": {"size": size}}, "worker": {"resources": resources(&size)},
        })
    };
    let found = of(Code::BytesAlone, &with(json!(512)), None);
    let fields: Vec<&str> = found.iter().map(|finding| finding.field.as_str()).collect();
    let memory = ["api", "gateway", "database", "pooler", "cache", "sessions", "worker"];
    let volumes = ["database", "cache", "sessions"];
    assert_eq!(fields.len(), memory.len() + volumes.len(), "{fields:?}");
    assert!(memory.iter().all(|component| fields.contains(&format!("spec.{component}.resources.memory").as_str())));
    assert!(volumes.iter().all(|component| fields.contains(&format!("spec.{component}.storage.size").as_str())));
    assert_eq!(of(Code::BytesAlone, &with(json!("1Mi")), None), []);
    let one = |memory: Value| json!({"api": {"resources": resources(&memory)}});
    boundary(Code::BytesAlone, "spec.api.resources.memory", &one(json!(1_048_575)), &one(json!(1_048_576)), None);
}

#[test]
fn settings_of_postgresql() {
    let field = |name: &str| format!("spec.database.parameters.{name}");
    for (code, name, value, right) in [
        (Code::UnknownSetting, "max_paralel_workers", "4", ("max_parallel_workers", "4")),
        (Code::UnknownSetting, "teleporter", "on", ("pg_stat_statements.max", "whatever")),
        (Code::SettingValue, "shared_buffers", "2Gi", ("shared_buffers", "2GB")),
        (Code::SettingValue, "work_mem", "32", ("work_mem", "64")),
        (Code::SettingValue, "statement_timeout", "30 sec", ("statement_timeout", "30 s")),
        (Code::SettingValue, "random_page_cost", "1,1", ("random_page_cost", "1.1")),
        (Code::SettingValue, "server_version", "17", ("log_line_prefix", "17")),
    ] {
        boundary(code, &field(name), &parameters(name, value), &parameters(right.0, right.1), None);
    }
    let found = of(Code::UnknownSetting, &parameters("max_paralel_workers", "4"), None);
    assert_eq!(found[0].remedy, "write max_parallel_workers, if that was meant");
}

#[test]
fn a_number_of_instances_is_told_of_files_alone() {
    let with = platform(&json!({"api": {"replicas": 4}}));
    assert_eq!(findings(&with, None), []);
    let found = fixed_instances(&with).unwrap();
    assert_eq!((found.code, found.field.as_str()), (Code::FixedInstances, "spec.api.replicas"));
    assert_eq!(fixed_instances(&platform(&json!({"api": {}}))), None);
}

#[test]
fn no_failover() {
    for (component, field) in
        [("database", "readReplicas"), ("cache", "replicasPerShard"), ("sessions", "replicasPerShard")]
    {
        let with = |replicas: i32| json!({component: {field: replicas}});
        boundary(Code::NoFailover, &format!("spec.{component}.{field}"), &with(0), &with(1), None);
    }
}

#[test]
fn durability() {
    let with =
        |durability: &str, replicas: i32| json!({"database": {"durability": durability, "readReplicas": replicas}});
    let field = "spec.database.durability";
    boundary(Code::Durability, field, &with("Async", 3), &with("Sync", 1), None);
    boundary(Code::Durability, field, &with("SyncStrict", 1), &with("SyncStrict", 2), None);
    boundary(Code::NeverDurable, field, &with("SyncStrict", 0), &with("Sync", 0), None);
}

#[test]
fn no_quorum() {
    let found = |nodes| of(Code::NoQuorum, &json!({}), Some(nodes)).len();
    // Both clusters have three masters.
    assert_eq!([found("1x64cpu,512Gi"), found("2x64cpu,512Gi"), found("3x64cpu,512Gi")], [2, 2, 0]);
    let with = |shards: i32| json!({"cache": {"shards": shards}, "sessions": {"replicasPerShard": 0}});
    // Of five masters on two nodes three may go at once; of none on a third node more than two.
    boundary(
        Code::NoQuorum,
        "spec.cache.shards",
        &with(5),
        &json!({"cache": {"replicasPerShard": 0}, "sessions": {"replicasPerShard": 0}}),
        Some("2x64cpu,512Gi"),
    );
}

#[test]
fn single_pods() {
    for (component, field) in [("scaling", "minInstances"), ("gateway", "replicas"), ("pooler", "replicas")] {
        let with = |pods: i32| json!({component: {field: pods}});
        boundary(Code::SinglePod, &format!("spec.{component}.{field}"), &with(1), &with(2), None);
    }
}

#[test]
fn pods_that_are_too_large() {
    let with = |cpu| json!({"database": {"resources": {"cpu": cpu, "memory": "16Gi"}}});
    let nodes = Some("3x4cpu,16Gi");
    boundary(Code::PodTooLarge, "spec.database.resources", &with("4001m"), &with("4"), nodes);
}

#[test]
fn too_few_nodes() {
    // Without the API: 8 gateways, poolers, members and workers, 12 nodes of Redis.
    let with = |max: i32| json!({"scaling": {"minInstances": 3, "maxInstances": max}, "api": {"resources": {"cpu": "1", "memory": "256Mi"}}});
    let most = (3..1000).find(|max| !of(Code::TooFewNodes, &with(*max), Some("8x8cpu,64Gi")).is_empty()).unwrap();
    boundary(Code::TooFewNodes, "spec.scaling.maxInstances", &with(most), &with(most - 1), Some("8x8cpu,64Gi"));
    assert!(
        (25..40).contains(&most),
        "64 CPU hold 29.25 of other components and the rest of the API, but it was {most}"
    );
    let least = of(Code::TooFewNodes, &json!({}), Some("2x8cpu,64Gi"));
    assert_eq!(least[0].field, "spec.scaling.minInstances");
}

#[test]
fn the_examples_have_no_findings() {
    for name in ["production", "quickstart"] {
        let path = format!("{}/../examples/{name}.yaml", std::env::var("CARGO_MANIFEST_DIR").unwrap());
        let platform: TaskPlatform = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(findings(&platform, None), [], "{name}");
    }
}

#[test]
fn every_code_is_explained() {
    let titles: BTreeSet<String> = Code::ALL.into_iter().map(|code| format!("{code} {}", code.severity())).collect();
    for code in Code::ALL {
        let explanation = code.explanation();
        let title = explanation.lines().next().unwrap();
        assert!(title.starts_with(&format!("## {code} {}: ", code.severity())), "{title}");
        assert!(explanation.lines().count() > 2, "{code} has no paragraph");
    }
    assert_eq!(titles.len(), Code::ALL.len());
    let page = include_str!("../../docs/findings.md");
    assert_eq!(page.matches("\n## TP").count(), Code::ALL.len(), "a part for each code, and for no other");
}
