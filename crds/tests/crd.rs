//! The checked-in definition is the type's; the type's rules refuse what they should.

#![expect(clippy::needless_pass_by_value, reason = "specs are written where they are passed")]

use serde_json::{Value, json};
use taskplatform_crds::{TaskPlatform, definition_yaml};

#[test]
fn the_checked_in_definition_is_current() {
    let checked_in = include_str!("../taskplatform.yaml");
    assert!(definition_yaml().unwrap() == checked_in, "crds/taskplatform.yaml is stale: run `make crds`");
}

#[test]
fn every_field_is_documented() {
    fn walk(path: &str, schema: &Value, undocumented: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if path.starts_with(".metadata") || path == ".apiVersion" || path == ".kind" {
                continue;
            }
            if property["description"].as_str().is_none_or(str::is_empty) && !path.contains(".conditions") {
                undocumented.push(path.clone());
            }
            walk(&path, property, undocumented);
        }
    }
    let definition: Value = serde_saphyr::from_str(&definition_yaml().unwrap()).unwrap();
    let mut undocumented = Vec::new();
    walk("", &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut undocumented);
    assert!(undocumented.is_empty(), "no documentation for `kubectl explain`: {undocumented:?}");
}

fn platform(spec: Value) -> Value {
    json!({"apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform", "metadata": {"name": "tasks"}, "spec": spec})
}

#[test]
fn an_empty_spec_is_the_documented_platform() {
    let platform = TaskPlatform::parse(platform(json!({}))).unwrap();
    let spec = serde_json::to_value(&platform.spec).unwrap();
    assert_eq!(
        spec["scaling"],
        json!({
            "minInstances": 3, "maxInstances": 50, "targetCPU": 70, "targetMemory": 80, "targetRPS": 1000,
            "scaleUp": {"threshold": 80, "period": "60s", "cooldown": "300s", "increment": 2},
            "scaleDown": {"threshold": 30, "period": "300s", "cooldown": "600s", "decrement": 1},
        })
    );
    assert_eq!(
        spec["gateway"]["rateLimits"],
        json!({"global": "100r/s", "auth": {"rate": "5r/m", "burst": 10}, "api": {"rate": "1000r/s", "burst": 2000}})
    );
    assert_eq!(
        spec["gateway"]["healthCheck"],
        json!({"path": "/api/health", "interval": "30s", "timeout": "10s", "healthyThreshold": 2, "unhealthyThreshold": 3})
    );
    assert_eq!(spec["database"]["readReplicas"], 3);
    assert_eq!(spec["sessions"]["ttl"], "86400s");
}

/// A spec, the field that the message must name, and a part of the message.
fn bad_specs() -> Vec<(Value, &'static str, &'static str)> {
    vec![
        (
            json!({"scaling": {"minInstances": 5, "maxInstances": 4}}),
            "spec.scaling",
            "minInstances must not be above maxInstances",
        ),
        (json!({"scaling": {"targetCPU": 80}}), "spec.scaling", "scaleDown.threshold < targetCPU < scaleUp.threshold"),
        (json!({"scaling": {"maxInstances": 0}}), "spec.scaling.maxInstances", "from 1 to 1000"),
        (json!({"scaling": {"scaleUp": {"cooldown": "31m"}}}), "spec.scaling.scaleUp", "30m"),
        (json!({"scaling": {"scaleDown": {"period": "2h"}}}), "spec.scaling.scaleDown", "1h"),
        (json!({"scaling": {"scaleUp": {"period": "soon"}}}), "spec.scaling.scaleUp.period", "such as 300s"),
        (json!({"gateway": {"rateLimits": {"global": "100/s"}}}), "spec.gateway.rateLimits.global", "100r/s"),
        (
            json!({"gateway": {"healthCheck": {"timeout": "31s"}}}),
            "spec.gateway.healthCheck",
            "timeout must not be above interval",
        ),
        (
            json!({"gateway": {"service": {"type": "ClusterIP", "nodePort": 30080}}}),
            "spec.gateway.service",
            "nodePort needs",
        ),
        (json!({"gateway": {"type": "Apache"}}), "spec.gateway.type", "Nginx"),
        (
            json!({"database": {"parameters": {"wal_level": "minimal"}}}),
            "spec.database.parameters",
            "belongs to the operator",
        ),
        (json!({"database": {"parameters": {"Work-Mem": "1MB"}}}), "spec.database.parameters", "such as work_mem"),
        (json!({"database": {"storage": {"size": "many"}}}), "spec.database.storage.size", "such as 512Mi"),
        (json!({"database": {"resources": {"cpu": "fast", "memory": "1Gi"}}}), "spec.database.resources.cpu", "500m"),
        (json!({"pooler": {"minPoolSize": 26}}), "spec.pooler", "minPoolSize must not be above defaultPoolSize"),
        (json!({"pooler": {"poolMode": "statement"}}), "spec.pooler.poolMode", "transaction"),
        (json!({"cache": {"shards": 2}}), "spec.cache.shards", "from 3 to 100"),
        (json!({"sessions": {"ttl": "5s"}}), "spec.sessions.ttl", "at least 1m"),
        (json!({"scalling": {}}), "spec", "scalling"),
    ]
}

#[test]
fn a_bad_spec_is_refused_with_the_field_and_the_way_out() {
    for (spec, field, message) in bad_specs() {
        let error = TaskPlatform::parse(platform(spec.clone())).expect_err(&format!("{spec} was accepted")).to_string();
        assert!(error.contains(field), "{spec}: {error:?} does not name {field}");
        assert!(error.contains(message), "{spec}: {error:?} does not say {message:?}");
    }
}

#[test]
fn a_name_that_would_not_fit_into_names_is_refused() {
    for name in ["a".repeat(33), "1tasks".into(), "Tasks".into(), "my.tasks".into(), "tasks-".into()] {
        let mut document = platform(json!({}));
        document["metadata"]["name"] = json!(name);
        let error = TaskPlatform::parse(document).expect_err(&name).to_string();
        assert!(error.contains("at most 32"), "{name}: {error}");
    }
}

#[test]
fn a_change_that_would_lose_data_is_refused() {
    let old = TaskPlatform::parse(platform(json!({}))).unwrap();
    for (spec, message) in [
        (json!({"database": {"storage": {"size": "50Gi"}}}), "cannot shrink"),
        (json!({"database": {"storage": {"size": "100Gi", "class": "fast"}}}), "cannot change its class"),
        (json!({"sessions": {"storage": {"size": "1Gi"}}}), "cannot shrink"),
    ] {
        let new = TaskPlatform::parse(platform(spec.clone())).unwrap();
        let broken = new.validate_cel_update(&old).expect_err(&spec.to_string()).to_string();
        assert!(broken.contains(message), "{spec}: {broken}");
    }
    let wide = TaskPlatform::parse(platform(json!({"cache": {"shards": 4}}))).unwrap();
    let broken = old.validate_cel_update(&wide).expect_err("shards were taken away").to_string();
    assert!(broken.contains("shards cannot be taken away"), "{broken}");
    let grown = TaskPlatform::parse(platform(json!({"database": {"storage": {"size": "1Ti"}}}))).unwrap();
    grown.validate_cel_update(&old).unwrap();
}
