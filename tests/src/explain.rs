//! What explains a failure: the platform's conditions, its events, its pods and their last words.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams},
};
use taskplatform_crds::TaskPlatform;

use crate::cluster::OPERATOR;

/// Prints everything that may explain a failure in this namespace.
pub async fn explain(client: &Client, namespace: &str) {
    conditions(client, namespace).await;
    events(client, namespace).await;
    pods(client, namespace).await;
    println!("--- the operator's log");
    let operators = Api::<Pod>::namespaced(client.clone(), OPERATOR).list(&ListParams::default()).await;
    for pod in operators.into_iter().flatten() {
        log(client, OPERATOR, &pod.name_any(), 40).await;
    }
}

async fn conditions(client: &Client, namespace: &str) {
    println!("--- conditions");
    let platforms = Api::<TaskPlatform>::namespaced(client.clone(), namespace).list(&ListParams::default()).await;
    for platform in platforms.into_iter().flatten() {
        let generation = platform.metadata.generation.unwrap_or_default();
        println!(
            "{} (generation {generation}, deleted: {})",
            platform.name_any(),
            platform.metadata.deletion_timestamp.is_some()
        );
        for condition in platform.status.into_iter().flat_map(|status| status.conditions) {
            let observed = condition.observed_generation.unwrap_or_default();
            println!(
                "  {:26} {:7} {observed} {} {}",
                condition.type_, condition.status, condition.reason, condition.message
            );
        }
    }
}

async fn events(client: &Client, namespace: &str) {
    println!("--- events");
    let Ok(events) = Api::<Event>::namespaced(client.clone(), namespace).list(&ListParams::default()).await else {
        return;
    };
    let mut lines: Vec<_> = events
        .into_iter()
        .map(|event| {
            let at =
                event.last_timestamp.map(|time| time.0).or(event.event_time.map(|time| time.0)).unwrap_or_default();
            let object = format!(
                "{}/{}",
                event.involved_object.kind.unwrap_or_default(),
                event.involved_object.name.unwrap_or_default()
            );
            let (reason, message) = (event.reason.unwrap_or_default(), event.message.unwrap_or_default());
            (at, format!("{at} {object} {reason}: {message}"))
        })
        .collect();
    lines.sort();
    for (_, line) in lines.iter().rev().take(40).rev() {
        println!("{line}");
    }
}

async fn pods(client: &Client, namespace: &str) {
    println!("--- pods");
    let pods = Api::<Pod>::namespaced(client.clone(), namespace).list(&ListParams::default()).await;
    for pod in pods.into_iter().flatten() {
        let name = pod.name_any();
        let status = pod.status.unwrap_or_default();
        let ready = status
            .conditions
            .iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let restarts: i32 = status.container_statuses.iter().flatten().map(|container| container.restart_count).sum();
        println!("{name}: {}, ready: {ready}, restarts: {restarts}", status.phase.unwrap_or_default());
        if !ready {
            log(client, namespace, &name, 20).await;
        }
    }
}

async fn log(client: &Client, namespace: &str, pod: &str, lines: i64) {
    let parameters = LogParams { tail_lines: Some(lines), ..LogParams::default() };
    match Api::<Pod>::namespaced(client.clone(), namespace).logs(pod, &parameters).await {
        Ok(text) => text.lines().for_each(|line| println!("  {pod} | {line}")),
        Err(error) => println!("  {pod} | no log: {error}"),
    }
}
