//! Volumes grow, and go with their platform or stay.

use serde_json::{Value, json};

use crate::{
    metrics::Outcome,
    testing::{Bed, NAME, NAMESPACE, Operator, Trouble, Verb},
};

/// The claims that the StatefulSets' controller would make.
fn claim(bed: &Bed, set: &str) -> Value {
    let set = bed.get("StatefulSet", set);
    let template = &set["spec"]["volumeClaimTemplates"][0];
    let name = format!("{}-{}-0", template["metadata"]["name"], set["metadata"]["name"]).replace('"', "");
    bed.server.put(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": set["spec"]["selector"]["matchLabels"]},
        "spec": template["spec"],
    }))
}

fn size(object: &Value) -> &Value {
    let claimed = &object["spec"]["resources"]["requests"]["storage"];
    if claimed.is_null() {
        &object["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
    } else {
        claimed
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn change_spec(bed: &Bed, change: impl FnOnce(&mut Value)) {
    bed.edit("TaskPlatform", NAME, |platform| change(&mut platform["spec"]));
}

#[tokio::test(start_paused = true)]
async fn volumes_grow_around_running_pods() {
    let (bed, _operator) = Bed::with_platform(json!({"database": {"storage": {"size": "10Gi"}}})).await;
    let (claim, set) = (claim(&bed, "shop-database"), bed.get("StatefulSet", "shop-database"));
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "shop-database-0", "namespace": NAMESPACE,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name(&set), "uid": set["metadata"]["uid"]}],
        },
    });
    let pod = bed.server.put(pod);
    change_spec(&bed, |spec| spec["database"]["storage"]["size"] = "20Gi".into());
    bed.until("the set claims more", || bed.find("StatefulSet", name(&set)).is_some_and(|set| size(&set) == "20Gi"))
        .await;
    assert_eq!(size(&bed.get("PersistentVolumeClaim", name(&claim))), "20Gi");
    assert_ne!(bed.get("StatefulSet", name(&set))["metadata"]["uid"], set["metadata"]["uid"], "it was made anew");
    assert_eq!(bed.get("Pod", name(&pod))["metadata"]["uid"], pod["metadata"]["uid"], "its pod went on");
}

#[tokio::test(start_paused = true)]
async fn volumes_that_cannot_grow_hold_up_nothing_else() {
    let (bed, _operator) = Bed::with_platform(json!({"database": {"storage": {"size": "10Gi"}}})).await;
    claim(&bed, "shop-database");
    bed.server.trouble(Verb::Patch, "PersistentVolumeClaim", Trouble::Refuse(403));
    change_spec(&bed, |spec| {
        spec["database"]["storage"]["size"] = "20Gi".into();
        spec["database"]["readReplicas"] = 5.into();
    });
    bed.until("it says so", || bed.condition("Reconciling")["reason"] == "ApplyFailed").await;
    let message = bed.condition("Reconciling")["message"].to_string();
    assert!(message.contains("cannot grow to 20Gi"), "{message}");
    let set = bed.get("StatefulSet", "shop-database");
    assert_eq!((&set["spec"]["replicas"], size(&set)), (&json!(6), &json!("10Gi")));
}

#[tokio::test(start_paused = true)]
async fn volumes_go_with_their_platform_only_where_it_says_so() {
    let (bed, _operator) = Bed::with_platform(json!({})).await;
    let claims = ["shop-database", "shop-cache", "shop-sessions"].map(|set| claim(&bed, set));
    let owners = |claim: &Value| bed.get("PersistentVolumeClaim", name(claim))["metadata"]["ownerReferences"].clone();
    let uid = bed.get("TaskPlatform", NAME)["metadata"]["uid"].clone();

    change_spec(&bed, |spec| spec["deletionPolicy"] = "Delete".into());
    for claim in &claims {
        bed.until("the claim has an owner", || owners(claim)[0]["uid"] == uid).await;
        assert!(owners(claim)[0]["controller"].is_null(), "the StatefulSet's controller would not take it up");
    }
    change_spec(&bed, |spec| spec["deletionPolicy"] = "Retain".into());
    for claim in &claims {
        bed.until("the claim has no owner", || owners(claim).is_null()).await;
    }
    change_spec(&bed, |spec| spec["deletionPolicy"] = "Delete".into());
    bed.until("they all have owners", || claims.iter().all(|claim| !owners(claim).is_null())).await;
    bed.delete("TaskPlatform", NAME);
    assert!(bed.server.list("PersistentVolumeClaim").is_empty(), "{}", bed.server);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_gone_is_not_made_anew() {
    let (bed, _operator) = with_a_claim_that_only_the_operator_knows().await;
    change_spec(&bed, |spec| spec["deletionPolicy"] = "Delete".into());
    bed.until_observed().await;
    assert!(bed.server.list("PersistentVolumeClaim").is_empty(), "{}", bed.server);
    assert_ne!(bed.condition("Reconciling")["reason"], "ApplyFailed", "{}", bed.server);
}

#[tokio::test(start_paused = true)]
#[ignore = "the API server answers 422 where the uid is another, which is taken for a failure"]
async fn a_claim_that_has_taken_the_name_of_one_that_is_gone_is_left_alone() {
    let (bed, _operator) = with_a_claim_that_only_the_operator_knows().await;
    claim(&bed, "shop-database");
    change_spec(&bed, |spec| spec["deletionPolicy"] = "Delete".into());
    bed.until_observed().await;
    assert!(bed.server.list("PersistentVolumeClaim")[0]["metadata"]["ownerReferences"].is_null());
    assert_ne!(bed.condition("Reconciling")["reason"], "ApplyFailed", "{}", bed.server);
}

/// The operator has listed a claim, but is not told that it is gone.
async fn with_a_claim_that_only_the_operator_knows() -> (Bed, Operator) {
    let (bed, operator) = Bed::with_platform(json!({})).await;
    operator.stop().await;
    let claim = claim(&bed, "shop-database");
    bed.server.trouble(Verb::Watch, "PersistentVolumeClaim", Trouble::Hang);
    let operator = bed.operator();
    bed.until("it has looked", || operator.reconciled(Outcome::Applied) >= 1).await;
    bed.delete("PersistentVolumeClaim", name(&claim));
    (bed, operator)
}
