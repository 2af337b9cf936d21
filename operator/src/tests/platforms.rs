//! What becomes of a platform itself: its status, its end, and one that cannot be built.

use serde_json::{Value, json};

use crate::{
    metrics::Outcome,
    testing::{Bed, NAME, NAMESPACE, Trouble, Verb},
};

#[tokio::test(start_paused = true)]
async fn the_status_tells_what_there_is() {
    let (bed, _operator) = Bed::with_platform(json!({})).await;
    let platform = bed.get("TaskPlatform", NAME);
    assert_eq!(platform["spec"]["api"]["replicas"], 3, "the autoscaler has a number to begin with");
    assert_eq!(platform["status"]["observedGeneration"], platform["metadata"]["generation"]);
    let condition = |type_: &str| {
        let condition = bed.condition(type_);
        format!("{} {}", condition["status"], condition["reason"]).replace('"', "")
    };
    assert_eq!(condition("Ready"), "False WaitingFor:Database,Pooler,Cache,Sessions,Api,Worker,Gateway");
    assert!(condition("Reconciling").starts_with("True "), "{}", condition("Reconciling"));
    assert_eq!(condition("Stalled"), "False Valid");
    for part in ["Database", "Pooler", "Cache", "Sessions", "Api", "Worker", "Gateway", "Autoscaler"] {
        assert!(condition(&format!("{part}Ready")).starts_with("False "), "{part}: {}", bed.server);
    }
}

/// A spec of the right shape that breaks a rule, and one that is none.
fn wrong_specs() -> [Value; 2] {
    [json!({"scaling": {"minInstances": 5, "maxInstances": 2}}), json!({"gateway": {"replicas": "many"}})]
}

async fn until_stalled(bed: &Bed) {
    bed.until("it is stalled", || bed.condition("Stalled")["status"] == "True").await;
}

