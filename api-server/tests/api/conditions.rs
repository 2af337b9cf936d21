//! `ETag`s, and the conditions that requests make of them.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{Api, Client, Reply, path, unique};

on_both_stores!(reads_tell_what_has_not_changed, writes_change_only_what_was_read, malformed_conditions_are_refused);

async fn read(user: &Client, path: &str, known: &str) -> Reply {
    user.ask(Method::GET, path, &[("if-none-match", known)], None).await
}

async fn reads_tell_what_has_not_changed(api: Api) {
    let user = api.user().await;
    let word = unique("word").replace('-', "x");
    let task = user.task(&word).await;
    let reads = [path(&task), "/api/tasks".to_owned(), format!("/api/tasks/search?q={word}")];
    let others = ["/api/auth/me", "/api/tasks/summary", "/api/openapi.json", "/api/docs"].map(str::to_owned);
    let mut before = Vec::new();
    for path in reads.iter().chain(&others) {
        let first = user.get(path).await;
        let tag = first.header("etag").to_owned();
        assert!(!tag.is_empty() && first.status == StatusCode::OK, "{path}");
        let strong = tag.strip_prefix("W/").unwrap_or(&tag);
        for known in [tag.as_str(), strong, "*", &format!("\"other\", W/{strong}")] {
            let reply = read(&user, path, known).await;
            assert_eq!((reply.status, &reply.body), (StatusCode::NOT_MODIFIED, &Value::Null), "{path} {known}");
            for header in ["etag", "cache-control", "vary"] {
                assert_eq!(reply.header(header), first.header(header), "{path} {header}");
            }
        }
        assert_eq!(read(&user, path, "\"other\"").await.status, StatusCode::OK, "{path}");
        before.push(tag);
    }
    user.patch(&path(&task), json!({"description": "changed"})).await.expect(StatusCode::OK);
    for (path, tag) in reads.iter().zip(before) {
        let reply = read(&user, path, &tag).await;
        assert_ne!(reply.header("etag"), tag, "{path}");
        reply.expect(StatusCode::OK);
    }
}

async fn writes_change_only_what_was_read(api: Api) {
    let user = api.user().await;
    let made = user.post("/api/tasks", json!({"title": "one"})).await;
    assert_eq!(made.header("etag"), "\"1\"");
    let task = path(&made.expect(StatusCode::CREATED));
    let patch = async |condition: &str, title: &str| {
        user.ask(Method::PATCH, &task, &[("if-match", condition)], Some(&json!({"title": title}))).await
    };
    let changed = patch("\"1\"", "two").await;
    assert_eq!(changed.header("etag"), "\"2\"");
    changed.expect(StatusCode::OK);
    for stale in ["\"1\"", "W/\"2\"", "\"x\"", "\"1\", \"3\""] {
        let problem = patch(stale, "never").await.expect(StatusCode::PRECONDITION_FAILED);
        assert_eq!(problem["type"], "urn:taskplatform:problem:precondition-failed", "{stale}");
    }
    assert_eq!(user.get(&task).await.expect(StatusCode::OK)["title"], "two");
    patch("\"7\", \"2\"", "three").await.expect(StatusCode::OK);
    patch("*", "four").await.expect(StatusCode::OK);
    assert_eq!(user.get(&task).await.header("etag"), "\"4\"");

    let delete = async |condition: &str| user.ask(Method::DELETE, &task, &[("if-match", condition)], None).await;
    delete("\"3\"").await.expect(StatusCode::PRECONDITION_FAILED);
    delete("\"4\"").await.expect(StatusCode::NO_CONTENT);
    for condition in ["\"4\"", "*", "\"4\", \"5\""] {
        delete(condition).await.expect(StatusCode::NOT_FOUND);
        patch(condition, "never").await.expect(StatusCode::NOT_FOUND);
    }
}

async fn malformed_conditions_are_refused(api: Api) {
    let user = api.user().await;
    let task = user.task("kept").await;
    for malformed in ["", "1", "\"1", "*, \"1\"", "\"1\" \"2\"", "\"ä\""] {
        let reply = read(&user, &path(&task), malformed).await.expect(StatusCode::BAD_REQUEST);
        assert!(reply["detail"].as_str().unwrap().contains("if-none-match"), "{reply}");
        let delete = user.ask(Method::DELETE, &path(&task), &[("if-match", malformed)], None).await;
        delete.expect(StatusCode::BAD_REQUEST);
    }
    user.get(&path(&task)).await.expect(StatusCode::OK);
}
