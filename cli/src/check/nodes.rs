//! Room for the pods on the nodes as they are.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt, api::ListParams};
use taskplatform_blueprint::{Code, Finding, Nodes, findings};
use taskplatform_crds::{Cpu, Size};

use super::{
    Target,
    outcome::{Group, Outcome},
    room,
};
use crate::{cluster::Cluster, output};

const GROUP: Group = Group::Nodes;
const ZONE: &str = "topology.kubernetes.io/zone";

pub(super) async fn check(cluster: &Cluster, target: &Target) -> Vec<Outcome> {
    let name = "the pods find room";
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let pods: Api<Pod> = Api::all(cluster.client.clone());
    // What has ended takes nothing.
    let running = ListParams::default().fields("status.phase!=Succeeded,status.phase!=Failed");
    let everything = ListParams::default();
    match tokio::join!(nodes.list(&everything), pods.list(&running)) {
        (Ok(nodes), Ok(pods)) => judge(target, &nodes.items, &pods.items),
        (Err(error), _) => vec![GROUP.unread(name, "nodes", &error)],
        (_, Err(error)) => vec![GROUP.unread(name, "the pods of all namespaces", &error)],
    }
}

fn judge(target: &Target, nodes: &[Node], pods: &[Pod]) -> Vec<Outcome> {
    let (open, closed): (Vec<_>, Vec<_>) =
        nodes.iter().map(|node| (node, room::closed(node))).partition(|(_, why)| why.is_none());
    let open: Vec<&Node> = open.into_iter().map(|(node, _)| node).collect();
    let closed: Vec<String> =
        closed.iter().filter_map(|(node, why)| Some(format!("{} ({})", node.name_any(), why.as_ref()?))).collect();
    let rooms = rooms(target, &open, pods);
    let name = "nodes take pods";
    let Some(room) = Nodes::new(rooms.clone()) else {
        let detail =
            if closed.is_empty() { "there are none".to_owned() } else { format!("none does: {}", closed.join(", ")) };
        return vec![GROUP.failure(name, detail, "add nodes without taints, or uncordon some")];
    };
    let mut outcomes = vec![GROUP.pass(name, summary(&rooms, &closed))];
    outcomes.extend(fits(target, &room));
    outcomes.push(spread(target, &room, &open));
    outcomes
}

/// What each node has left when this platform's own pods are not counted.
fn rooms(target: &Target, nodes: &[&Node], pods: &[Pod]) -> Vec<taskplatform_blueprint::Node> {
    let mut by_node: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !is_own(target, pod)) {
        if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) {
            by_node.entry(node).or_default().push(pod);
        }
    }
    let on = |node: &Node| by_node.get(node.name_any().as_str()).cloned().unwrap_or_default();
    nodes.iter().map(|node| room::left(node, on(node))).collect()
}

fn is_own(target: &Target, pod: &Pod) -> bool {
    let label = |name: &str| pod.labels().get(&format!("app.kubernetes.io/{name}")).map(String::as_str);
    pod.namespace().as_deref() == Some(target.platform.namespace())
        && label("name") == Some("taskplatform")
        && label("instance") == Some(target.platform.name())
}

fn summary(rooms: &[taskplatform_blueprint::Node], closed: &[String]) -> String {
    let cpu: u64 = rooms.iter().map(|room| room.cpu.as_millicores()).sum();
    let memory: u64 = rooms.iter().map(|room| room.memory.as_mebibytes()).sum();
    let left = format!("{} CPU and {} left", Cpu::millicores(cpu), Size::mebibytes(memory));
    let closed = if closed.is_empty() { String::new() } else { format!("; not {}", closed.join(", ")) };
    format!("{}, {left}{closed}", output::count(rooms.len(), "node"))
}

fn fits(target: &Target, room: &Nodes) -> [Outcome; 2] {
    let scaling = &target.platform.spec().scaling;
    let (min, max) = (scaling.min_instances.get(), scaling.max_instances.get());
    let name =
        |instances: i32, bound: &str| format!("the pods find room with {instances} instances of the API, the {bound}");
    let (fewest, most) = (name(min, "fewest"), name(max, "most"));
    let lacking = findings(&target.manifest, Some(room));
    let (never, too_few): (Vec<&Finding>, Vec<&Finding>) = lacking
        .iter()
        .filter(|finding| matches!(finding.code, Code::PodTooLarge | Code::TooFewNodes))
        .partition(|finding| finding.field != "spec.scaling.maxInstances");
    if !never.is_empty() {
        let failed = GROUP.failure(
            fewest,
            told(&never),
            "add nodes, or larger ones, or ask for less (taskplatform size --nodes proposes what fits)",
        );
        return [failed, GROUP.skipped(most, "the fewest find none already")];
    }
    let fewest = GROUP.pass(fewest, "");
    if too_few.is_empty() {
        return [fewest, GROUP.pass(most, "")];
    }
    [
        fewest,
        GROUP.warning(
            most,
            told(&too_few),
            "add nodes, lower scaling.maxInstances, or let a cluster autoscaler add them",
        ),
    ]
}

