//! Volumes grow, and go with their platform or stay.

use serde_json::{Value, json};

use crate::testing::{Bed, NAME, NAMESPACE, Trouble, Verb};

/// The claims that the StatefulSets' controller would make.
fn claim(bed: &Bed, set: &str) -> Value {
    let set = bed.get("StatefulSet", set);
    let template = &set["spec"]["volumeClaimTemplates"][0];
    let name = format!("{}-{}-0", template["metadata"]["name"], set["metadata"]["name"]).replace('"', "");
    bed.server.put(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": set["spec"]["selector"]["matchLabels"]},
        "spec": template["spec"], "status": {"phase": "Bound"},
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
async fn volumes_that_are_older_and_smaller_than_the_spec_grow() {
    let (bed, operator) = Bed::with_platform(json!({"database": {"storage": {"size": "10Gi"}}})).await;
    operator.stop().await;
    let claim = claim(&bed, "shop-database");
    bed.edit("PersistentVolumeClaim", name(&claim), |claim| {
        claim["spec"]["resources"]["requests"]["storage"] = "8Gi".into();
    });
    let _operator = bed.operator();
    bed.until("the claim grows", || size(&bed.get("PersistentVolumeClaim", name(&claim))) == "10Gi").await;
}

/// The claims and the Secret are told by their number.
fn kept(bed: &Bed) -> usize {
    bed.server.list("PersistentVolumeClaim").len() + bed.server.list("Secret").len()
}

#[tokio::test(start_paused = true)]
async fn what_the_spec_says_last_becomes_of_the_volumes() {
    for (before, last, left) in
        [("Retain", "Delete", 0), ("Delete", "Retain", 4), ("Delete", "Delete", 0), ("Retain", "Retain", 4)]
    {
        let (bed, operator) = Bed::with_platform(json!({"deletionPolicy": before})).await;
        for set in ["shop-database", "shop-cache", "shop-sessions"] {
            claim(&bed, set);
        }
        bed.until("the finalizer is as the spec says", || {
            bed.get("TaskPlatform", NAME)["metadata"]["finalizers"].is_null() == (before == "Retain")
        })
        .await;
        // No lap comes between the last word and the deletion.
        change_spec(&bed, |spec| spec["deletionPolicy"] = last.into());
        bed.delete("TaskPlatform", NAME);
        bed.until("the platform is gone", || bed.find("TaskPlatform", NAME).is_none()).await;
        bed.until(&format!("{before}, then {last}: {left} are left"), || kept(&bed) == left).await;
        operator.stop().await;
        assert_eq!(kept(&bed), left, "{before}, then {last}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_was_away_does_what_the_spec_said_last() {
    let (bed, operator) = Bed::with_platform(json!({"deletionPolicy": "Delete"})).await;
    operator.stop().await;
    claim(&bed, "shop-database");
    change_spec(&bed, |spec| spec["deletionPolicy"] = "Retain".into());
    bed.delete("TaskPlatform", NAME);
    let _operator = bed.operator();
    bed.until("the platform is gone", || bed.find("TaskPlatform", NAME).is_none()).await;
    assert_eq!(kept(&bed), 2);
}

#[tokio::test(start_paused = true)]
async fn volumes_that_an_earlier_release_gave_to_their_platform_belong_to_nobody() {
    let (bed, _operator) = Bed::with_platform(json!({})).await;
    let claim = claim(&bed, "shop-database");
    let owner = bed.get("Service", "shop-api")["metadata"]["ownerReferences"].clone();
    bed.edit("PersistentVolumeClaim", name(&claim), |claim| claim["metadata"]["ownerReferences"] = owner);
    let owners = || bed.get("PersistentVolumeClaim", name(&claim))["metadata"]["ownerReferences"].clone();
    bed.until("nobody owns it", || owners().as_array().is_none_or(Vec::is_empty)).await;
}

/// Where Patroni keeps what it knows, and what lets it write there.
const STATE: [(&str, &str); 7] = [
    ("Service", "shop-database-primary"),
    ("Service", "shop-database-primary-config"),
    ("Service", "shop-database-primary-failover"),
    ("Service", "shop-database-primary-sync"),
    ("ServiceAccount", "shop-database"),
    ("Role", "shop-database"),
    ("RoleBinding", "shop-database"),
];

fn owners(object: &Value) -> usize {
    object["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len)
}

#[tokio::test(start_paused = true)]
async fn what_patroni_knows_stays_with_the_volumes_and_only_the_most_advanced_member_leads() {
    let (bed, operator) = Bed::with_platform(json!({})).await;
    for (kind, name) in STATE {
        assert_eq!(owners(&bed.get(kind, name)), 0, "{kind} {name}");
    }
    claim(&bed, "shop-database");
    let known = json!({"ttl": 20, "maximum_lag_on_failover": 16_777_216});
    bed.server.put(json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "shop-database-primary-config", "namespace": NAMESPACE,
            "annotations": {"config": known.to_string(), "initialize": "7"},
        },
    }));
    operator.stop().await;
    bed.delete("TaskPlatform", NAME);
    assert_eq!(bed.find("StatefulSet", "shop-database"), None);
    let kept = STATE.map(|(kind, name)| bed.get(kind, name)["metadata"]["uid"].clone());

    bed.put_platform(json!({}));
    let _operator = bed.operator();
    bed.until_observed().await;
    assert_eq!(STATE.map(|(kind, name)| bed.get(kind, name)["metadata"]["uid"].clone()), kept);
    let annotations = bed.get("Endpoints", "shop-database-primary-config")["metadata"]["annotations"].clone();
    let config: Value = serde_json::from_str(annotations["config"].as_str().unwrap()).unwrap();
    assert_eq!((&config, &annotations["initialize"]), (&json!({"ttl": 20, "maximum_lag_on_failover": 0}), &json!("7")));
}

#[tokio::test(start_paused = true)]
async fn what_patroni_knows_goes_with_the_volumes() {
    let (bed, _operator) = Bed::with_platform(json!({})).await;
    bed.edit("TaskPlatform", NAME, |platform| platform["spec"]["deletionPolicy"] = "Delete".into());
    bed.until("it is owned", || owners(&bed.get("Role", "shop-database")) == 1).await;
    bed.edit("TaskPlatform", NAME, |platform| platform["spec"]["deletionPolicy"] = "Retain".into());
    bed.until("it is not owned", || owners(&bed.get("Role", "shop-database")) == 0).await;
    // The last word, which no lap hears before the end.
    bed.edit("TaskPlatform", NAME, |platform| platform["spec"]["deletionPolicy"] = "Delete".into());
    bed.delete("TaskPlatform", NAME);
    bed.until("nothing is left", || STATE.iter().all(|(kind, name)| bed.find(kind, name).is_none())).await;
}