#[tokio::test(start_paused = true)]
async fn a_spec_that_cannot_be_built_stalls_and_nothing_is_applied() {
    for spec in wrong_specs() {
        let bed = Bed::new();
        bed.put_platform(spec);
        let _operator = bed.operator();
        until_stalled(&bed).await;
        assert_eq!(bed.condition("Ready")["reason"], "InvalidSpec");
        for call in bed.server.writes() {
            assert!(call.subresource == "status" || call.resource.kind == "Event", "{call}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_spec_that_breaks_a_rule_is_told_of_once() {
    is_told_of_once(&wrong_specs()[0]).await;
}

#[tokio::test(start_paused = true)]
async fn a_spec_that_is_none_is_told_of_once() {
    is_told_of_once(&wrong_specs()[1]).await;
}

async fn is_told_of_once(spec: &Value) {
    let bed = Bed::new();
    bed.put_platform(spec.clone());
    let operator = bed.operator();
    bed.until("it is reconciled", || operator.reconciled(Outcome::Invalid) == 1).await;
    let statuses = bed.server.writes().into_iter().filter(|call| call.subresource == "status").count();
    assert_eq!(statuses, 1, "{}", bed.server);
    assert_eq!(bed.server.list("Event").len(), 1, "{}", bed.server);
}

#[tokio::test(start_paused = true)]
async fn what_runs_goes_on_while_the_spec_breaks_a_rule() {
    goes_on_with(&wrong_specs()[0]).await;
}

#[tokio::test(start_paused = true)]
async fn what_runs_goes_on_while_the_spec_is_none() {
    goes_on_with(&wrong_specs()[1]).await;
}

async fn goes_on_with(wrong: &Value) {
    let (bed, operator) = Bed::with_platform(json!({})).await;
    operator.stop().await;
    let spec = bed.get("TaskPlatform", NAME)["spec"].clone();
    bed.edit("TaskPlatform", NAME, |platform| {
        platform["spec"] = wrong.clone();
        let conditions = platform["status"]["conditions"].as_array_mut().unwrap();
        let ready = conditions.iter_mut().find(|condition| condition["type"] == "Ready").unwrap();
        (ready["status"], ready["reason"]) = ("True".into(), "Serving".into());
    });
    let _operator = bed.operator();
    until_stalled(&bed).await;
    assert!(bed.find("StatefulSet", "shop-database").is_some());
    assert_eq!(bed.condition("Ready")["reason"], "Serving", "{}", bed.server);
    bed.put_platform(spec);
    bed.until("it goes on", || bed.condition("Stalled")["status"] == "False").await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_applied_for_a_platform_that_is_being_deleted() {
    let (bed, operator) = Bed::with_platform(json!({})).await;
    operator.stop().await;
    bed.edit("TaskPlatform", NAME, |platform| platform["metadata"]["finalizers"] = json!(["example.com/holds"]));
    bed.delete("TaskPlatform", NAME);
    bed.delete("Service", "shop-api");
    bed.server.forget_calls();
    let operator = bed.operator();
    bed.until("it has looked", || operator.reconciled(Outcome::Applied) >= 1).await;
    assert!(bed.server.writes().is_empty(), "{}", bed.server);
}

#[tokio::test(start_paused = true)]
async fn a_platform_takes_its_objects_along_but_not_its_volumes() {
    let (bed, _operator) = Bed::with_platform(json!({})).await;
    bed.delete("TaskPlatform", NAME);
    for kind in taskplatform_blueprint::Kind::ALL {
        let left = bed.server.list(kind.name());
        let of_database =
            |object: &serde_json::Value| object["metadata"]["labels"]["app.kubernetes.io/component"] == "database";
        assert!(left.iter().all(of_database), "{kind:?}\n{}", bed.server);
    }
    assert_eq!(bed.find("StatefulSet", "shop-database"), None);
    assert!(bed.find("Secret", "shop-credentials").is_some(), "what opens the volumes stays with them");
}

#[tokio::test(start_paused = true)]
async fn a_platform_waits_until_its_namesake_is_gone() {
    let (bed, _operator) = Bed::with_platform(json!({})).await;
    bed.server.leave_garbage(true);
    let former = bed.get("Service", "shop-api");
    bed.delete("TaskPlatform", NAME);
    bed.put_platform(json!({}));
    bed.until("it waits", || bed.condition("Ready")["reason"] == "PredecessorEnding").await;
    assert_eq!(bed.get("Service", "shop-api")["metadata"], former["metadata"], "nothing is adopted");
    bed.server.leave_garbage(false);
    let is_new =
        || bed.find("Service", "shop-api").is_some_and(|new| new["metadata"]["uid"] != former["metadata"]["uid"]);
    bed.until("it begins anew", is_new).await;
}

#[tokio::test(start_paused = true)]
async fn what_patroni_remembers_of_a_database_without_volumes_goes() {
    let bed = Bed::new();
    let labels = json!({
        "app.kubernetes.io/name": "taskplatform", "app.kubernetes.io/instance": NAME,
        "app.kubernetes.io/component": "database", "cluster-name": "shop-database",
    });
    bed.server.put(json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "shop-database-config", "namespace": NAMESPACE, "labels": labels},
    }));
    bed.put_platform(json!({}));
    let _operator = bed.operator();
    bed.until_observed().await;
    assert_eq!(bed.find("Endpoints", "shop-database-config"), None);
}

#[tokio::test(start_paused = true)]
async fn a_status_that_cannot_be_written_is_tried_again() {
    let bed = Bed::new();
    bed.server.trouble(Verb::Patch, "TaskPlatform", Trouble::Refuse(500));
    bed.put_platform(json!({"api": {"replicas": 3}}));
    let operator = bed.operator();
    bed.until("it fails", || operator.reconciled(Outcome::Failed) >= 2).await;
    bed.server.heal();
    bed.until_observed().await;
    assert!(bed.find("Deployment", "shop-api").is_some());
}
