//! How much a user may have.

use axum::http::{Method, StatusCode};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::common::{Api, Client, Services, path, unique};

#[tokio::test]
async fn sqlite_keeps_a_quota() {
    a_user_makes_so_many_tasks(Api::alone_with(&quota()).await).await;
}

#[tokio::test]
async fn postgres_keeps_a_quota() {
    if let Some(services) = Services::find("quotas::postgres_keeps_a_quota") {
        a_user_makes_so_many_tasks(Api::on_with(&services, &quota()).await).await;
    }
}

fn quota() -> [(&'static str, String); 1] {
    [("MAX_TASKS_PER_USER", "3".to_owned())]
}

#[tokio::test]
async fn sqlite_keeps_it_to_the_last_task_and_byte() {
    let api = Api::alone_with(&narrow()).await;
    to_the_last_task([&api, &api]).await;
    to_the_last_byte(&api).await;
}

#[tokio::test]
async fn postgres_keeps_it_to_the_last_task_and_byte() {
    let Some(services) = Services::find("quotas::postgres_keeps_it_to_the_last_task_and_byte") else { return };
    let (one, other) = (Api::on_with(&services, &narrow()).await, Api::on_with(&services, &narrow()).await);
    to_the_last_task([&one, &other]).await;
    to_the_last_byte(&one).await;
}

fn narrow() -> [(&'static str, String); 2] {
    [("MAX_TASKS_PER_USER", "30".to_owned()), ("MAX_BYTES_PER_USER", "3000".to_owned())]
}

/// However many come at once, at however many instances.
async fn to_the_last_task(apis: [&Api; 2]) {
    let user = apis[0].user().await;
    user.task("there before").await;
    let clients = apis.map(|api| user.at(api));
    let tries = (0..100).map(|number| clients[number % 2].post("/api/tasks", json!({"title": "x"})));
    let replies = join_all(tries).await;
    let with = |status| replies.iter().filter(|reply| reply.status == status).count();
    assert_eq!((with(StatusCode::CREATED), with(StatusCode::FORBIDDEN)), (29, 71));
    let all = user.get("/api/tasks?limit=100").await.expect(StatusCode::OK);
    assert_eq!(all["items"].as_array().unwrap().len(), 30);
}

async fn to_the_last_byte(api: &Api) {
    let user = api.user().await;
    let text = |length| json!({"title": "five!", "description": "x".repeat(length)});
    let first = user.post("/api/tasks", text(1495)).await.expect(StatusCode::CREATED);
    user.post("/api/tasks", text(1496)).await.expect(StatusCode::FORBIDDEN);
    let second = user.post("/api/tasks", text(1395)).await.expect(StatusCode::CREATED);
    user.patch(&path(&second), text(96)).await.expect(StatusCode::FORBIDDEN);
    user.patch(&path(&second), json!({"status": "completed"})).await.expect(StatusCode::OK);
    user.patch(&path(&second), text(45)).await.expect(StatusCode::OK);
    // What the shorter text has freed can be used.
    user.patch(&path(&second), text(1295)).await.expect(StatusCode::OK);
    user.post("/api/tasks", text(1295)).await.expect(StatusCode::FORBIDDEN);
    user.delete(&path(&first)).await.expect(StatusCode::NO_CONTENT);
    user.post("/api/tasks", text(1295)).await.expect(StatusCode::CREATED);
    let operations = json!([{"op": "delete", "id": second["id"]}, {"op": "create", "task": text(395)}]);
    let batch = user.post("/api/tasks/batch", json!({"operations": operations})).await;
    assert_eq!(batch.status, StatusCode::OK, "3,000 are allowed, and no more");
}

async fn create(user: &Client, key: &str) -> (StatusCode, Value) {
    let reply = user.ask(Method::POST, "/api/tasks", &[("idempotency-key", key)], Some(&json!({"title": "x"}))).await;
    (reply.status, reply.body)
}

async fn a_user_makes_so_many_tasks(api: Api) {
    let user = api.user().await;
    let first = user.task("first").await;
    let batch = |count| json!({"operations": vec![json!({"op": "create", "task": {"title": "x"}}); count]});
    let refused = user.post("/api/tasks/batch", batch(3)).await.expect(StatusCode::FORBIDDEN);
    assert_eq!(refused["type"], "urn:taskplatform:problem:quota-exceeded");
    user.post("/api/tasks/batch", batch(1)).await.expect(StatusCode::OK);
    let key = unique("key");
    let last = create(&user, &key).await;
    assert_eq!(last.0, StatusCode::CREATED);
    assert_eq!(create(&user, &unique("key")).await.0, StatusCode::FORBIDDEN);
    assert_eq!(create(&user, &key).await, last, "what was done is only told again");
    assert_eq!(user.get("/api/tasks").await.expect(StatusCode::OK)["items"].as_array().unwrap().len(), 3);

    user.patch(&path(&first), json!({"title": "still changes"})).await.expect(StatusCode::OK);
    api.user().await.task("another user's").await;
    user.delete(&path(&first)).await.expect(StatusCode::NO_CONTENT);
    user.task("in its place").await;
}
