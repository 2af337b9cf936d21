//! What is answered to who wants to evict a pod. One of a stateful part whose node is drained is not evicted but made to go by the
//! operator, when the rest of its part serves: who asked is told to ask again, as when a PodDisruptionBudget holds it; also while the API
//! server is too slow to say more about it. One without state waits where the primary is to leave the same node: what starts in its place would
//! take the processor while users wait. And they go one after another, so that not every part has one pod less at once, and not everything starts at once. Everything else, and everything while the operator is away, is left to the budgets.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::{
        DynamicObject,
        admission::{AdmissionRequest, AdmissionResponse, AdmissionReview},
    },
};
use serde_json::json;
use taskplatform_blueprint::MANAGED_BY;
use taskplatform_crds::TaskPlatform;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::read;
use crate::{
    describe,
    metrics::Eviction,
    world::{Child, EVICTED, OwnerKind, World, owners, takes_pods},
};

/// The API server gives up after five seconds.
const TIMEOUT: Duration = Duration::from_secs(3);
/// A pod younger than this, on a node that is not drained, has come for another: whoever asks wants that one to go.
const NEW: Duration = Duration::from_mins(2);
/// How old a note may get that somebody asks.
const NOTED: Duration = Duration::from_secs(20);

/// How old it is at most while somebody still asks: it is noted again when it is too old and somebody asks, every 5 s as a rule.
const ASKED: Duration = Duration::from_secs(30);
/// Who drains a node asks for all its pods at about the same time, in any order.
const TOGETHER: Duration = Duration::from_millis(500);

/// Of a platform's pods without state that leave a node, one goes this much after another. Who drains it asks again every 5 s as a rule.
const PACE: Duration = Duration::from_secs(4);

/// For so long it is not known whether the one that may go does.
const UNSEEN: Duration = Duration::from_secs(1);

/// Which of a platform's pods without state was let go last, and when, by the platform's namespace and name.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<(String, String), (String, Instant)>>);

impl Turns {
    /// Whether a pod may go now; then it is the last one. The turn of one that did not go, since a budget holds it, is nobody's.
    fn take(&self, namespace: &str, platform: &str, pod: &str, goes: impl Fn(&str) -> bool) -> bool {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, (_, at)| at.elapsed() < PACE);
        let platform = (namespace.to_owned(), platform.to_owned());
        let is_held = |(last, at): &(String, Instant)| last != pod && (at.elapsed() < UNSEEN || goes(last));
        if turns.get(&platform).is_some_and(is_held) {
            return false;
        }
        turns.insert(platform, (pod.to_owned(), Instant::now()));
        true
    }
}

/// The API server does not say what the pod is, or does not take the note.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the API server does not answer about pod {pod}")]
    Ask { pod: String, source: Box<kube::Error> },
    #[error("the API server does not answer about pod {pod} within {} s", TIMEOUT.as_secs())]
    Timeout { pod: String },
}

impl Error {
    /// Whether the API server is only too slow or too busy: who asks again may be answered.
    fn passes(&self) -> bool {
        match self {
            Self::Ask { source, .. } => match &**source {
                kube::Error::Api(status) => status.code == 429 || status.code >= 500,
                _ => true,
            },
            Self::Timeout { .. } => true,
        }
    }
}

/// What becomes of an eviction.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    /// It is Kubernetes' matter.
    Leave,
    /// The one that was to go is gone.
    IsGone,
    /// The operator sees to it.
    Later,
    /// The primary leaves the node before.
    AfterThePrimary,
    /// Another one has just gone.
    AfterAnother,
}

/// Answers a review, and says how.
pub(super) async fn answer(
    client: &Client,
    (world, turns): (&World, &Turns),
    body: &[u8],
) -> (AdmissionReview<DynamicObject>, Eviction) {
    let request = match read(body) {
        Ok(request) => request,
        Err(refusal) => return (*refusal, Eviction::Left),
    };
    let pod = request.name.clone();
    let asked = timeout(TIMEOUT, ask(client, (world, turns), &request))
        .await
        .unwrap_or(Err(Error::Timeout { pod: pod.clone() }));
    let response = AdmissionResponse::from(&request);
    let refuse = |mut response: AdmissionResponse, code, reason: &str, message| {
        response = response.deny(message);
        response.result.code = code;
        reason.clone_into(&mut response.result.reason);
        response
    };
    let (response, eviction) = match asked {
        Ok((Decision::Leave, _)) => (response, Eviction::Left),
        Ok((Decision::IsGone, _)) => {
            let message = format!("the {pod} that was to go is gone, and this one has come for it");
            (refuse(response, 404, "NotFound", message), Eviction::Gone)
        }
        Ok((Decision::Later, step)) => {
            let message = format!("the operator has {pod} go when the rest serves without it{step}: ask again");
            (refuse(response, 429, "TooManyRequests", message), Eviction::Later)
        }
        Ok((Decision::AfterThePrimary, step)) => {
            let message = format!("{pod} may go when the primary has left its node{step}: ask again");
            (refuse(response, 429, "TooManyRequests", message), Eviction::Later)
        }
        Ok((Decision::AfterAnother, _)) => {
            let message = format!("another pod of the platform has just gone, and {pod} goes after it: ask again");
            (refuse(response, 429, "TooManyRequests", message), Eviction::Later)
        }
        Err(error) if error.passes() && is_stateful(world, &request) => {
            (refuse(response, 429, "TooManyRequests", format!("{error}: ask again")), Eviction::Later)
        }
        Err(error) => {
            warn!(pod, error = describe(&error), "an eviction is left to the PodDisruptionBudgets");
            (response, Eviction::Left)
        }
    };
    (response.into_review(), eviction)
}

