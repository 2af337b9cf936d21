//! What goes wrong around a platform: it is told, and takes nothing down.

use serde_json::json;

use crate::testing::{Bed, NAME, NAMESPACE, Trouble, Verb};

#[tokio::test(start_paused = true)]
async fn what_is_anothers_is_left_alone_and_told() {
    let labels = json!({
        "app.kubernetes.io/name": "taskplatform", "app.kubernetes.io/instance": NAME,
        "app.kubernetes.io/managed-by": "taskplatform-operator",
    });
    let is_others = json!({"app.kubernetes.io/name": "taskplatform", "app.kubernetes.io/instance": "other"});
    for (labels, is_owned) in [(json!({}), false), (is_others, false), (labels, true)] {
        let bed = Bed::new();
        let owner = bed.server.put(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "theirs", "namespace": NAMESPACE},
        }));
        let reference = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "name": "theirs", "uid": owner["metadata"]["uid"],
        });
        let theirs = bed.server.put(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "shop-api", "namespace": NAMESPACE, "labels": labels,
                "ownerReferences": if is_owned { vec![reference] } else { vec![] },
            },
            "spec": {"clusterIP": "10.0.0.1"},
        }));
        bed.put_platform(json!({}));
        let _operator = bed.operator();
        bed.until("it is told", || bed.condition("Reconciling")["reason"] == "NameTaken").await;
        let message = bed.condition("Reconciling")["message"].to_string();
        assert!(message.contains("Service shop-api"), "{message}");
        assert_eq!(bed.get("Service", "shop-api"), theirs);
        assert!(bed.find("Deployment", "shop-api").is_some(), "the others are applied");
        bed.delete("TaskPlatform", NAME);
        assert_eq!(bed.find("Service", "shop-api").as_ref(), Some(&theirs), "it does not go with the platform");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_orphaned_is_taken_up_again() {
    let (bed, operator) = Bed::with_platform(json!({})).await;
    operator.stop().await;
    let uid = bed.get("Service", "shop-api")["metadata"]["uid"].clone();
    bed.edit("Service", "shop-api", |service| service["metadata"]["ownerReferences"] = json!([]));
    let _operator = bed.operator();
    bed.until("it has its owner again", || {
        bed.get("Service", "shop-api")["metadata"]["ownerReferences"][0]["kind"] == "TaskPlatform"
    })
    .await;
    assert_eq!(bed.get("Service", "shop-api")["metadata"]["uid"], uid);
}

