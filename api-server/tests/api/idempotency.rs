//! Requests that are sent again with their key.

use axum::http::{Method, StatusCode};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::common::{Api, Client, Reply, unique};

on_both_stores!(
    a_key_makes_one_task,
    a_key_belongs_to_one_request,
    a_key_belongs_to_one_user,
    many_at_once_make_one_task,
    malformed_keys_are_refused
);

async fn post(user: &Client, path: &str, key: &str, body: &Value) -> Reply {
    user.ask(Method::POST, path, &[("idempotency-key", key)], Some(body)).await
}

async fn count(user: &Client) -> usize {
    user.get("/api/tasks?limit=100").await.expect(StatusCode::OK)["items"].as_array().unwrap().len()
}

async fn a_key_makes_one_task(api: Api) {
    let user = api.user().await;
    let key = unique("key");
    let body = json!({"title": "once"});
    let first = post(&user, "/api/tasks", &key, &body).await;
    assert_eq!(first.header("idempotent-replayed"), "");
    let task = first.body.clone();
    user.patch(first.header("location"), json!({"title": "changed since"})).await.expect(StatusCode::OK);
    for _ in 0..2 {
        let again = post(&user, "/api/tasks", &key, &body).await;
        assert_eq!(again.header("idempotent-replayed"), "true");
        for header in ["location", "etag"] {
            assert_eq!(again.header(header), first.header(header));
        }
        assert_eq!(again.expect(StatusCode::CREATED), task, "the first answer, whatever happened since");
    }
    assert_eq!(count(&user).await, 1);

    let key = unique("key");
    let batch = json!({"operations": [
        {"op": "create", "task": {"title": "once"}},
        {"op": "create", "task": {"title": ""}},
        {"op": "delete", "id": task["id"]},
        {"op": "delete", "id": task["id"]},
    ]});
    let first = post(&user, "/api/tasks/batch", &key, &batch).await.expect(StatusCode::OK);
    let again = post(&user, "/api/tasks/batch", &key, &batch).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.expect(StatusCode::OK), first);
    assert_eq!(count(&user).await, 1);
}

async fn a_key_belongs_to_one_request(api: Api) {
    let user = api.user().await;
    let key = unique("key");
    post(&user, "/api/tasks", &key, &json!({"title": "one"})).await.expect(StatusCode::CREATED);
    let batch = json!({"operations": [{"op": "create", "task": {"title": "one"}}]});
    for (path, body) in [("/api/tasks", json!({"title": "two"})), ("/api/tasks/batch", batch)] {
        let problem = post(&user, path, &key, &body).await.expect(StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(problem["type"], "urn:taskplatform:problem:idempotency-key-reused");
    }
    assert_eq!(count(&user).await, 1);
}

async fn a_key_belongs_to_one_user(api: Api) {
    let key = unique("key");
    for _ in 0..2 {
        let user = api.user().await;
        let reply = post(&user, "/api/tasks", &key, &json!({"title": "mine"})).await;
        assert_eq!(reply.header("idempotent-replayed"), "");
        assert_eq!(reply.expect(StatusCode::CREATED)["user_id"], user.user["id"]);
    }
}

async fn many_at_once_make_one_task(api: Api) {
    let user = api.user().await;
    let (key, body) = (unique("key"), json!({"title": "once"}));
    let replies = join_all((0..20).map(|_| post(&user, "/api/tasks", &key, &body))).await;
    let replayed = replies.iter().filter(|reply| reply.header("idempotent-replayed") == "true").count();
    assert_eq!(replayed, 19);
    assert!(replies.iter().all(|reply| reply.status == StatusCode::CREATED && reply.body == replies[0].body));
    assert_eq!(count(&user).await, 1);
}

async fn malformed_keys_are_refused(api: Api) {
    let user = api.user().await;
    for key in ["", "a b", "ä", &"k".repeat(256)] {
        post(&user, "/api/tasks", key, &json!({"title": "never"})).await.expect(StatusCode::BAD_REQUEST);
    }
    post(&user, "/api/tasks", &"k".repeat(255), &json!({"title": "made"})).await.expect(StatusCode::CREATED);
    assert_eq!(count(&user).await, 1);
}
