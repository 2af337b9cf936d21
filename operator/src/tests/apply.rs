//! The objects of a platform become, and stay, what the blueprint says.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use taskplatform_blueprint::{Facts, MANAGED_BY, Object, Platform, blueprint};

use crate::{
    metrics::Outcome,
    testing::{Bed, NAME, NAMESPACE, Trouble, Verb},
};

/// What the blueprint says of the platform as it is now.
fn wanted(bed: &Bed) -> Vec<Object> {
    let platform = serde_json::from_value(bed.get("TaskPlatform", NAME)).unwrap();
    let facts = Facts { requests_per_second: false, ..Facts::default() };
    blueprint(&Platform::new(&platform).unwrap(), &facts)
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// What an earlier operator made for the platform, and this one would not.
fn leftover(bed: &Bed) -> Value {
    let service = bed.get("Service", "shop-api");
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": "shop-leftover", "namespace": NAMESPACE,
            "labels": service["metadata"]["labels"], "ownerReferences": service["metadata"]["ownerReferences"],
        },
    })
}

#[tokio::test(start_paused = true)]
async fn a_platform_becomes_the_blueprints_objects() {
    let (bed, _operator) = Bed::with_platform(json!({})).await;
    let uid = bed.get("TaskPlatform", NAME)["metadata"]["uid"].clone();
    let wanted = wanted(&bed);
    for object in &wanted {
        let live = bed.get(object.kind().name(), object.name());
        let metadata = &live["metadata"];
        let owner = json!([{
            "apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform", "name": NAME, "uid": uid,
            "controller": true, "blockOwnerDeletion": true,
        }]);
        if object.is_owned() {
            assert_eq!(metadata["ownerReferences"], owner, "{live}");
        } else {
            assert!(metadata["ownerReferences"].is_null(), "{live}");
        }
        assert_eq!(metadata["labels"], object.value()["metadata"]["labels"], "{live}");
        assert_eq!(metadata["managedFields"][0]["manager"], MANAGED_BY);
        assert_eq!(live["spec"], object.value()["spec"]);
    }
    let names =
        |kind: &str| bed.server.list(kind).iter().map(|object| name(object).to_owned()).collect::<BTreeSet<_>>();
    for kind in taskplatform_blueprint::Kind::ALL {
        let of_kind = wanted.iter().filter(|object| object.kind() == kind);
        assert_eq!(names(kind.name()), of_kind.map(|object| object.name().to_owned()).collect(), "{kind:?}");
    }
    assert_eq!(names("Secret"), ["shop-credentials".to_owned()].into());
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_starts_anew_writes_nothing() {
    let (bed, operator) = Bed::with_platform(json!({})).await;
    operator.stop().await;
    bed.server.forget_calls();
    let operator = bed.operator();
    bed.until("it has looked twice", || operator.reconciled(Outcome::Applied) >= 2).await;
    let writes: Vec<String> = bed.server.writes().iter().map(ToString::to_string).collect();
    assert!(writes.is_empty(), "{writes:#?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_is_made_anew() {
    let (bed, _operator) = Bed::with_platform(json!({})).await;
    let wanted = wanted(&bed);
    for object in &wanted {
        bed.delete(object.kind().name(), object.name());
    }
    for object in &wanted {
        let (kind, name) = (object.kind().name(), object.name());
        bed.until(&format!("{kind} {name} is there again"), || bed.find(kind, name).is_some()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_edited_object_is_put_right() {
    let (bed, _operator) = Bed::with_platform(json!({})).await;
    let image = "/spec/template/spec/containers/0/image";
    let before = bed.get("Deployment", "shop-gateway");
    bed.edit("Deployment", "shop-gateway", |object| *object.pointer_mut(image).unwrap() = "evil".into());
    let is_right = || bed.get("Deployment", "shop-gateway")["spec"] == before["spec"];
    bed.until("the image is put right", is_right).await;

    let label = "app.kubernetes.io/managed-by";
    bed.edit("Service", "shop-gateway", |object| object["metadata"]["labels"][label] = "nobody".into());
    let is_right = || bed.get("Service", "shop-gateway")["metadata"]["labels"][label] == MANAGED_BY;
    bed.until("the label is put right", is_right).await;

    bed.edit("ConfigMap", "shop-database", |object| object["metadata"]["ownerReferences"] = json!([]));
    let is_right = || !bed.get("ConfigMap", "shop-database")["metadata"]["ownerReferences"].is_null();
    bed.until("the owner is put right", is_right).await;
}

#[tokio::test(start_paused = true)]
async fn what_others_add_stays_and_is_not_fought_over() {
    let (bed, operator) = Bed::with_platform(json!({})).await;
    bed.edit("Service", "shop-api", |object| {
        object["metadata"]["annotations"]["example.com/is"] = "mine".into();
        object["spec"]["sessionAffinity"] = "None".into();
    });
    bed.server.forget_calls();
    let looked = operator.reconciled(Outcome::Applied);
    bed.until("it has looked again", || operator.reconciled(Outcome::Applied) > looked).await;
    assert_eq!(bed.get("Service", "shop-api")["metadata"]["annotations"]["example.com/is"], "mine");
    assert!(bed.server.writes().is_empty(), "{}", bed.server);
}

#[tokio::test(start_paused = true)]
async fn what_the_blueprint_does_not_have_any_more_goes() {
    let (bed, _operator) = Bed::with_platform(json!({})).await;
    let (mut others, mut nobodys) = (leftover(&bed), leftover(&bed));
    others["metadata"]["name"] = "others".into();
    others["metadata"]["labels"]["app.kubernetes.io/instance"] = "another".into();
    nobodys["metadata"]["name"] = "nobodys".into();
    nobodys["metadata"]["ownerReferences"] = json!([]);
    for object in [others, nobodys, leftover(&bed)] {
        bed.server.put(object);
    }
    bed.until("the leftover is gone", || bed.find("ConfigMap", "shop-leftover").is_none()).await;
    assert!(bed.find("ConfigMap", "others").is_some() && bed.find("ConfigMap", "nobodys").is_some());
}

#[tokio::test(start_paused = true)]
async fn what_went_while_nobody_watched_is_made_anew() {
    let (bed, _operator) = Bed::with_platform(json!({})).await;
    bed.server.break_watches(false);
    bed.delete("ConfigMap", "shop-gateway");
    // Only a new listing tells.
    bed.server.break_watches(true);
    bed.until("it is there again", || bed.find("ConfigMap", "shop-gateway").is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_before_everything_was_seen() {
    let bed = Bed::new();
    bed.server.trouble(Verb::List, "Deployment", Trouble::Refuse(500));
    bed.put_platform(json!({}));
    let _operator = bed.operator();
    let asked = || bed.server.calls().iter().filter(|call| call.resource.kind == "Deployment").count();
    bed.until("it has asked again and again", || asked() >= 3).await;
    assert!(bed.server.writes().is_empty(), "{}", bed.server);
    bed.server.heal();
    bed.until_observed().await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_spec_is_applied() {
    let (bed, _operator) = Bed::with_platform(json!({})).await;
    let mut spec = bed.get("TaskPlatform", NAME)["spec"].clone();
    spec["gateway"] = json!({"replicas": 4});
    bed.put_platform(spec);
    bed.until_observed().await;
    assert_eq!(bed.get("Deployment", "shop-gateway")["spec"]["replicas"], 4);
}

#[tokio::test(start_paused = true)]
async fn one_object_that_cannot_be_applied_does_not_hold_up_the_others() {
    let bed = Bed::new();
    bed.server.trouble(Verb::Patch, "PodDisruptionBudget", Trouble::Refuse(403));
    bed.put_platform(json!({}));
    let _operator = bed.operator();
    bed.until_observed().await;
    let reconciling = bed.condition("Reconciling");
    assert_eq!((&reconciling["status"], &reconciling["reason"]), (&"True".into(), &"ApplyFailed".into()));
    assert!(reconciling["message"].to_string().contains("PodDisruptionBudget shop-api cannot be applied"));
    for object in wanted(&bed) {
        let is_there = bed.find(object.kind().name(), object.name()).is_some();
        assert_eq!(
            is_there,
            object.kind().name() != "PodDisruptionBudget",
            "{} {}",
            object.kind().name(),
            object.name()
        );
    }
    bed.server.heal();
    bed.until("it is applied in the end", || bed.condition("Reconciling")["reason"] != "ApplyFailed").await;
    assert!(bed.find("PodDisruptionBudget", "shop-api").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_slow_api_server_is_waited_for() {
    let bed = Bed::new();
    bed.server.trouble(Verb::Patch, "Service", Trouble::Delay(Duration::from_secs(2)));
    bed.put_platform(json!({}));
    let _operator = bed.operator();
    bed.until_observed().await;
    assert!(bed.find("Service", "shop-gateway").is_some());
}