#[tokio::test(start_paused = true)]
async fn a_spec_of_a_later_release_is_told_and_nothing_is_applied() {
    let (bed, _operator) = Bed::with_platform(json!({"pooler": {"replicas": 2}})).await;
    let before = bed.get("Deployment", "shop-pooler");
    bed.edit("TaskPlatform", NAME, |platform| {
        platform["spec"]["later"] = json!({"a": 1});
        platform["spec"]["pooler"]["replicas"] = 3.into();
    });
    bed.until("it is told", || bed.condition("Stalled")["reason"] == "NewerSpec").await;
    assert!(bed.condition("Stalled")["message"].to_string().contains("spec.later"));
    assert_eq!(bed.get("Deployment", "shop-pooler"), before);
    assert!(!bed.condition("DatabaseReady").is_null(), "what runs is looked at");
    bed.edit("TaskPlatform", NAME, |platform| drop(platform["spec"].as_object_mut().unwrap().remove("later")));
    bed.until("it goes on", || bed.get("Deployment", "shop-pooler")["spec"]["replicas"] == 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_platform_is_left_as_it_is() {
    let (bed, _operator) = Bed::with_platform(json!({"paused": true})).await;
    assert_eq!(bed.condition("Reconciling")["reason"], "Paused");
    assert!(bed.server.list("Service").is_empty());
    bed.edit("TaskPlatform", NAME, |platform| platform["spec"]["paused"] = false.into());
    bed.until("it is applied", || bed.find("Service", "shop-api").is_some()).await;
    bed.edit("TaskPlatform", NAME, |platform| platform["spec"]["paused"] = true.into());
    bed.until("it is paused", || bed.condition("Reconciling")["reason"] == "Paused").await;
    bed.delete("Service", "shop-api");
    bed.until_observed().await;
    assert_eq!(bed.find("Service", "shop-api"), None);
}

#[tokio::test(start_paused = true)]
async fn instances_that_run_stay_where_the_spec_says_no_number() {
    let (bed, _operator) = Bed::with_platform(json!({"api": {"replicas": 7}})).await;
    assert_eq!(bed.get("Deployment", "shop-api")["spec"]["replicas"], 7);
    bed.server.forget_calls();
    bed.put_platform(json!({}));
    bed.until("the number is written", || bed.get("TaskPlatform", NAME)["spec"]["api"]["replicas"] == 7).await;
    bed.until_observed().await;
    let applied = bed.server.writes().into_iter().filter(|call| call.resource.kind == "Deployment");
    assert_eq!(applied.map(|call| call.to_string()).collect::<Vec<_>>(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_may_not_list_a_kind_says_so_and_is_not_ready() {
    let bed = Bed::new();
    bed.server.trouble(Verb::List, "NetworkPolicy", Trouble::Refuse(403));
    bed.put_platform(json!({}));
    let operator = bed.operator();
    bed.until("all others are listed", || operator.unlisted.borrow().len() == 1).await;
    let kinds: Vec<&str> = operator.unlisted.borrow().iter().map(|kind| kind.name()).collect();
    assert_eq!(kinds, ["NetworkPolicy"]);
    bed.server.heal();
    bed.until_observed().await;
    assert!(operator.unlisted.borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_operator_does_without_events_where_it_may_not_list_them() {
    let bed = Bed::new();
    bed.server.trouble(Verb::List, "Event", Trouble::Refuse(403));
    bed.put_platform(json!({}));
    let operator = bed.operator();
    bed.until_observed().await;
    assert!(operator.unlisted.borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_set_that_cannot_be_changed_is_made_anew_around_its_pods() {
    let (bed, operator) = Bed::with_platform(json!({})).await;
    operator.stop().await;
    let set = bed.get("StatefulSet", "shop-cache");
    bed.server.put(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "shop-cache-0", "namespace": NAMESPACE,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "shop-cache", "uid": set["metadata"]["uid"]}],
        },
    }));
    let pod = bed.get("Pod", "shop-cache-0");
    // Made by an earlier release with another Service, a field that stays as it was made.
    bed.edit("StatefulSet", "shop-cache", |set| set["spec"]["serviceName"] = "shop-cache".into());
    let _operator = bed.operator();
    bed.until("it is made anew", || bed.get("StatefulSet", "shop-cache")["spec"]["serviceName"] == "shop-cache-nodes")
        .await;
    assert_ne!(bed.get("StatefulSet", "shop-cache")["metadata"]["uid"], set["metadata"]["uid"]);
    assert_eq!(bed.get("Pod", "shop-cache-0")["metadata"]["uid"], pod["metadata"]["uid"], "its pod went on");
}

#[tokio::test(start_paused = true)]
async fn what_fails_before_anything_is_applied_is_told() {
    let (bed, operator) = Bed::with_platform(json!({})).await;
    operator.stop().await;
    bed.server.trouble(Verb::Get, "Secret", Trouble::Refuse(403));
    let _operator = bed.operator();
    bed.until("it is told", || bed.condition("Reconciling")["reason"] == "CredentialsFailed").await;
    assert!(bed.condition("Reconciling")["message"].to_string().contains("shop-credentials"));
}

#[tokio::test(start_paused = true)]
async fn a_status_is_not_written_to_another_of_the_same_name() {
    let bed = Bed::new();
    bed.put_platform(json!({"api": {"replicas": 3}}));
    bed.server.trouble(Verb::Get, "Secret", Trouble::Delay(std::time::Duration::from_secs(5)));
    let _operator = bed.operator();
    bed.until("the first lap is under way", || bed.server.calls().iter().any(|call| call.resource.kind == "Secret"))
        .await;
    bed.delete("TaskPlatform", NAME);
    bed.put_platform(json!({"api": {"replicas": 3}, "paused": true}));
    bed.until_observed().await;
    assert_eq!(
        bed.condition("Reconciling")["reason"],
        "Paused",
        "the former one's lap wrote to the new one: {}",
        bed.server
    );
}

#[tokio::test(start_paused = true)]
async fn what_an_older_operator_finds_it_leaves() {
    let (bed, operator) = Bed::with_platform(json!({})).await;
    operator.stop().await;
    bed.edit("TaskPlatform", NAME, |platform| platform["status"]["release"] = "99.0.0".into());
    bed.delete("Service", "shop-api");
    let _operator = bed.operator();
    bed.until("it is told", || bed.condition("Stalled")["reason"] == "OlderOperator").await;
    assert_eq!(bed.find("Service", "shop-api"), None);
    assert_eq!(bed.get("TaskPlatform", NAME)["status"]["release"], "99.0.0");
}

#[tokio::test(start_paused = true)]
async fn pods_that_the_api_server_refuses_are_told_with_its_reason() {
    let (bed, _operator) = Bed::with_platform(json!({})).await;
    let quota = "exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0";
    bed.edit("Deployment", "shop-api", |deployment| {
        deployment["status"]["conditions"] = json!([{"type": "ReplicaFailure", "status": "True", "message": quota}]);
    });
    bed.server.put(json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "shop-cache.1", "namespace": NAMESPACE},
        "involvedObject": {"kind": "StatefulSet", "name": "shop-cache", "namespace": NAMESPACE},
        "reason": "FailedCreate", "message": quota,
    }));
    for part in ["ApiReady", "CacheReady"] {
        bed.until(part, || bed.condition(part)["reason"] == "PodsRefused").await;
        assert!(bed.condition(part)["message"].to_string().contains(quota), "{}", bed.condition(part));
    }
}
