//! What only a running controller can do: speak with the components in their own protocols.

pub(crate) mod gateway;
pub(crate) mod patroni;
pub(crate) mod pooler;
pub(crate) mod redis_cluster;

use kube::core::DynamicObject;

/// The IP address of a pod that has one and is not about to go.
fn address(pod: &DynamicObject) -> Option<std::net::IpAddr> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    pod.data["status"]["podIP"].as_str()?.parse().ok()
}

/// Whether Kubernetes lets a pod be sent to.
fn is_ready(pod: &DynamicObject) -> bool {
    let conditions = pod.data["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