fn told(findings: &[&Finding]) -> String {
    let tell = |finding: &&Finding| format!("{}: {} ({})", finding.field, finding.reason, finding.code);
    findings.iter().map(tell).collect::<Vec<_>>().join("\n")
}

fn spread(target: &Target, room: &Nodes, nodes: &[&Node]) -> Outcome {
    let name = "replicas can be spread";
    let zones: BTreeSet<&str> = nodes.iter().filter_map(|node| node.labels().get(ZONE)).map(String::as_str).collect();
    let zones = if zones.is_empty() { "no zone is named".to_owned() } else { output::count(zones.len(), "zone") };
    let over = format!("over {}; {zones}", output::count(nodes.len(), "node"));
    let lacking = findings(&target.manifest, Some(room));
    let lacking: Vec<&Finding> = lacking.iter().filter(|finding| finding.code == Code::NoQuorum).collect();
    if lacking.is_empty() && nodes.len() > 1 {
        return GROUP.pass(name, over);
    }
    let mut detail = over;
    if nodes.len() == 1 {
        detail.push_str(": when it is lost, everything is");
    }
    if !lacking.is_empty() {
        detail = format!("{detail}\n{}", told(&lacking));
    }
    GROUP.warning(name, detail, "use at least 3 nodes, in 3 zones where there are zones")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::outcome::Verdict::{self, Failure, Pass, Skipped, Warning};
    use serde_json::{Value, json};
    use taskplatform_blueprint::Platform;

    fn target(spec: &Value) -> Target {
        let manifest = serde_json::from_value(json!({
            "apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform",
            "metadata": {"name": "tasks", "namespace": "default"}, "spec": spec,
        }))
        .unwrap();
        let platform = Platform::new(&manifest).unwrap();
        Target { manifest, platform }
    }

    fn nodes(count: usize, cpu: &str) -> Vec<Node> {
        let node = |number: usize| {
            json!({
                "metadata": {"name": format!("node-{number}"), "labels": {ZONE: format!("zone-{number}")}},
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "allocatable": {"cpu": cpu, "memory": "256Gi", "pods": "110"},
                },
            })
        };
        (0..count).map(|number| serde_json::from_value(node(number)).unwrap()).collect()
    }

    fn pod(instance: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "default", "labels": {
                "app.kubernetes.io/name": "taskplatform", "app.kubernetes.io/instance": instance,
            }},
            "spec": {"nodeName": "node-0", "containers": [{"name": "a", "resources": {"requests": {"cpu": "60"}}}]},
        }))
        .unwrap()
    }

    fn verdicts(target: &Target, nodes: &[Node], pods: &[Pod]) -> Vec<Verdict> {
        judge(target, nodes, pods).iter().map(|outcome| outcome.verdict).collect()
    }

    #[test]
    fn the_fewest_must_fit_and_the_most_should() {
        let target = target(&json!({"scaling": {"minInstances": 2, "maxInstances": 50}}));
        assert_eq!(verdicts(&target, &nodes(3, "64"), &[]), [Pass, Pass, Pass, Pass]);
        assert_eq!(verdicts(&target, &nodes(3, "12"), &[]), [Pass, Pass, Warning, Pass]);
        assert_eq!(verdicts(&target, &nodes(3, "1"), &[]), [Pass, Failure, Skipped, Pass]);
        assert_eq!(verdicts(&target, &nodes(2, "64"), &[])[3], Warning);
        assert_eq!(verdicts(&target, &[], &[]), [Failure]);
    }

    #[test]
    fn the_platform_itself_takes_no_room() {
        let target = target(&json!({"scaling": {"minInstances": 2, "maxInstances": 2}}));
        let nodes = nodes(1, "64");
        assert_eq!(verdicts(&target, &nodes, &[pod("tasks")])[1], Pass);
        assert_eq!(verdicts(&target, &nodes, &[pod("other")])[1], Failure);
    }
}
