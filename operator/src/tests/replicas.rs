//! The operator's own replicas stand apart.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use taskplatform_blueprint::MANAGED_BY;

use crate::{
    metrics::Metrics,
    replicas,
    testing::{Bed, config},
    world::World,
};

const NAMESPACE: &str = "taskplatform-system";

fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app.kubernetes.io/name": "taskplatform-operator"}},
        "spec": {"nodeName": node, "containers": []},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// A bed with two nodes, each with a pod of a platform, and with the operator's replicas `one`, which leads, and `two`, both on `a`.
async fn crowded() -> (Bed, Arc<Metrics>, tokio::task::JoinHandle<()>) {
    let bed = Bed::new();
    for node in ["a", "b"] {
        bed.server.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}, "spec": {}}));
        let mut pod = pod(&format!("shop-api-{node}"), node);
        pod["metadata"]["namespace"] = "shops".into();
        pod["metadata"]["labels"] = json!({
            "app.kubernetes.io/name": "taskplatform", "app.kubernetes.io/managed-by": MANAGED_BY,
            "app.kubernetes.io/instance": "shop", "app.kubernetes.io/component": "api",
        });
        bed.server.put(pod);
    }
    bed.server.put(pod("one", "a"));
    bed.server.put(pod("two", "a"));
    let metrics = Arc::new(Metrics::default());
    let world = World::watch(&bed.client, &tokio::sync::watch::Sender::default());
    bed.until("the world is seen", || world.pods().len() == 2).await;
    let (client, in_task) = (bed.client.clone(), Arc::clone(&metrics));
    let task = tokio::spawn(async move { replicas::keep_apart(client, config("one"), world, in_task).await });
    (bed, metrics, task)
}

fn is_there(bed: &Bed, name: &str) -> bool {
    bed.server.get("Pod", NAMESPACE, name).is_some()
}

#[tokio::test(start_paused = true)]
async fn a_replica_beside_the_one_that_leads_moves_to_another_node() {
    let (bed, metrics, task) = crowded().await;
    bed.until("the other one is replaced", || !is_there(&bed, "two")).await;
    assert!(is_there(&bed, "one"), "the one that leads stays");
    bed.server.put(pod("three", "b"));
    bed.until("they are on two nodes", || metrics.nodes.get() == 2).await;
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert!(is_there(&bed, "three"));
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn replicas_stay_together_where_no_other_node_takes_them() {
    let (bed, metrics, task) = crowded().await;
    bed.server.edit("Node", "", "b", |node| node["spec"]["unschedulable"] = true.into());
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert!(is_there(&bed, "two"));
    assert_eq!(metrics.nodes.get(), 1);
    bed.server.edit("Node", "", "b", |node| node["spec"]["unschedulable"] = false.into());
    bed.until("there is room again", || !is_there(&bed, "two")).await;
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_move_in_vain_is_tried_less_and_less() {
    let (bed, _, task) = crowded().await;
    let mut moves = 0;
    for _ in 0..360 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        if !is_there(&bed, "two") {
            moves += 1;
            bed.server.put(pod("two", "a"));
        }
    }
    assert!((3..=5).contains(&moves), "{moves} moves within an hour");
    task.abort();
}