/// What becomes of the eviction, and the step that the operator is at.
async fn ask(
    client: &Client,
    (world, turns): (&World, &Turns),
    request: &AdmissionRequest<DynamicObject>,
) -> Result<(Decision, String), Error> {
    let failed = |source| Error::Ask { pod: request.name.clone(), source: Box::new(source) };
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let Some(pod) = pods.get_opt(&request.name).await.map_err(failed)? else {
        return Ok((Decision::Leave, String::new()));
    };
    let Some(name) = platform(&pod) else { return Ok((Decision::Leave, String::new())) };
    let platforms: Api<TaskPlatform> = Api::namespaced(client.clone(), namespace);
    let platform = platforms.get_opt(name).await.map_err(failed)?;
    let nodes: Api<Node> = Api::all(client.clone());
    let node = match pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) {
        Some(node) => nodes.get_opt(node).await.map_err(failed)?,
        None => None,
    };
    let now = Timestamp::now();
    let decision = if has_state(&pod) {
        decide(&pod, platform.as_ref(), node.as_ref(), now)
    } else if is_drained(&pod, platform.as_ref(), node.as_ref()) {
        sleep(TOGETHER).await;
        let primary = platform.as_ref().and_then(|platform| primary(world, namespace, platform));
        let goes = |last: &str| {
            let mut pods = world.pods().into_iter();
            pods.find(|(of, pod)| of == namespace && *pod.name == *last).is_none_or(|(_, pod)| pod.is_ending())
        };
        match decide_after(&pod, primary.as_deref(), Timestamp::now()) {
            Decision::Leave if !request.dry_run && !turns.take(namespace, name, &request.name, goes) => {
                Decision::AfterAnother
            }
            decision => decision,
        }
    } else {
        Decision::Leave
    };
    if decision == Decision::Later && !request.dry_run && !is_noted(&pod, now) {
        info!(pod = request.name, namespace, "somebody wants to evict it");
        let change = json!({"metadata": {"uid": pod.metadata.uid, "annotations": {EVICTED: now.to_string()}}});
        let parameters = PatchParams { field_manager: Some(MANAGED_BY.to_owned()), ..PatchParams::default() };
        pods.patch(&request.name, &parameters, &Patch::Merge(change)).await.map_err(failed)?;
    }
    let procedure = platform.and_then(|platform| platform.status).and_then(|status| status.procedure);
    Ok((decision, procedure.map(|place| format!(" ({})", place.step)).unwrap_or_default()))
}

/// Whether the pod was of a platform's stateful part when the API server told last.
fn is_stateful(world: &World, request: &AdmissionRequest<DynamicObject>) -> bool {
    let is_asked_for =
        |namespace: &str, pod: &Child| Some(namespace) == request.namespace.as_deref() && *pod.name == *request.name;
    let mut pods = world.pods().into_iter().filter(|(namespace, pod)| is_asked_for(namespace, pod));
    pods.any(|(_, pod)| pod.owners.iter().any(|owner| owner.kind == OwnerKind::StatefulSet))
}

/// The platform of a pod.
fn platform(pod: &Pod) -> Option<&str> {
    let labels = pod.labels();
    let is = |label: &str, value: &str| labels.get(label).is_some_and(|found| found == value);
    let is_ours = is("app.kubernetes.io/name", "taskplatform") && is("app.kubernetes.io/managed-by", MANAGED_BY);
    labels.get("app.kubernetes.io/instance").filter(|_| is_ours).map(String::as_str)
}

/// Whether only the operator has it go: it is one of a stateful part.
fn has_state(pod: &Pod) -> bool {
    owners(pod).iter().any(|owner| owner.kind == OwnerKind::StatefulSet)
}

/// The pod of the platform's primary, as the API server told last.
fn primary(world: &World, namespace: &str, platform: &TaskPlatform) -> Option<Arc<Child>> {
    let name = &platform.status.as_ref()?.database.as_ref()?.primary;
    world.pods().into_iter().find(|(of, pod)| of == namespace && *pod.name == **name).map(|(_, pod)| pod)
}

