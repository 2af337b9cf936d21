//! How many tasks a user may have.

use axum::http::{Method, StatusCode};
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
