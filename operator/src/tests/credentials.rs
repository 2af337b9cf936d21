//! Passwords are made once, and stay with the volumes that they open.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::testing::{Bed, NAME, Verb};

const SECRET: &str = "shop-credentials";

#[tokio::test(start_paused = true)]
async fn passwords_are_made_once() {
    let (bed, operator) = Bed::with_platform(json!({})).await;
    let made = bed.get("Secret", SECRET);
    assert_eq!(made["data"].as_object().map(serde_json::Map::len), Some(22), "{}", made["data"]);
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
    bed.edit("Secret", SECRET, |secret| {
        secret["data"].as_object_mut().unwrap().retain(|name, _| !name.starts_with(key));
    });
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
    for key in ["signing-key", "signing-key.a"] {
        completed[key] = made["data"][key].clone();
    }
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

/// Somebody writes a password into the Secret.
fn wish(bed: &Bed, key: &str, password: &str) {
    bed.edit("Secret", SECRET, |secret| secret["data"][key] = STANDARD.encode(password).into());
}

/// The key of the Secret that a container reads a variable from.
fn read_by(bed: &Bed, workload: (&str, &str), variable: &str) -> String {
    let container = bed.get(workload.0, workload.1)["spec"]["template"]["spec"]["containers"][0].clone();
    let variables = container["env"].as_array().unwrap().clone();
    let found = variables.iter().find(|one| one["name"] == variable).unwrap();
    found["valueFrom"]["secretKeyRef"]["key"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_password_that_somebody_writes_is_moved_to_and_the_one_before_stays_meanwhile() {
    let (bed, _operator) = Bed::with_platform(json!({})).await;
    let made = bed.get("Secret", SECRET)["data"]["tasks-password"].clone();
    let api = ("Deployment", "shop-api");
    assert_eq!(read_by(&bed, api, "TASKS_PASSWORD"), "tasks-password.a");
    wish(&bed, "tasks-password", "chosen-by-a-person");
    bed.until("the API moves", || read_by(&bed, api, "TASKS_PASSWORD") == "tasks-password.b").await;
    let data = bed.get("Secret", SECRET)["data"].clone();
    assert_eq!(
        (&data["tasks-password.a"], &data["tasks-password.b"]),
        (&made, &STANDARD.encode("chosen-by-a-person").into())
    );
    assert_eq!(read_by(&bed, ("Deployment", "shop-worker"), "TASKS_PASSWORD"), "tasks-password.b");
    assert_eq!(
        read_by(&bed, ("StatefulSet", "shop-database"), "PATRONI_REPLICATION_PASSWORD"),
        "replication-password.a"
    );
}

#[tokio::test(start_paused = true)]
async fn what_can_be_no_password_is_told_and_nothing_moves() {
    let (bed, _operator) = Bed::with_platform(json!({})).await;
    wish(&bed, "cache-password", "p@ss word");
    bed.until("it is told", || bed.condition("Reconciling")["reason"] == "PasswordRefused").await;
    let message = bed.condition("Reconciling")["message"].to_string();
    assert!(message.contains(SECRET) && message.contains("cache-password") && !message.contains("p@ss"), "{message}");
    assert_eq!(read_by(&bed, ("Deployment", "shop-api"), "CACHE_PASSWORD"), "cache-password.a");
}
