//! The operator and the definition that it looks after.

use k8s_openapi::{
    api::apps::v1::Deployment,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition, CustomResourceDefinitionVersion,
    },
};
use kube::{Api, CustomResourceExt, ResourceExt, api::ListParams};
use serde_json::Value;
use taskplatform_blueprint::differences;
use taskplatform_crds::TaskPlatform;

use super::outcome::{Group, Outcome};
use crate::cluster::Cluster;

const GROUP: Group = Group::Operator;
const INSTALL: &str = "install it (kubectl apply --server-side -k manifests), or check with --pre until then";
const APPLY_DEFINITION: &str = "apply the definition of this release (kubectl apply --server-side -k crds)";

pub(super) async fn check(cluster: &Cluster, pre: bool) -> Vec<Outcome> {
    if pre {
        let skipped = GROUP.skipped("the operator is installed", "not looked for, as --pre says");
        return vec![skipped, no_other(cluster).await];
    }
    let (mut outcomes, runs, no_other) = tokio::join!(definition(cluster), deployment(cluster), no_other(cluster));
    outcomes.extend([runs, no_other]);
    outcomes
}

/// There is one operator a cluster: its rights are the cluster's, and a second installation would take those of the first.
async fn no_other(cluster: &Cluster) -> Outcome {
    let name = "no other operator is installed";
    let own = &cluster.operator_namespace;
    let api: Api<Deployment> = Api::all(cluster.client.clone());
    let operators = ListParams::default().labels("app.kubernetes.io/name=taskplatform-operator");
    match api.list_metadata(&operators).await {
        Ok(found) => match found.iter().filter_map(ResourceExt::namespace).find(|namespace| namespace != own) {
            None => GROUP.pass(name, ""),
            Some(other) => GROUP.failure(
                name,
                format!("namespace {other} has one, which looks after every namespace"),
                format!(
                    "use that one (--operator-namespace {other}), or remove it before another is installed in {own}"
                ),
            ),
        },
        Err(error) => GROUP.unread(name, "Deployments of all namespaces", &error),
    }
}

async fn definition(cluster: &Cluster) -> Vec<Outcome> {
    let ours = TaskPlatform::crd();
    let name = "TaskPlatforms are known to the cluster";
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let crd = TaskPlatform::crd_name();
    match api.get_opt(crd).await {
        Ok(None) => vec![GROUP.failure(name, format!("there is no CustomResourceDefinition {crd}"), INSTALL)],
        Ok(Some(live)) => vec![established(name, &live), same(&live, &ours)],
        Err(error) => vec![GROUP.unread(name, "CustomResourceDefinitions", &error)],
    }
}

fn established(name: &str, live: &CustomResourceDefinition) -> Outcome {
    let conditions = live.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let (yes, no): (Vec<_>, Vec<_>) = conditions.partition(|condition| condition.status == "True");
    if yes.iter().any(|condition| condition.type_ == "Established") {
        return GROUP.pass(name, "");
    }
    let why: Vec<&str> = no.iter().filter_map(|condition| condition.message.as_deref()).collect();
    let detail = format!("their CustomResourceDefinition is not Established: {}", why.join("; "));
    GROUP.failure(name, detail, APPLY_DEFINITION)
}

fn same(live: &CustomResourceDefinition, ours: &CustomResourceDefinition) -> Outcome {
    let name = "their definition is the one of this release";
    let fields = differing(live, ours);
    let detail = match fields.as_slice() {
        [] => return GROUP.pass(name, env!("CARGO_PKG_VERSION")),
        [field] => format!("{field} differs"),
        [first, ..] => format!("{} fields differ, {first} among them", fields.len()),
    };
    GROUP.warning(name, detail, APPLY_DEFINITION)
}

/// Where the schema of a definition is not the one that this program knows: what it writes could be dropped or refused there.
fn differing(live: &CustomResourceDefinition, ours: &CustomResourceDefinition) -> Vec<String> {
    let schema = |version: &CustomResourceDefinitionVersion| {
        serde_json::to_value(&version.schema).unwrap_or_default().pointer("/openAPIV3Schema").cloned()
    };
    ours.spec
        .versions
        .iter()
        .flat_map(|ours| {
            let live = live.spec.versions.iter().find(|live| live.name == ours.name).and_then(schema);
            differences(&live.unwrap_or(Value::Null), &schema(ours).unwrap_or(Value::Null))
        })
        .map(|change| match change.path.replace("properties.", "") {
            whole if whole.is_empty() => "the whole".to_owned(),
            path => path,
        })
        .collect()
}

async fn deployment(cluster: &Cluster) -> Outcome {
    let name = "the operator runs";
    let namespace = &cluster.operator_namespace;
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let operator = match api.get_opt("taskplatform-operator").await {
        Ok(Some(operator)) => operator,
        Ok(None) => {
            let detail = format!("there is no Deployment taskplatform-operator in namespace {namespace}");
            return GROUP.warning(name, detail, format!("{INSTALL}; --operator-namespace, if it is elsewhere"));
        }
        Err(error) => return GROUP.unread(name, "Deployments", &error),
    };
    let wanted = operator.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let available = operator.status.and_then(|status| status.available_replicas).unwrap_or_default();
    if available > 0 {
        return GROUP.pass(name, format!("{available} of {wanted} pods are available"));
    }
    GROUP.warning(
        name,
        format!("none of its {wanted} pods is available"),
        format!("see why (kubectl -n {namespace} describe pods)"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_schema_is_told_by_its_field() {
        let ours = TaskPlatform::crd();
        assert_eq!(differing(&ours, &ours), Vec::<String>::new());
        let mut text = serde_json::to_string(&ours).unwrap();
        text = text.replacen("\"maxInstances\":{", "\"mostInstances\":{", 1);
        let other: CustomResourceDefinition = serde_json::from_str(&text).unwrap();
        let fields = differing(&other, &ours);
        assert!(fields.contains(&"spec.scaling.maxInstances".to_owned()), "{fields:?}");
        let mut none = ours.clone();
        none.spec.versions.clear();
        assert_eq!(differing(&none, &ours), ["the whole"]);
    }
}
