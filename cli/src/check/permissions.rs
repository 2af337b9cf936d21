//! What the user may do: what plan, apply and wait need.

use futures::future::try_join_all;
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    core::v1::Namespace,
};
use kube::{Api, api::PostParams, core::ApiResource};
use taskplatform_blueprint::Kind;

use super::{
    Target,
    outcome::{Group, Outcome},
};
use crate::cluster::Cluster;

const GROUP: Group = Group::Permissions;
const TASKPLATFORMS: (&str, &str) = ("taskplatform.dev", "taskplatforms");

/// Something that a command does.
#[derive(Clone, Debug)]
struct Act {
    verb: &'static str,
    group: String,
    resource: String,
    namespace: String,
}

impl Act {
    fn new(verb: &'static str, (group, resource): (&str, &str), namespace: &str) -> Self {
        Self { verb, group: group.to_owned(), resource: resource.to_owned(), namespace: namespace.to_owned() }
    }

    /// As `kubectl auth can-i` is asked.
    fn text(&self) -> String {
        let Self { verb, group, resource, namespace } = self;
        let group = if group.is_empty() { String::new() } else { format!(".{group}") };
        format!("{verb} {resource}{group} in {namespace}")
    }

    async fn allowed(&self, cluster: &Cluster) -> Result<bool, kube::Error> {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(self.verb.to_owned()),
                    group: Some(self.group.clone()),
                    resource: Some(self.resource.clone()),
                    namespace: Some(self.namespace.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
        let answer = api.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

pub(super) async fn check(cluster: &Cluster, target: &Target) -> Vec<Outcome> {
    let namespace = target.platform.namespace();
    let mut planning = vec![
        Act::new("get", TASKPLATFORMS, namespace),
        Act::new("get", ("apps", "deployments"), &cluster.operator_namespace),
    ];
    planning.extend(Kind::ALL.map(|kind| {
        let resource = ApiResource::from_gvk(&kind.group_version_kind());
        Act::new("list", (&resource.group, &resource.plural), namespace)
    }));
    let applying = ["create", "update"].map(|verb| Act::new(verb, TASKPLATFORMS, namespace));
    let waiting = ["list", "watch"].map(|verb| Act::new(verb, TASKPLATFORMS, namespace));
    let looking = ["pods", "events"].map(|resource| Act::new("list", ("", resource), namespace));
    let (exists, plan, apply, wait, look) = tokio::join!(
        exists(cluster, namespace),
        may(cluster, "you may plan", &planning),
        may(cluster, "you may apply", &applying),
        may(cluster, "you may wait", &waiting),
        may(cluster, "you may see what pods wait for", &looking),
    );
    vec![exists, plan, apply, wait, look]
}

/// Nobody makes it along with a platform.
async fn exists(cluster: &Cluster, namespace: &str) -> Outcome {
    let name = format!("namespace {namespace} exists");
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    match api.get_opt(namespace).await {
        Ok(Some(_)) => GROUP.pass(name, ""),
        Ok(None) => GROUP.failure(name, "it does not", format!("make it (kubectl create namespace {namespace})")),
        Err(error) => GROUP.unread(name, "namespaces", &error),
    }
}

async fn may(cluster: &Cluster, name: &str, acts: &[Act]) -> Outcome {
    let answers = try_join_all(acts.iter().map(|act| act.allowed(cluster))).await;
    match answers {
        Ok(answers) => judge(name, acts, &answers),
        Err(error) => GROUP.unread(name, "SelfSubjectAccessReviews", &error),
    }
}

fn judge(name: &str, acts: &[Act], answers: &[bool]) -> Outcome {
    let missing: Vec<String> =
        acts.iter().zip(answers).filter(|(_, allowed)| !**allowed).map(|(act, _)| act.text()).collect();
    if missing.is_empty() {
        return GROUP.pass(name, "");
    }
    GROUP.failure(name, format!("you may not {}", missing.join(", ")), "ask for the role in docs/check.md")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_stands_in_one_line() {
        let acts = [
            Act::new("get", TASKPLATFORMS, "tasks"),
            Act::new("list", ("", "pods"), "tasks"),
            Act::new("list", ("apps", "deployments"), "tasks"),
        ];
        let outcome = judge("you may look", &acts, &[true, false, false]);
        assert_eq!(outcome.detail, "you may not list pods in tasks, list deployments.apps in tasks");
        assert_eq!(judge("you may look", &acts, &[true; 3]), GROUP.pass("you may look", ""));
    }
}