/// Whether the operator acts for the pod's platform, and its node is to be empty.
fn is_drained(pod: &Pod, platform: Option<&TaskPlatform>, node: Option<&Node>) -> bool {
    acts(pod, platform) && node.is_some_and(|node| !takes_pods(node))
}

fn acts(pod: &Pod, platform: Option<&TaskPlatform>) -> bool {
    let acts = platform.is_some_and(|platform| platform.meta().deletion_timestamp.is_none() && !platform.spec.paused);
    acts && pod.metadata.deletion_timestamp.is_none()
}

/// Of a pod without state on a node that is drained: the primary hands over before, where it is to leave the same node.
fn decide_after(pod: &Pod, primary: Option<&Child>, now: Timestamp) -> Decision {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let is_to_leave = |primary: &Child| {
        let is_asked_for = primary.evicted.is_some_and(|asked| now.duration_since(asked).unsigned_abs() < ASKED);
        is_asked_for && primary.node() == node && !primary.is_ending()
    };
    if primary.is_some_and(is_to_leave) { Decision::AfterThePrimary } else { Decision::Leave }
}

fn decide(pod: &Pod, platform: Option<&TaskPlatform>, node: Option<&Node>, now: Timestamp) -> Decision {
    if !acts(pod, platform) {
        return Decision::Leave;
    }
    let Some(node) = node else {
        // On no node: it cannot be the one that was to leave one.
        return Decision::IsGone;
    };
    let made = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    if takes_pods(node) {
        // Nothing is done then: nobody who can only reach this webhook, and asks in the API server's stead, has a pod go that need not.
        let is_new = made.is_some_and(|made| now.duration_since(made).unsigned_abs() < NEW);
        return if is_new { Decision::IsGone } else { Decision::Leave };
    }
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    if is_ready { Decision::Later } else { Decision::Leave }
}

