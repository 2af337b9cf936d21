//! `taskplatform check` tells what a cluster lacks, tries what can only be tried, and leaves nothing behind.

use std::process::{Child, Command, Output};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{LimitRange, Namespace, ResourceQuota},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use taskplatform_tests::{cluster, eventually, explained};

const NAME: &str = "checked";

/// Starts the command line, which was built along with the tests, for a spec.
fn start(arguments: &[&str], spec: &Value) -> Result<Child> {
    let document = json!({
        "apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform",
        "metadata": {"name": NAME, "namespace": NAME}, "spec": spec,
    });
    super::start(&[&["check", "-f", "-", "-o", "json"], arguments].concat(), &document.to_string())
}

async fn check(arguments: &[&str], spec: &Value) -> Result<(Output, Vec<Value>)> {
    let child = start(arguments, spec)?;
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await??;
    let report: Value =
        serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((output, report["outcomes"].as_array().context("no outcomes")?.clone()))
}

/// The outcome whose name begins so.
fn find<'a>(outcomes: &'a [Value], name: &str) -> Result<&'a Value> {
    let mut outcomes = outcomes.iter();
    let found = outcomes.find(|outcome| outcome["name"].as_str().is_some_and(|found| found.starts_with(name)));
    found.with_context(|| format!("nothing was said of: {name}"))
}

fn of<'a>(outcomes: &'a [Value], verdict: &str) -> Vec<&'a Value> {
    outcomes.iter().filter(|outcome| outcome["verdict"] == *verdict).collect()
}

/// The namespaces of trials.
async fn trials(client: &Client) -> Result<Vec<String>> {
    let api: Api<Namespace> = Api::all(client.clone());
    let labels = ListParams::default().labels("app.kubernetes.io/name=taskplatform-check");
    Ok(api.list(&labels).await?.iter().map(ResourceExt::name_any).collect())
}

#[tokio::test]
async fn a_cluster_is_checked_and_left_as_it_was() -> Result<()> {
    let _turn = super::turn().await;
    explained(NAME, async {
        let client = cluster::client().await?;
        cluster::namespace(&client, NAME).await?;
        the_small_platform_passes().await?;
        too_much_memory_is_told().await?;
        an_image_that_is_nowhere_is_told().await?;
        limits_are_told(&client).await?;
        another_operator_is_told(&client).await?;
        an_interrupted_trial_is_tidied(&client).await?;
        let left = trials(&client).await?;
        ensure!(left.is_empty(), "{left:?} were left behind");
        let namespaces: Api<Namespace> = Api::all(client);
        namespaces.delete(NAME, &DeleteParams::background()).await?;
        Ok(())
    })
    .await
}

