//! Helm's chart and the bundle of the Operator Lifecycle Manager hold what `manifests/` does, and Helm may take an operator
//! over, upgrade it and remove it while its platforms serve on.

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Container, Secret},
        rbac::v1::ClusterRoleBinding,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Deserializer, Map, Value, json};
use taskplatform_tests::{
    cluster::OPERATOR,
    eventually, explained,
    http::{User, gateway, unique},
    platform::Platform,
};

use crate::{shared_platform, turn};

const NAME: &str = "taskplatform-operator";
const DEFINITION: &str = "taskplatforms.taskplatform.dev";
/// Renders the chart into the namespace that `manifests/` names.
const TEMPLATE: &str = "helm template taskplatform charts/taskplatform --namespace taskplatform-system \"$@\"";

const INSTALL: &str = "upgrade --install taskplatform charts/taskplatform --create-namespace --wait --timeout 2m";

/// What is not there.
static MISSING: Value = Value::Null;

/// Runs a script as those of `dev/` run, in the checkout's folder, and returns what it prints.
fn run(script: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("bash");
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).env_remove("TASKPLATFORM_STEPS");
    command.args(["-euo", "pipefail", "-c", &format!(". dev/lib.sh; {script}"), "bash"]).args(arguments);
    let output = command.output().context("bash cannot be run")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{script} {arguments:?}: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The objects of a command's YAML, by kind and name. kubectl makes JSON of it, and needs no cluster for that.
fn objects(source: &str, arguments: &[&str]) -> Result<Value> {
    let script = format!("{source} | kubectl patch --local --type merge --patch '{{}}' --filename - --output json");
    let printed = run(&script, arguments)?;
    let mut objects = Map::new();
    for object in Deserializer::from_str(&printed).into_iter::<Value>() {
        let object = object?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("an object without kind or name");
        let name = format!("{}/{}", text(&object["kind"])?, text(&object["metadata"]["name"])?);
        ensure!(objects.insert(name.clone(), object).is_none(), "{name} twice");
    }
    Ok(Value::Object(objects))
}

/// The paths at which two values differ.
fn differences(path: &str, one: &Value, other: &Value) -> Vec<String> {
    let within = |key: &str, one: Option<&Value>, other: Option<&Value>| {
        differences(&format!("{path}/{key}"), one.unwrap_or(&MISSING), other.unwrap_or(&MISSING))
    };
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            keys.into_iter().flat_map(|key| within(key, one.get(key), other.get(key))).collect()
        }
        (Value::Array(one), Value::Array(other)) => {
            let indices = 0..one.len().max(other.len());
            indices.flat_map(|index| within(&index.to_string(), one.get(index), other.get(index))).collect()
        }
        _ if one == other => Vec::new(),
        _ => vec![path.to_owned()],
    }
}

#[test]
fn the_chart_is_what_the_manifests_install() -> Result<()> {
    let manifests = objects("kubectl kustomize manifests", &[])?;
    let differences = differences("", &manifests, &objects(TEMPLATE, &[])?);
    // Helm keeps the definition by an annotation, and makes the namespace itself.
    let expected =
        [format!("/CustomResourceDefinition/{DEFINITION}/metadata/annotations"), format!("/Namespace/{OPERATOR}")];
    ensure!(differences == expected, "the chart and manifests/ differ: {differences:#?}");
    Ok(())
}

#[test]
fn a_value_changes_what_it_names_and_nothing_else() -> Result<()> {
    let before = objects(TEMPLATE, &[])?;
    let deployment = format!("/Deployment/{NAME}/spec");
    let pod = format!("{deployment}/template/spec");
    let container = format!("{pod}/containers/0");
    let digest = format!("sha256:{}", "0".repeat(64));
    for (values, expected) in [
        (
            json!({"replicas": 3, "resources": {"requests": {"memory": "72Mi"}}}),
            vec![format!("{deployment}/replicas"), format!("{container}/resources/requests/memory")],
        ),
        (json!({"image": {"tag": "other", "digest": digest}}), vec![format!("{container}/image")]),
        (json!({"relatedImages": {"taskApi": "example.com/task-api:other"}}), vec![format!("{container}/env/6/value")]),
        (json!({"logLevel": "debug"}), vec![format!("{container}/env/7")]),
        (
            json!({"affinity": {"nodeAffinity": {}}}),
            vec![format!("{pod}/affinity/nodeAffinity"), format!("{pod}/affinity/podAntiAffinity")],
        ),
        (
            json!({
                "image": {"pullSecrets": [{"name": "registry"}]}, "nodeSelector": {"a": "b"},
                "priorityClassName": "high", "tolerations": [{"operator": "Exists"}],
            }),
            ["imagePullSecrets", "nodeSelector", "priorityClassName", "tolerations/2"]
                .map(|field| format!("{pod}/{field}"))
                .to_vec(),
        ),
        (
            json!({"webhook": {"failurePolicy": "Fail"}}),
            vec![format!("/ValidatingWebhookConfiguration/{NAME}/webhooks/0/failurePolicy")],
        ),
        (
            json!({
                "crds": {"install": false}, "networkPolicy": {"enabled": false},
                "podDisruptionBudget": {"enabled": false}, "webhook": {"enabled": false},
            }),
            vec![
                format!("/CustomResourceDefinition/{DEFINITION}"),
                format!("/NetworkPolicy/{NAME}"),
                format!("/PodDisruptionBudget/{NAME}"),
                format!("/ValidatingWebhookConfiguration/{NAME}"),
            ],
        ),
    ] {
        let after = objects(TEMPLATE, &["--set-json", &values.to_string()])?;
        let differences = differences("", &before, &after);
        ensure!(differences == expected, "{values} changes {differences:#?}");
    }
    let elsewhere = objects(TEMPLATE, &["--namespace", "elsewhere"])?.to_string();
    ensure!(!elsewhere.contains(OPERATOR), "the release's namespace is not everywhere");
    Ok(())
}

