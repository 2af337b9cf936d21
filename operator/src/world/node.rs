//! What a Kubernetes node says of itself, and what is known of one that says nothing.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};

/// Whether it takes pods that tolerate nothing: it is not cordoned, and has no taint that keeps them away.
pub(crate) fn takes_pods(node: &Node) -> bool {
    let Some(spec) = &node.spec else { return true };
    let taints = spec.taints.iter().flatten();
    !spec.unschedulable.unwrap_or(false) && taints.into_iter().all(|taint| taint.effect == "PreferNoSchedule")
}

/// Whether one of the nodes of these names takes pods.
pub(crate) async fn any_takes_pods(client: &Client, names: impl Iterator<Item = &str>) -> Result<bool, kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    for name in names {
        if api.get_opt(name).await?.is_some_and(|node| takes_pods(&node)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The nodes on which no pod of a platform answers, by name.
pub(crate) type LostNodes = BTreeMap<String, Loss>;

/// How far a node is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The operator reaches nothing there; others may.
    Unreached,
    /// Kubernetes has not heard of it since, either.
    Complete,
}
