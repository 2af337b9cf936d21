//! What a Kubernetes node says of itself.

use k8s_openapi::api::core::v1::Node;

/// Whether it takes pods that tolerate nothing: it is not cordoned, and has no taint that keeps them away.
pub(crate) fn takes_pods(node: &Node) -> bool {
    let Some(spec) = &node.spec else { return true };
    let taints = spec.taints.iter().flatten();
    !spec.unschedulable.unwrap_or(false) && taints.into_iter().all(|taint| taint.effect == "PreferNoSchedule")
}