#[test]
fn a_wrong_value_is_refused() -> Result<()> {
    for (values, named) in [
        (json!({"replica": 3}), "replica"),
        (json!({"image": {"tga": "0.1.0"}}), "tga"),
        (json!({"image": {"digest": "0.1.0"}}), "/image/digest"),
        (json!({"replicas": "two"}), "/replicas"),
        (json!({"resources": {"requests": {"memory": "72 MB"}}}), "/resources/requests/memory"),
        (json!({"webhook": {"failurePolicy": "Never"}}), "/webhook/failurePolicy"),
    ] {
        let Err(refused) = run(TEMPLATE, &["--set-json", &values.to_string()]) else { bail!("{values} is taken") };
        let refused = refused.to_string();
        ensure!(refused.contains("schema") && refused.contains(&format!("'{named}'")), "{values}: {refused}");
    }
    Ok(())
}

#[test]
fn the_bundle_is_what_the_manifests_make() -> Result<()> {
    let compare =
        "made=$(mktemp -d); trap 'rm -r \"$made\"' EXIT; dev/bundle.sh \"$made\"; diff -r bundle \"$made\" >&2";
    run(compare, &[]).context("`make bundle` makes another")?;
    Ok(())
}

#[tokio::test]
async fn helm_takes_the_operator_over_and_its_platforms_outlive_it() -> Result<()> {
    let _turn = turn().await;
    // No cluster but that of `make test` loses its operator.
    run("[ \"${KUBE_CONTEXT:-}\" = \"$context\" ] || die \"KUBE_CONTEXT is not $context\"", &[])?;
    let platform = shared_platform().await?;
    let deployments: Api<Deployment> = Api::namespaced(platform.client.clone(), OPERATOR);
    let before = deployments.get(NAME).await?.spec;
    forget(&platform.client).await?;
    let lived = explained(platform.name, Box::pin(live_with_helm(&platform))).await;
    // Whatever has happened, the tests that follow need the operator.
    let restored = restore(&platform.client).await;
    lived.and(restored)?;
    ensure!(
        deployments.get(NAME).await?.spec == before,
        "`make operator` makes another operator than the one that ran"
    );
    platform.settled().await
}

#[tokio::test]
async fn a_second_operator_is_refused_and_the_first_keeps_its_rights() -> Result<()> {
    let _turn = turn().await;
    let platform = shared_platform().await?;
    let bindings: Api<ClusterRoleBinding> = Api::all(platform.client.clone());
    let before = bindings.get(NAME).await?;
    let install = "helm --kube-context \"$context\" --namespace elsewhere upgrade --install second charts/taskplatform --create-namespace";
    let Err(refused) = run(install, &[]) else { bail!("two operators are installed") };
    let told = format!("an operator is installed in namespace {OPERATOR} already");
    ensure!(refused.to_string().contains(&told), "{refused}");
    let after = bindings.get(NAME).await?;
    ensure!(before.metadata.resource_version == after.metadata.resource_version, "the first one's rights were touched");
    ensure!(run("kube get namespace elsewhere", &[]).is_err(), "a namespace is left");
    Ok(())
}