fn is_noted(pod: &Pod, now: Timestamp) -> bool {
    let noted = pod.annotations().get(EVICTED).and_then(|time| time.parse::<Timestamp>().ok());
    noted.is_some_and(|noted| now.duration_since(noted).unsigned_abs() < NOTED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        testing::{Bed, Trouble, Verb},
        world::Watched,
    };

    fn pod(change: &serde_json::Value) -> Pod {
        let mut pod = json!({
            "metadata": {
                "name": "tasks-database-0", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {
                    "app.kubernetes.io/name": "taskplatform", "app.kubernetes.io/instance": "tasks",
                    "app.kubernetes.io/managed-by": MANAGED_BY,
                },
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "tasks-database", "uid": "a"}],
            },
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        json_patch(&mut pod, change);
        serde_json::from_value(pod).unwrap()
    }

    fn json_patch(value: &mut serde_json::Value, change: &serde_json::Value) {
        match change.as_object() {
            Some(change) => change.iter().for_each(|(key, change)| json_patch(&mut value[key], change)),
            None => *value = change.clone(),
        }
    }

    #[test]
    fn only_pods_of_platforms_are_the_operators_matter() {
        assert_eq!(platform(&pod(&json!({}))), Some("tasks"));
        assert!(has_state(&pod(&json!({}))));
        let instance = json!({"metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a", "uid": "a"}]}});
        assert!(!has_state(&pod(&instance)));
        let others = [
            json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "somebody"}}}),
            json!({"metadata": {"labels": {"app.kubernetes.io/name": "postgres"}}}),
        ];
        for other in others {
            assert_eq!(platform(&pod(&other)), None, "{other}");
        }
    }

    #[test]
    fn a_pod_that_serves_goes_later_and_one_that_has_come_for_it_not_at_all() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let tasks = |spec| -> TaskPlatform {
            let object = json!({"apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform", "metadata": {"name": "tasks"}, "spec": spec});
            serde_json::from_value(object).unwrap()
        };
        let node = |spec| -> Node { serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec})).unwrap() };
        let (open, drained) = (node(json!({})), node(json!({"unschedulable": true})));
        let tainted = node(json!({"taints": [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]}));
        let serving = tasks(json!({}));
        let decide = |change, platform: &TaskPlatform, node| decide(&pod(&change), Some(platform), node, now);

        assert_eq!(decide(json!({}), &serving, Some(&drained)), Decision::Later);
        assert_eq!(decide(json!({}), &serving, Some(&open)), Decision::Leave, "the budgets decide");
        let young = json!({"metadata": {"creationTimestamp": "2026-01-01T23:59:30Z"}});
        assert_eq!(decide(young.clone(), &serving, Some(&open)), Decision::IsGone);
        assert_eq!(decide(young.clone(), &serving, Some(&drained)), Decision::Later, "it is on the drained node");
        assert_eq!(decide(young, &serving, Some(&tainted)), Decision::Later);
        assert_eq!(decide(json!({}), &serving, None), Decision::IsGone, "it waits for a node");

        assert_eq!(decide(json!({}), &tasks(json!({"paused": true})), Some(&drained)), Decision::Leave);
        let unready = json!({"status": {"conditions": []}});
        assert_eq!(decide(unready, &serving, Some(&drained)), Decision::Leave);
        let ending = json!({"metadata": {"deletionTimestamp": "2026-01-02T00:00:10Z"}});
        assert_eq!(decide(ending, &serving, Some(&drained)), Decision::Leave);
    }

    #[test]
    fn a_pod_without_state_waits_for_the_primary_that_is_to_leave_its_node() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let instance = pod(&json!({"spec": {"nodeName": "a", "containers": []}}));
        let child = |node: &str, evicted: &str| {
            let place = json!({
                "apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": node, "containers": []},
                "metadata": {"namespace": "shops", "uid": "a", "resourceVersion": "1", "annotations": {EVICTED: evicted}},
            });
            let mut known = serde_json::to_value(pod(&json!({}))).unwrap();
            json_patch(&mut known, &place);
            let world = World::default();
            world.remember_answer(Watched::Pod, serde_json::from_value(known).unwrap());
            world.pods().remove(0).1
        };
        let decide = |primary: Option<&Child>| decide_after(&instance, primary, now);
        assert_eq!(decide(Some(&child("a", "2026-01-01T23:59:36Z"))), Decision::AfterThePrimary);
        assert_eq!(decide(Some(&child("b", "2026-01-01T23:59:59Z"))), Decision::Leave, "it has handed over");
        assert_eq!(
            decide(Some(&child("a", "2026-01-01T23:59:00Z"))),
            Decision::Leave,
            "nobody wants it to go any more"
        );
        assert_eq!(decide(None), Decision::Leave);
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_api_server_is_slow_who_asks_for_a_stateful_pod_is_to_ask_again() {
        let bed = Bed::new();
        let world = World::default();
        let mut known =
            serde_json::to_value(pod(&json!({"metadata": {"namespace": "shops", "uid": "a", "resourceVersion": "1"}})))
                .unwrap();
        (known["apiVersion"], known["kind"]) = (json!("v1"), json!("Pod"));
        world.remember_answer(Watched::Pod, serde_json::from_value(known).unwrap());
        let review = |name: &str| {
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
                "uid": "1", "name": name, "namespace": "shops", "operation": "CREATE", "userInfo": {}, "dryRun": false,
                "kind": {"group": "policy", "version": "v1", "kind": "Eviction"},
                "resource": {"group": "", "version": "v1", "resource": "pods"}, "subResource": "eviction",
            }})
            .to_string()
        };
        for (name, trouble, expected) in [
            ("tasks-database-0", Trouble::Hang, (false, 429)),
            ("tasks-database-0", Trouble::Refuse(503), (false, 429)),
            ("tasks-database-0", Trouble::Refuse(403), (true, 0)),
            ("somebody-else", Trouble::Hang, (true, 0)),
        ] {
            bed.server.trouble(Verb::Get, "Pod", trouble);
            let (answer, _) = answer(&bed.client, (&world, &Turns::default()), review(name).as_bytes()).await;
            let response = answer.response.unwrap();
            assert_eq!(
                (response.allowed, response.result.code),
                expected,
                "{name}, {trouble:?}: {:?}",
                response.result
            );
            bed.server.heal();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pods_without_state_go_one_after_another() {
        let turns = Turns::default();
        let take = |pod, goes| turns.take("shops", "tasks", pod, |_| goes);
        assert!(take("a", true));
        assert!(take("a", true), "its client asks again");
        assert!(!take("b", true), "one has just gone");
        assert!(!take("b", false), "nobody knows yet whether it goes");
        assert!(turns.take("shops", "others", "x", |_| true) && turns.take("stores", "tasks", "y", |_| true));
        tokio::time::advance(PACE / 2).await;
        assert!(!take("b", true));
        tokio::time::advance(PACE / 2).await;
        assert!(take("b", true), "who asked in vain does not put it off");
        tokio::time::advance(UNSEEN).await;
        assert!(take("c", false), "a budget held the one before");
    }

    #[test]
    fn what_was_noted_lately_is_not_noted_again() {
        let noted = pod(&json!({"metadata": {"annotations": {EVICTED: "2026-01-02T00:00:00Z"}}}));
        let at = |time: &str| is_noted(&noted, time.parse().unwrap());
        assert!(at("2026-01-02T00:00:10Z"));
        assert!(!at("2026-01-02T00:00:30Z"));
        assert!(!is_noted(&pod(&json!({})), "2026-01-02T00:00:00Z".parse().unwrap()));
    }
}