/// A team's namespace often has them: without a word before, the pods would be refused one by one.
async fn limits_are_told(client: &Client) -> Result<()> {
    let limits: Api<LimitRange> = Api::namespaced(client.clone(), NAME);
    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), NAME);
    let limit = json!({
        "metadata": {"name": "team-limits"},
        "spec": {"limits": [{"type": "Container", "max": {"cpu": "500m", "memory": "1Gi"}, "maxLimitRequestRatio": {"cpu": "10"}}]},
    });
    limits.create(&PostParams::default(), &serde_json::from_value(limit)?).await?;
    let quota = json!({"metadata": {"name": "team-quota"}, "spec": {"hard": {"pods": "10"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
    let (output, outcomes) = check(&["--no-trial"], &super::small()).await?;
    limits.delete("team-limits", &DeleteParams::default()).await?;
    quotas.delete("team-quota", &DeleteParams::default()).await?;
    ensure!(!output.status.success(), "it does not fail");
    let failures = of(&outcomes, "failure");
    let told =
        |text: &str| failures.iter().any(|one| one["detail"].as_str().is_some_and(|detail| detail.contains(text)));
    ensure!(
        told("LimitRange team-limits refuses database, whose containers may use 1 cpu, above 500m"),
        "{failures:#?}"
    );
    ensure!(told("ResourceQuota team-quota leaves 10 of the "), "{failures:#?}");
    Ok(())
}

async fn the_small_platform_passes() -> Result<()> {
    let (output, outcomes) = check(&[], &super::small()).await?;
    ensure!(output.status.success(), "{:#?}", of(&outcomes, "failure"));
    for group in ["cluster", "operator", "permissions", "storage", "autoscaling", "nodes", "limits", "trial"] {
        ensure!(outcomes.iter().any(|outcome| outcome["group"] == group), "nothing was said of {group}");
    }
    let skipped = of(&outcomes, "skipped");
    ensure!(skipped.is_empty(), "{skipped:#?}");
    for name in [
        "the API server answers",
        "their definition is the one of this release",
        "the operator runs",
        "no other operator is installed",
        "CPU and memory of pods are measured",
        "the autoscaler's thresholds are kept",
        "NetworkPolicies are enforced",
        "a volume of the default class is made",
        "the trial leaves nothing",
    ] {
        let outcome = find(&outcomes, name)?;
        ensure!(outcome["verdict"] == "pass", "{outcome:#}");
    }
    let pulled =
        outcomes.iter().filter(|outcome| outcome["name"].as_str().is_some_and(|name| name.starts_with("image ")));
    ensure!(pulled.count() == 5, "{outcomes:#?}");
    Ok(())
}

async fn another_operator_is_told(client: &Client) -> Result<()> {
    let labels = json!({"app.kubernetes.io/name": "taskplatform-operator"});
    let other: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "taskplatform-operator", "labels": labels},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "operator", "image": "none"}]}},
        },
    }))?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAME);
    deployments.create(&PostParams::default(), &other).await?;
    let (output, outcomes) = check(&["--no-trial"], &super::small()).await?;
    deployments.delete("taskplatform-operator", &DeleteParams::background()).await?;
    ensure!(output.status.code() == Some(1), "{:?}", output.status);
    let outcome = find(&outcomes, "no other operator is installed")?;
    ensure!(outcome["verdict"] == "failure" && outcome.to_string().contains(NAME), "{outcome:#}");
    Ok(())
}

async fn too_much_memory_is_told() -> Result<()> {
    let spec = super::small_with(&json!({"api": {"resources": {"memory": "64Ti"}}}));
    let (output, outcomes) = check(&["--no-trial"], &spec).await?;
    ensure!(output.status.code() == Some(1), "{:?}", output.status);
    let failed = of(&outcomes, "failure");
    let [failed] = failed.as_slice() else { anyhow::bail!("{failed:#?}") };
    ensure!(failed["group"] == "nodes", "{failed:#}");
    let detail = failed["detail"].as_str().unwrap_or_default();
    ensure!(detail.contains("spec.api.resources") && detail.contains("64Ti"), "{detail}");
    let trial: Vec<_> = outcomes.iter().filter(|outcome| outcome["group"] == "trial").collect();
    ensure!(!trial.is_empty() && trial.iter().all(|outcome| outcome["verdict"] == "skipped"), "{trial:#?}");
    Ok(())
}

async fn an_image_that_is_nowhere_is_told() -> Result<()> {
    let image = "registry.invalid/task-api:none";
    let (output, outcomes) = check(&[], &super::small_with(&json!({"api": {"image": image}}))).await?;
    ensure!(output.status.code() == Some(1), "{:?}", output.status);
    let failed = of(&outcomes, "failure");
    let [failed] = failed.as_slice() else { anyhow::bail!("{failed:#?}") };
    ensure!(failed["name"].as_str().is_some_and(|name| name.contains(image)), "{failed:#}");
    Ok(())
}

/// As by Ctrl-C, and by a CI that ends a job.
async fn an_interrupted_trial_is_tidied(client: &Client) -> Result<()> {
    // Another one's may still be on its way out.
    let before = trials(client).await?;
    let child = start(&[], &super::small())?;
    let begun = eventually("the trial has begun", 60, async || {
        let mut begun = trials(client).await?;
        begun.retain(|name| !before.contains(name));
        begun.pop().context("there is no new namespace of a trial")
    })
    .await?;
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    ensure!(killed.success(), "kill failed");
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await??;
    ensure!(output.status.code() == Some(1), "{:?}", output.status);
    ensure!(String::from_utf8_lossy(&output.stdout).contains("it was interrupted"), "it does not say so");
    ensure!(!trials(client).await?.contains(&begun), "{begun} is still there");
    Ok(())
}
