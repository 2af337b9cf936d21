//! Pods of a trial: what they are made of, and how they end.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use kube::{Api, api::PostParams, runtime::wait::await_condition};
use serde_json::{Value, json};
use taskplatform_blueprint::{pod_security_context, security_context};
use tokio::time::timeout_at;

use super::Trial;
use crate::check::outcome::message;

/// Why a pod has not come as far as it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum Obstacle {
    #[error("the image of pod {pod} cannot be pulled: {why}")]
    Image { pod: String, why: String },
    #[error("pod {pod} is refused: {why}")]
    Refused { pod: String, why: String },
    #[error("pod {pod} cannot be made: {source}")]
    Shape { pod: String, source: serde_json::Error },
    #[error("pod {pod} cannot be watched: {why}")]
    Watch { pod: String, why: String },
    #[error("pod {pod} was not as far when the time was over: {why}")]
    Late { pod: String, why: String },
}

/// A pod that passes the restricted standard, as those of a platform do. It asks for little, and is not started again.
pub(super) fn pod(name: &str, image: &str, container: Value) -> Value {
    let mut whole = json!({
        "name": "trial",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": security_context(),
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
    });
    if let (Some(whole), Value::Object(container)) = (whole.as_object_mut(), container) {
        whole.extend(container);
    }
    json!({
        "metadata": {"name": name, "labels": {"role": name}},
        "spec": {
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "securityContext": pod_security_context(),
            "containers": [whole],
        },
    })
}

impl Trial {
    /// Makes a pod and waits until it is as it should be.
    pub(super) async fn pod(&self, name: &str, pod: Value, done: fn(&Pod) -> bool) -> Result<Pod, Obstacle> {
        let api: Api<Pod> = self.api();
        let pod = serde_json::from_value(pod).map_err(|source| Obstacle::Shape { pod: name.to_owned(), source })?;
        let made = timeout_at(self.deadline, Box::pin(api.create(&PostParams::default(), &pod))).await;
        let late = |why: String| Obstacle::Late { pod: name.to_owned(), why };
        let made = made.map_err(|_| late("the API server does not answer".to_owned()))?;
        made.map_err(|error| Obstacle::Refused { pod: name.to_owned(), why: message(&error) })?;

        let settled = |pod: Option<&Pod>| pod.is_some_and(|pod| done(pod) || unpulled(pod).is_some());
        match timeout_at(self.deadline, Box::pin(await_condition(api.clone(), name, settled))).await {
            Ok(Ok(Some(pod))) => match unpulled(&pod) {
                Some(why) => Err(Obstacle::Image { pod: name.to_owned(), why }),
                None => Ok(pod),
            },
            Ok(Ok(None)) => Err(late("it was deleted".to_owned())),
            Ok(Err(error)) => Err(Obstacle::Watch { pod: name.to_owned(), why: error.to_string() }),
            Err(_) => Err(late(match api.get(name).await {
                Ok(pod) => stuck(&pod),
                Err(error) => message(&error),
            })),
        }
    }
}

fn status(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

fn state(pod: &Pod) -> Option<&ContainerState> {
    status(pod)?.state.as_ref()
}

/// Whether its image is on its node: its container was made from it.
pub(super) fn has_image(pod: &Pod) -> bool {
    state(pod).is_some_and(|state| state.running.is_some() || state.terminated.is_some())
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    status(pod).is_some_and(|status| status.ready)
}

/// The exit code of its command, once that has ended.
pub(super) fn exit_code(pod: &Pod) -> Option<i32> {
    state(pod)?.terminated.as_ref().map(|terminated| terminated.exit_code)
}

pub(super) fn has_ended(pod: &Pod) -> bool {
    exit_code(pod).is_some()
}

/// Why its image does not come, or cannot be used.
fn unpulled(pod: &Pod) -> Option<String> {
    let waiting = state(pod)?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let hopeless = matches!(
        reason,
        "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "SignatureValidationFailed"
            | "CreateContainerError"
            | "CreateContainerConfigError"
    );
    hopeless.then(|| format!("{reason}: {}", waiting.message.as_deref().unwrap_or("no more is said")))
}

/// What a pod waits for.
fn stuck(pod: &Pod) -> String {
    let Some(status) = &pod.status else { return "nobody has looked at it".to_owned() };
    let conditions = status.conditions.iter().flatten();
    let unscheduled = conditions
        .filter(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
        .find_map(|condition| condition.message.clone());
    let waiting = state(pod).and_then(|state| state.waiting.as_ref()).and_then(|waiting| waiting.reason.clone());
    let phase = || format!("its phase is {}", status.phase.as_deref().unwrap_or("unknown"));
    unscheduled.or(waiting).unwrap_or_else(phase)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_status(status: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap()
    }

    fn with_state(state: &Value) -> Pod {
        let container =
            json!({"name": "trial", "image": "a", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        with_status(&json!({"phase": "Pending", "containerStatuses": [container]}))
    }

    #[test]
    fn a_pull_that_fails_is_told_from_one_that_goes_on() {
        let failed = with_state(&json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}}));
        assert_eq!(unpulled(&failed).as_deref(), Some("ErrImagePull: not found"));
        let going_on = with_state(&json!({"waiting": {"reason": "ContainerCreating"}}));
        assert_eq!((unpulled(&going_on), has_image(&going_on)), (None, false));
        assert_eq!(stuck(&going_on), "ContainerCreating");
        // The image may lack the program: it is there all the same.
        let ended = with_state(&json!({"terminated": {"exitCode": 128, "reason": "StartError"}}));
        assert_eq!((unpulled(&ended), has_image(&ended), exit_code(&ended)), (None, true, Some(128)));
    }

    #[test]
    fn a_pod_without_a_node_says_why() {
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"});
        let pod = with_status(&json!({"phase": "Pending", "conditions": [condition]}));
        assert_eq!(stuck(&pod), "0/3 nodes are available");
        assert_eq!(stuck(&with_status(&json!({"phase": "Pending"}))), "its phase is Pending");
    }
}
