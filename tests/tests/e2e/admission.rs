//! A bad spec is refused by the API server, with the field and the way out.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{authorization::v1::SubjectAccessReview, rbac::v1::ClusterRoleBinding};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use taskplatform_tests::{cluster, eventually};

use crate::turn;

async fn create(name: &str, spec: Value) -> Result<DynamicObject, String> {
    let client = cluster::client().await.map_err(|error| format!("{error:#}"))?;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("taskplatform.dev", "v1alpha1", "TaskPlatform"));
    let api: Api<DynamicObject> = Api::namespaced_with(client, "default", &kind);
    let object = DynamicObject::new(name, &kind).data(json!({"spec": spec}));
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    api.create(&parameters, &object).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn bad_specs_are_refused() -> Result<()> {
    for (spec, field, message) in [
        (
            json!({"scaling": {"minInstances": 5, "maxInstances": 4}}),
            "spec.scaling",
            "minInstances must not be above maxInstances",
        ),
        (json!({"scaling": {"targetCPU": 80}}), "spec.scaling", "scaleDown.threshold < targetCPU < scaleUp.threshold"),
        (json!({"scaling": {"maxInstances": 0}}), "spec.scaling.maxInstances", "greater than or equal to 1"),
        (json!({"scaling": {"scaleUp": {"cooldown": "31m"}}}), "spec.scaling.scaleUp", "cooldown is from 1s to 30m"),
        (json!({"scaling": {"scaleUp": {"period": "soon"}}}), "spec.scaling.scaleUp.period", "should match"),
        (json!({"gateway": {"rateLimits": {"global": "100/s"}}}), "spec.gateway.rateLimits.global", "should match"),
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
        (json!({"database": {"storage": {"size": "many"}}}), "spec.database.storage.size", "should match"),
        (
            json!({"database": {"resources": {"cpu": "fast", "memory": "1Gi"}}}),
            "spec.database.resources.cpu",
            "should match",
        ),
        (json!({"pooler": {"minPoolSize": 26}}), "spec.pooler", "minPoolSize must not be above defaultPoolSize"),
        (json!({"pooler": {"poolMode": "statement"}}), "spec.pooler.poolMode", "transaction"),
        (json!({"cache": {"shards": 2}}), "spec.cache.shards", "greater than or equal to 3"),
        (json!({"sessions": {"ttl": "5s"}}), "spec.sessions.ttl", "at least 1m"),
    ] {
        let refused = create("bad", spec.clone()).await.err();
        let answer = refused.unwrap_or_default();
        ensure!(
            answer.contains(field) && answer.contains(message),
            "{spec} is answered with {answer:?}, not with {field}: {message}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_name_that_would_not_fit_is_refused() -> Result<()> {
    let answer = create(&"n".repeat(33), json!({})).await.err().unwrap_or_default();
    ensure!(answer.contains("at most 32"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn an_empty_spec_gets_the_documented_numbers() -> Result<()> {
    let created = create("documented", json!({})).await.map_err(anyhow::Error::msg)?;
    let spec = &created.data["spec"];
    for (field, expected) in [
        (&spec["scaling"]["minInstances"], json!(3)),
        (&spec["scaling"]["maxInstances"], json!(50)),
        (&spec["scaling"]["scaleDown"]["cooldown"], json!("600s")),
        (&spec["pooler"]["defaultPoolSize"], json!(25)),
        (&spec["pooler"]["maxClientConnections"], json!(10000)),
        (&spec["gateway"]["rateLimits"]["auth"], json!({"rate": "5r/m", "burst": 10})),
        (&spec["database"]["readReplicas"], json!(3)),
        (&spec["deletionPolicy"], json!("Retain")),
    ] {
        ensure!(*field == expected, "the API server fills in {field}, documented is {expected}");
    }
    ensure!(spec["api"]["replicas"].is_null(), "the autoscaler owns spec.api.replicas");
    Ok(())
}

/// What kubectl is told when it would create a platform.
fn kubectl_create(spec: &Value) -> Result<(bool, String)> {
    let document = json!({
        "apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform", "metadata": {"name": "asked", "namespace": "default"}, "spec": spec,
    });
    let mut kubectl = Command::new("kubectl");
    if let Ok(context) = std::env::var("KUBE_CONTEXT") {
        kubectl.args(["--context", &context]);
    }
    kubectl
        .args(["create", "--dry-run=server", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = kubectl.spawn().context("kubectl cannot be run: dev/tools.sh finds or builds it")?;
    child.stdin.take().context("no input")?.write_all(document.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    Ok((output.status.success(), String::from_utf8(output.stderr)?))
}

/// The same findings as lint's, at `kubectl apply`.
#[tokio::test]
async fn the_operator_warns_and_refuses_at_admission() -> Result<()> {
    let _turn = turn().await;
    // Another test may have started the operator anew a moment ago.
    eventually("the API server asks the operator", 90, async || {
        let (admitted, told) = kubectl_create(&json!({"database": {"readReplicas": 0}}))?;
        ensure!(admitted && told.contains("Warning: ") && told.contains("(TP201)"), "{told}");
        Ok(())
    })
    .await?;
    // Where the operator does not answer in time, a spec is admitted.
    eventually("the operator refuses", 30, async || {
        let (admitted, told) = kubectl_create(&json!({"database": {"parameters": {"max_connections": "10"}}}))?;
        ensure!(
            !admitted && told.contains("spec.database.parameters.max_connections") && told.contains("(TP101)"),
            "admitted: {admitted}; {told}"
        );
        Ok(())
    })
    .await?;
    let (admitted, told) = kubectl_create(&json!({}))?;
    ensure!(admitted && told.is_empty(), "the default is warned of: {told}");
    Ok(())
}

/// The cluster's own roles take in what TaskPlatforms add.
#[tokio::test]
async fn who_may_view_a_namespace_may_view_its_platforms() -> Result<()> {
    let client = cluster::client().await?;
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let bindings: Api<ClusterRoleBinding> = Api::all(client);
    for role in ["view", "edit"] {
        let name = format!("taskplatform-e2e-{role}");
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}],
        });
        bindings.patch(&name, &PatchParams::apply("e2e").force(), &Patch::Apply(binding)).await?;
        let allowed = async |verb: &str| {
            let review = json!({"metadata": {}, "spec": {"user": name, "resourceAttributes": {
                "namespace": "default", "group": "taskplatform.dev", "resource": "taskplatforms", "verb": verb,
            }}});
            let answer = reviews.create(&PostParams::default(), &serde_json::from_value(review)?).await?;
            anyhow::Ok(answer.status.is_some_and(|status| status.allowed))
        };
        eventually("the roles are taken in", 30, async || {
            ensure!(allowed("get").await? && allowed("watch").await?, "{role} may not look at TaskPlatforms");
            Ok(())
        })
        .await?;
        let may_write = allowed("update").await? && allowed("delete").await?;
        bindings.delete(&name, &DeleteParams::default()).await?;
        ensure!(may_write == (role == "edit"), "{role} may write: {may_write}");
    }
    Ok(())
}
