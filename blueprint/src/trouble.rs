//! What keeps a pod from being ready, in Kubernetes' own words.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// Why a pod is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// How much it says: a reason that Kubernetes gives says more than one that is still awaited.
    pub rank: u8,
    /// What is to be said of the pod: "is not scheduled: ...".
    pub why: String,
}

/// A pod that has not stopped so long after it should have is on a node that is lost, or held by a finalizer.
const OVERDUE: SignedDuration = SignedDuration::from_mins(1);

/// Whether no node takes a pod of this status, such as that of its volume while it is drained.
pub fn is_taken_by_no_node(status: &Value) -> bool {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "PodScheduled" && condition["reason"] == "Unschedulable")
}

/// What keeps a pod of this status from being ready; nothing of one that is. `stops_by` is when one that is being deleted should have stopped.
pub fn trouble(status: &Value, stops_by: Option<Timestamp>, node: Option<&str>, now: Timestamp) -> Option<Trouble> {
    let because = |rank, why: String| Some(Trouble { rank, why });
    let condition = |type_: &str| {
        status["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == type_)
    };
    if let Some(stops_by) = stops_by {
        let (Some(node), true) = (node, now.duration_since(stops_by) > OVERDUE) else {
            return because(1, "is stopping".into());
        };
        return because(
            6,
            format!(
                "should have stopped by {stops_by}: if its node {node} is lost for good, tell Kubernetes with kubectl taint node {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute, or delete the node, and it moves"
            ),
        );
    }
    if condition("Ready").is_some_and(|ready| ready["status"] == "True") {
        return None;
    }
    if let Some(unscheduled) = condition("PodScheduled").filter(|scheduled| scheduled["status"] == "False") {
        return because(4, format!("is not scheduled: {}", unscheduled["message"].as_str().unwrap_or_default()));
    }
    let container = &status["containerStatuses"][0];
    if let Some(waiting) = container["state"]["waiting"].as_object() {
        let (reason, message) = (waiting.get("reason"), waiting.get("message"));
        let text = |value: Option<&Value>| value.and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        let rank = if text(reason) == "ContainerCreating" || text(reason) == "PodInitializing" { 2 } else { 5 };
        return because(rank, format!("waits: {} {}", text(reason), text(message)).trim_end().to_owned());
    }
    let ended = &container["lastState"]["terminated"];
    if let Some(code) = ended["exitCode"].as_i64() {
        let reason = ended["reason"].as_str().unwrap_or("Error");
        return because(3, format!("has started again after it ended with {code} ({reason}) and is not ready yet"));
    }
    because(2, "is starting".into())
}
