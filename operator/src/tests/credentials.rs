//! Passwords are made once, and stay with the volumes that they open.

use serde_json::{Value, json};

use crate::testing::{Bed, NAME, Verb};

const SECRET: &str = "shop-credentials";

fn change_policy(bed: &Bed, policy: &str) {
    bed.edit("TaskPlatform", NAME, |platform| platform["spec"]["deletionPolicy"] = policy.into());
}

fn owners(bed: &Bed) -> Value {
    bed.get("Secret", SECRET)["metadata"]["ownerReferences"].clone()
}

#[tokio::test(start_paused = true)]
async fn passwords_are_made_once() {
    let (bed, operator) = Bed::with_platform(json!({})).await;
    let made = bed.get("Secret", SECRET);
    assert_eq!(made["data"].as_object().map(serde_json::Map::len), Some(12), "{}", made["data"]);
    let created = bed.server.writes().into_iter().filter(|call| call.resource.kind == "Secret");
    assert_eq!(created.map(|call| call.verb).collect::<Vec<_>>(), [Verb::Create]);
    operator.stop().await;
    bed.delete("TaskPlatform", NAME);
    bed.put_platform(json!({}));
    let _operator = bed.operator();
    bed.until_observed().await;
    assert_eq!(bed.get("Secret", SECRET), made, "a new platform takes them up");
}

#[tokio::test(start_paused = true)]
async fn a_missing_password_is_made_and_the_others_stay() {
    let (bed, operator) = Bed::with_platform(json!({})).await;
    operator.stop().await;
    let made = bed.get("Secret", SECRET);
    bed.edit("Secret", SECRET, |secret| drop(secret["data"].as_object_mut().unwrap().remove("signing-key")));
    let _operator = bed.operator();
    bed.until("the key is there", || bed.get("Secret", SECRET)["data"]["signing-key"].is_string()).await;
    let mut completed = bed.get("Secret", SECRET)["data"].clone();
    assert_ne!(completed["signing-key"], made["data"]["signing-key"]);
    completed["signing-key"] = made["data"]["signing-key"].clone();
    assert_eq!(completed, made["data"]);
}

#[tokio::test(start_paused = true)]
async fn passwords_have_an_owner_only_where_the_volumes_go_with_it() {
    let (bed, _operator) = Bed::with_platform(json!({"deletionPolicy": "Retain"})).await;
    assert!(owners(&bed).is_null());
    change_policy(&bed, "Delete");
    bed.until("the Secret has an owner", || owners(&bed)[0]["kind"] == "TaskPlatform").await;
    change_policy(&bed, "Retain");
    bed.until("the Secret has none", || owners(&bed).is_null()).await;
    assert!(!bed.get("Secret", SECRET)["data"]["signing-key"].is_null());
}
