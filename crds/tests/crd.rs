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
            if property["description"].as_str().is_none_or(str::is_empty) {
                undocumented.push(path.clone());
            }
            walk(&path, property, undocumented);
        }
        for (kind, path) in [("items", format!("{path}[]")), ("additionalProperties", format!("{path}.*"))] {
            if schema[kind].is_object() {
                walk(&path, &schema[kind], undocumented);
            }
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

#[test]
fn an_empty_section_is_the_default() {
    let default = TaskPlatform::parse(platform(json!({}))).unwrap();
    for spec in [
        json!({"api": null, "cache": null, "deletionPolicy": null}),
        json!({"api": {"resources": null, "image": null, "replicas": null}}),
        json!({"scaling": {"minInstances": null, "scaleUp": {"period": null}}}),
        json!({"database": {"storage": null, "parameters": {"jit": null}}}),
        json!({"gateway": {"service": {"nodePort": null}, "rateLimits": {"auth": null}}}),
    ] {
        assert_eq!(TaskPlatform::parse(platform(spec.clone())).unwrap().spec, default.spec, "{spec}");
    }
}

#[test]
fn what_has_no_default_is_missing_where_it_is_empty() {
    for (document, field) in [
        (json!({"metadata": {"name": "tasks"}}), "spec"),
        (json!({"metadata": {"name": "tasks"}, "spec": null}), "spec"),
        (json!({"metadata": {}, "spec": {}}), "metadata.name"),
        (json!({"metadata": {"name": null}, "spec": {}}), "metadata.name"),
        (platform(json!({"api": {"resources": {"cpu": null, "memory": "1Gi"}}})), "spec.api.resources.cpu"),
    ] {
        let error = TaskPlatform::parse(document.clone()).expect_err(&document.to_string()).to_string();
        assert!(error.starts_with(&format!("{field}: it is missing")), "{document}: {error}");
    }
}

#[test]
fn whole_numbers_may_be_written_as_fractions() {
    let spec = json!({"scaling": {"minInstances": 4.0}, "api": {"resources": {"cpu": 2.0, "memory": "1Gi"}}});
    let spec = TaskPlatform::parse(platform(spec)).unwrap().spec;
    assert_eq!((spec.scaling.min_instances.get(), spec.api.resources.cpu.to_string().as_str()), (4, "2"));
}

#[test]
fn metadata_has_the_shape_that_kubernetes_gives_it() {
    let document = |metadata: Value| {
        let mut document = platform(json!({}));
        document["metadata"] = metadata;
        TaskPlatform::parse(document)
    };
    document(json!({"name": "tasks", "labels": {"a": "b"}, "uid": "1", "generation": 4, "creationTimestamp": "2026-03-01T09:00:00Z", "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]})).unwrap();
    let wrong = document(
        json!({"name": "tasks", "labels": {"canary": true, "example.com/release": 1.1}, "annotations": {"a": 1}, "lables": {}}),
    );
    let error = wrong.unwrap_err().to_string();
    for said in [
        "metadata.labels.canary: a boolean, but text is wanted",
        "metadata.labels.example.com/release: a number, but text is wanted",
        "metadata.annotations.a: a number",
        "metadata.lables: there is no such field: did you mean labels?",
    ] {
        assert!(error.contains(said), "{error:?} does not say {said:?}");
    }
}

#[test]
fn what_a_document_says_of_its_status_is_not_read() {
    let mut document = platform(json!({}));
    document["status"] = json!({"api": "whatever"});
    assert_eq!(TaskPlatform::parse(document).unwrap().status, None);
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
        (json!({"scalling": {}}), "spec.scalling", "did you mean scaling?"),
        (json!({"teleporter": {}}), "spec.teleporter", "there are api, cache"),
        (json!({"scaling": {"minInstances": "3"}}), "spec.scaling.minInstances", "leave the quotes out"),
        (json!({"scaling": {"minInstances": "many"}}), "spec.scaling.minInstances", "give one from 1 to 1000"),
        (json!({"scaling": {"minInstances": 2.5}}), "spec.scaling.minInstances", "2.5 is not a whole number"),
        (json!({"scaling": 3}), "spec.scaling", "a number, but fields are wanted"),
        (json!({"scaling": {"scaleUp": {"period": 60}}}), "spec.scaling.scaleUp.period", "\"60\" is not a duration"),
        (
            json!({"gateway": {"healthCheck": {"path": "health"}}}),
            "spec.gateway.healthCheck.path",
            "begin it with a slash",
        ),
        (json!({"api": {"image": ""}}), "spec.api.image", "leave it out"),
        (json!({"api": {"image": "i".repeat(513)}}), "spec.api.image", "shorten it"),
        (json!({"api": {"resources": {"cpu": "1"}}}), "spec.api.resources.memory", "it is missing"),
        (
            json!({"api": {"resources": {"cpu": 0.5, "memory": "1Gi"}}}),
            "spec.api.resources.cpu",
            "write 500m, or \"0.5\"",
        ),
        (json!({"api": {"resources": {"cpu": true, "memory": "1Gi"}}}), "spec.api.resources.cpu", "500m"),
        (json!({"api": {"resources": {"cpu": "1", "memory": "1.5Gi"}}}), "spec.api.resources.memory", "such as 512Mi"),
        (json!({"api": {"resources": {"cpu": "1", "memory": -1}}}), "spec.api.resources.memory", "out of range"),
        (json!({"database": {"parameters": {"jit": false}}}), "spec.database.parameters.jit", "put it into quotes"),
        (
            json!({"database": {"parameters": {"work_mem": 64}}}),
            "spec.database.parameters.work_mem",
            "put it into quotes",
        ),
        (json!({"database": {"parameters": ["jit"]}}), "spec.database.parameters", "a list, but fields are wanted"),
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