async fn live_with_helm(platform: &Platform) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(platform.client.clone(), OPERATOR);
    let definitions: Api<CustomResourceDefinition> = Api::all(platform.client.clone());
    let images = images(&deployments.get(NAME).await?)?.to_string();
    // What kubectl has applied stays partly kubectl's: Helm must be told that its values are the ones to take.
    let upgrade = &format!("{INSTALL} --take-ownership --force-conflicts");
    helm(upgrade, &["--set-json", &images])?;
    let taken = deployments.get(NAME).await?;
    ensure!(taken.labels().get("app.kubernetes.io/managed-by").is_some_and(|by| by == "Helm"), "{:?}", taken.labels());
    ready(&deployments).await?;

    // As if the definition were another release's.
    let columns = async || {
        let version = definitions.get(DEFINITION).await?.spec.versions.pop();
        version.and_then(|version| version.additional_printer_columns).context("no columns")
    };
    let expected = columns().await?;
    let former = r#"[{"op": "remove", "path": "/spec/versions/0/additionalPrinterColumns/0"}]"#;
    run("kube patch crd \"$1\" --type json --patch \"$2\"", &[DEFINITION, former])?;
    helm(upgrade, &["--set-json", &images, "--set", "resources.requests.memory=72Mi"])?;
    ensure!(columns().await? == expected, "the definition is not upgraded");
    let upgraded = deployments.get(NAME).await?;
    let requests = container(&upgraded)?.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    ensure!(
        requests.and_then(|requests| requests.get("memory")).is_some_and(|memory| memory.0 == "72Mi"),
        "{requests:?}"
    );
    ready(&deployments).await?;
    platform.settled().await?;

    let uids =
        async || anyhow::Ok((definitions.get(DEFINITION).await?.uid(), platform.api().get(platform.name).await?.uid()));
    let before = uids().await?;
    helm("uninstall taskplatform --wait --timeout 2m", &[])?;
    ensure!(deployments.get_opt(NAME).await?.is_none(), "the operator is still there");
    ensure!(uids().await? == before, "the definition or the platform is not the one that it was");
    let deleted = platform.api().get(platform.name).await?.metadata.deletion_timestamp;
    ensure!(deleted.is_none(), "the platform is being deleted");
    let user = User::register(&gateway(), &unique("dorothy")).await?;
    user.create("Compute the launch window").await?;

    helm(INSTALL, &["--set-json", &images])?;
    ready(&deployments).await?;
    platform.settled().await
}

/// Runs Helm on the cluster under test.
fn helm(command: &str, arguments: &[&str]) -> Result<String> {
    run(&format!("helm --kube-context \"$context\" --namespace {OPERATOR} {command} \"$@\""), arguments)
}

/// Waits until every replica is there and of the latest template.
async fn ready(deployments: &Api<Deployment>) -> Result<()> {
    eventually("the operator is rolled out", 120, async || {
        let operator = deployments.get(NAME).await?;
        let status = operator.status.context("no status")?;
        let desired = operator.spec.and_then(|spec| spec.replicas);
        ensure!(status.observed_generation == operator.metadata.generation, "the Deployment has not been seen yet");
        ensure!(
            [status.replicas, status.updated_replicas, status.available_replicas] == [desired; 3],
            "{desired:?} are desired: {status:?}"
        );
        Ok(())
    })
    .await
}

fn container(operator: &Deployment) -> Result<&Container> {
    let pod = operator.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    pod.and_then(|pod| pod.containers.first()).context("no container")
}

/// The chart's values for the images that the operator runs and makes platforms of.
fn images(operator: &Deployment) -> Result<Value> {
    let container = container(operator)?;
    let (repository, tag) = container.image.as_deref().and_then(|image| image.rsplit_once(':')).context("no tag")?;
    let related = |name: &str| {
        let variable = container.env.iter().flatten().find(|variable| variable.name == format!("RELATED_IMAGE_{name}"));
        variable.and_then(|variable| variable.value.clone()).with_context(|| format!("no image of {name}"))
    };
    Ok(json!({
        "image": {"repository": repository, "tag": tag},
        "relatedImages": {
            "postgres": related("POSTGRES")?,
            "pgbouncer": related("PGBOUNCER")?,
            "redis": related("REDIS")?,
            "gateway": related("GATEWAY")?,
            "taskApi": related("TASK_API")?,
        },
    }))
}

/// The operator as `make test` has installed it, and nothing of Helm.
async fn restore(client: &Client) -> Result<()> {
    let uninstalled = helm("uninstall taskplatform --ignore-not-found --wait --timeout 2m", &[]);
    run("dev/operator.sh", &[])?;
    // What only Helm has written goes, now that everything else has another owner.
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let nothing = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": DEFINITION},
    });
    definitions.patch(DEFINITION, &PatchParams::apply("helm"), &Patch::Apply(nothing)).await?;
    forget(client).await?;
    uninstalled?;
    Ok(())
}

/// Removes Helm's records of the release: those of a run that was broken off would be in the way.
async fn forget(client: &Client) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), OPERATOR);
    let records = ListParams::default().labels("owner=helm,name=taskplatform");
    secrets.delete_collection(&DeleteParams::default(), &records).await?;
    Ok(())
}
