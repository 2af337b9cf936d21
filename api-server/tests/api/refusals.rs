//! What is refused, and how.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{Api, PASSWORD, Reply, path};

on_both_stores!(
    problems_name_their_kind_and_request,
    odd_requests_have_an_answer,
    every_refusal_has_its_answer,
    what_is_wrong_is_named,
);

async fn every_refusal_has_its_answer(api: Api) {
    let user = api.user().await;
    let bearer = format!("Bearer {}", user.token.as_ref().unwrap());
    let json = ("content-type", "application/json");
    let post = async |headers: &[(&str, &str)], body: &[u8]| {
        let headers = [&[("authorization", bearer.as_str())], headers].concat();
        user.send(Method::POST, "/api/tasks", &headers, body.to_vec()).await
    };
    for malformed in ["", "{", "{\"title\": \"x\"", "title", "{\"title\": \"\\ud800\"}", "{'title': 'x'}"] {
        post(&[json], malformed.as_bytes()).await.expect(StatusCode::BAD_REQUEST);
    }
    post(&[json], b"{\"title\": \"\xff\"}").await.expect(StatusCode::BAD_REQUEST);
    post(&[json], "[".repeat(10_000).as_bytes()).await.expect(StatusCode::BAD_REQUEST);
    post(&[], b"{\"title\": \"x\"}").await.expect(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    post(&[("content-type", "text/plain")], b"{}").await.expect(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let fits = format!("{{\"title\": \"x\", \"ignored\": \"{}\"}}", "a".repeat((1 << 20) - 32));
    assert!(fits.len() <= 1 << 20);
    post(&[json], fits.as_bytes()).await.expect(StatusCode::CREATED);
    post(&[json], " ".repeat((1 << 20) + 1).as_bytes()).await.expect(StatusCode::PAYLOAD_TOO_LARGE);

    for id in ["abc", "0", "-1", "1.5", "99999999999999999999", "007", "%ff", "1%20"] {
        user.get(&format!("/api/tasks/{id}")).await.expect(StatusCode::NOT_FOUND);
    }
    for path in ["/", "/api", "/api/nothing", "/api/tasks/1/2"] {
        user.get(path).await.expect(StatusCode::NOT_FOUND);
    }
    for (method, path, allowed) in [
        (Method::PUT, "/api/tasks", "GET,HEAD,POST"),
        (Method::POST, "/api/tasks/1", "GET,HEAD,PATCH,DELETE"),
        (Method::GET, "/api/auth/login", "POST"),
        (Method::DELETE, "/api/health", "GET,HEAD"),
    ] {
        let reply = user.send(method, path, &[], vec![]).await;
        assert_eq!(reply.header("allow"), allowed, "{path}");
        reply.expect(StatusCode::METHOD_NOT_ALLOWED);
    }
    let secret = "A".repeat(43);
    for token in ["", "x", "1.x", &format!("1.{secret}"), &format!("9999999.{secret}"), &secret] {
        let reply =
            user.send(Method::GET, "/api/tasks", &[("authorization", &format!("Bearer {token}"))], vec![]).await;
        assert_eq!(reply.header("www-authenticate"), "Bearer");
        reply.expect(StatusCode::UNAUTHORIZED);
    }
}

async fn what_is_wrong_is_named(api: Api) {
    let user = api.user().await;
    let wrong = async |body: Value| user.post("/api/tasks", body).await.wrong_fields();
    assert_eq!(wrong(json!({})).await, ["title"]);
    assert_eq!(wrong(json!([])).await, [""]);
    let all =
        json!({"title": "x".repeat(256), "description": 1, "status": "done", "priority": "now", "due_date": "soon"});
    assert_eq!(wrong(all).await, ["title", "description", "status", "priority", "due_date"]);
    assert_eq!(wrong(json!({"title": "a\0b"})).await, ["title"]);
    assert_eq!(wrong(json!({"title": "x", "description": "d".repeat(65_537)})).await, ["description"]);
    for (query, field) in
        [("limit=0", "limit"), ("limit=101", "limit"), ("status=x", "status"), ("priority=x", "priority")]
    {
        assert_eq!(user.get(&format!("/api/tasks?{query}")).await.wrong_fields(), [field]);
    }
    let register = async |body: Value| api.client().post("/api/auth/register", body).await.wrong_fields();
    assert_eq!(register(json!({})).await, ["email", "password"]);
    assert_eq!(register(json!({"email": "x", "password": "short", "name": ""})).await, ["email", "password", "name"]);
    let login = api.client().post("/api/auth/login", json!({"email": 1})).await;
    assert_eq!(login.wrong_fields(), ["email", "password"]);
}

/// Checks what every problem has in common.
fn check(reply: &Reply, kind: &str) {
    assert_eq!(reply.header("content-type"), "application/problem+json", "{kind}");
    assert_eq!(reply.header("cache-control"), "no-store", "{kind}");
    assert_eq!(reply.body["type"], format!("urn:taskplatform:problem:{kind}"));
    assert_eq!(reply.body["status"], reply.status.as_u16(), "{kind}");
    assert_eq!(reply.body["request_id"], reply.header("x-request-id"), "{kind}");
    for text in ["title", "detail"] {
        assert!(!reply.body[text].as_str().unwrap().is_empty(), "{kind}: {text}");
    }
}

async fn problems_name_their_kind_and_request(api: Api) {
    let user = api.user().await;
    let (task, empty) = (json!({"title": "x"}), json!({}));
    let ask = async |method, path: &str, headers: &[(&str, &str)], body| user.ask(method, path, headers, body).await;
    let uri = format!("/api/tasks?cursor={}", "x".repeat(8 << 10));
    let large = "x".repeat(20 << 10);
    let get = Method::GET;
    check(&ask(get.clone(), "/api/nothing", &[], None).await, "not-found");
    check(&ask(Method::PUT, "/api/tasks", &[], None).await, "method-not-allowed");
    check(&ask(Method::TRACE, "/api/tasks", &[], None).await, "method-not-allowed");
    check(&ask(get.clone(), &uri, &[], None).await, "uri-too-long");
    check(&ask(get.clone(), "/api/tasks", &[("x-a", &large), ("x-b", &large)], None).await, "headers-too-large");
    for query in ["limit=%zz", "status=%ff", "%"] {
        check(&ask(get.clone(), &format!("/api/tasks?{query}"), &[], None).await, "bad-request");
    }
    check(&ask(get.clone(), "/api/tasks?status=pending&status=completed", &[], None).await, "invalid");
    check(&ask(Method::POST, "/api/tasks", &[], Some(&empty)).await, "invalid");
    check(&ask(Method::POST, "/api/tasks", &[("content-type", "text/plain")], None).await, "unsupported-media-type");
    check(&ask(Method::POST, "/api/tasks", &[("idempotency-key", "")], Some(&task)).await, "bad-request");
    check(&api.client().get("/api/tasks").await, "unauthorized");
    check(
        &api.client().post("/api/auth/register", json!({"email": user.user["email"], "password": PASSWORD})).await,
        "email-taken",
    );
    check(&api.client().post("/api/auth/login", json!({"email": "x", "password": "x"})).await, "wrong-credentials");
}

async fn odd_requests_have_an_answer(api: Api) {
    let user = api.user().await;
    let task = user.task("x").await;
    for (path, allowed) in [("/api/tasks", "GET,HEAD,POST"), ("/api/tasks/batch", "POST"), ("/api/docs", "GET,HEAD")] {
        let options = api.client().send(Method::OPTIONS, path, &[], vec![]).await;
        assert_eq!((options.status, options.header("allow")), (StatusCode::NO_CONTENT, allowed), "{path}");
    }
    for path in [path(&task), "/api/tasks".to_owned(), "/api/tasks/summary".to_owned(), "/api/openapi.json".to_owned()]
    {
        let (get, head) = (user.get(&path).await, user.ask(Method::HEAD, &path, &[], None).await);
        assert_eq!((head.status, head.body), (StatusCode::OK, Value::Null), "{path}");
        // Not the length: a summary tells its time, whose fraction is as long as need be.
        for header in ["etag", "content-type", "cache-control", "vary"] {
            assert_eq!(head.headers.get(header), get.headers.get(header), "{path} {header}");
        }
        user.get(&format!("{path}/")).await.expect(StatusCode::NOT_FOUND);
    }
    let missing = user.ask(Method::HEAD, "/api/tasks/1", &[], None).await;
    assert_eq!((missing.status, missing.body), (StatusCode::NOT_FOUND, Value::Null));
    let reply = user.get("/api/tasks").await;
    for (header, value) in [
        ("cache-control", "private, no-cache"),
        ("vary", "authorization, cookie"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ("referrer-policy", "no-referrer"),
        ("strict-transport-security", ""),
    ] {
        assert_eq!(reply.header(header), value, "{header}");
    }
    let login = json!({"email": user.user["email"], "password": PASSWORD});
    assert_eq!(api.client().post("/api/auth/login", login).await.header("cache-control"), "no-store");
}
