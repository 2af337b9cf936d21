//! Passwords are made once, and stay with the volumes that they open.

use serde_json::json;

use crate::testing::{Bed, NAME, Verb};

const SECRET: &str = "shop-credentials";

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

/// Takes a password out of the Secret while no operator looks.
fn lose(bed: &Bed, key: &str) {
    bed.edit("Secret", SECRET, |secret| drop(secret["data"].as_object_mut().unwrap().remove(key)));
}

#[tokio::test(start_paused = true)]
async fn a_password_of_a_later_release_is_made_and_the_others_stay() {
    let (bed, operator) = Bed::with_platform(json!({})).await;
    operator.stop().await;
    let made = bed.get("Secret", SECRET);
    lose(&bed, "signing-key");
    bed.edit("Secret", SECRET, |secret| {
        secret["metadata"]["annotations"] = json!({"taskplatform.dev/completed-by": "0.0.1"});
    });
    let _operator = bed.operator();
    bed.until("the key is there", || bed.get("Secret", SECRET)["data"]["signing-key"].is_string()).await;
    let mut completed = bed.get("Secret", SECRET)["data"].clone();
    assert_ne!(completed["signing-key"], made["data"]["signing-key"]);
    completed["signing-key"] = made["data"]["signing-key"].clone();
    assert_eq!(completed, made["data"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_secret_is_told_and_no_other_is_made() {
    let (bed, operator) = Bed::with_platform(json!({})).await;
    operator.stop().await;
    let kept = bed.get("Secret", SECRET);
    bed.delete("Secret", SECRET);
    let _operator = bed.operator();
    bed.until("it is told", || bed.condition("Stalled")["reason"] == "CredentialsMissing").await;
    let message = bed.condition("Stalled")["message"].to_string();
    assert!(message.contains(SECRET) && message.contains("postgres-password"), "{message}");
    assert_eq!(bed.find("Secret", SECRET), None, "{}", bed.server);
    bed.server.put(kept);
    bed.until("it goes on", || bed.condition("Stalled")["status"] == "False").await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_deleted_while_an_operator_looks_comes_back_as_it_was() {
    let (bed, _operator) = Bed::with_platform(json!({})).await;
    let made = bed.get("Secret", SECRET);
    bed.delete("Secret", SECRET);
    bed.until("it is back", || bed.find("Secret", SECRET).is_some()).await;
    assert_eq!(bed.get("Secret", SECRET)["data"], made["data"]);
}

#[tokio::test(start_paused = true)]
async fn a_secret_of_somebody_else_is_left_alone() {
    let bed = Bed::new();
    let theirs = bed.server.put(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": crate::testing::NAMESPACE},
        "data": {"theirs": "a2VwdA=="},
    }));
    bed.put_platform(json!({}));
    let _operator = bed.operator();
    bed.until("it is told", || bed.condition("Stalled")["reason"] == "CredentialsMissing").await;
    assert_eq!(bed.get("Secret", SECRET), theirs);
    assert!(bed.server.list("StatefulSet").is_empty());
}
