//! The process: its metrics, its log, its end.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::common::{Api, Client, PASSWORD, eventually, path};

on_both_stores!(requests_are_counted_and_named, secrets_are_not_logged, a_stop_finishes_what_was_begun,);

async fn requests_are_counted_and_named(api: Api) {
    let user = api.user().await;
    let task = user.task("counted").await;
    user.get(&path(&task)).await.expect(StatusCode::OK);
    user.get("/api/tasks/1").await.expect(StatusCode::NOT_FOUND);
    user.get("/no/such/path").await.expect(StatusCode::NOT_FOUND);

    // A log-in takes some 30 ms.
    let login = json!({"email": user.user["email"], "password": PASSWORD});
    let hung_up = timeout(Duration::from_millis(5), user.post("/api/auth/login", login)).await;
    assert!(hung_up.is_err());
    eventually("it is counted that a client hung up", async || {
        let metrics = Client::new(api.metrics).get("/metrics").await.body;
        let line = r#"http_request_duration_seconds_count{method="POST",route="/api/auth/login",status="499"} 1"#;
        metrics.as_str()?.lines().any(|found| found == line).then_some(())
    })
    .await;

    let named = user.send(Method::GET, "/api/health", &[("x-request-id", "abc-123")], vec![]).await;
    assert_eq!(named.header("x-request-id"), "abc-123");
    let unnamed = user.send(Method::GET, "/api/health", &[("x-request-id", "not {an} id")], vec![]).await;
    assert_eq!(unnamed.header("x-request-id").len(), 32);
    let head = user.send(Method::HEAD, "/api/health", &[], vec![]).await;
    assert_eq!((head.status, head.body), (StatusCode::OK, Value::Null));

    let metrics = Client::new(api.metrics).get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    let text = metrics.body.as_str().unwrap().to_owned();
    for line in [
        r#"http_request_duration_seconds_count{method="GET",route="/api/tasks/{id}",status="200"} 1"#,
        r#"http_request_duration_seconds_count{method="GET",route="unmatched",status="404"} 1"#,
        r#"task_operations_total{operation="create",status="success"} 1"#,
        r#"task_operations_total{operation="get",status="rejected"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let counted =
        |operation| format!("store_operation_duration_seconds_count{{operation=\"{operation}\",status=\"success\"}} ");
    for operation in ["insert", "create_user"] {
        assert!(text.contains(&counted(operation)), "{operation} is not in\n{text}");
    }
    for bound in ["0.01", "0.05", "0.1", "0.2", "0.5", "1.0", "2.0", "5.0", "+Inf"] {
        assert!(text.contains(&format!("le=\"{bound}\"")), "{bound}");
    }
    let connections = text.lines().find_map(|line| line.strip_prefix("active_connections "));
    assert!(connections.unwrap().parse::<u32>().unwrap() >= 1);
    user.get("/metrics").await.expect(StatusCode::NOT_FOUND);
}

async fn secrets_are_not_logged(api: Api) {
    let user = api.user().await;
    user.task("a title").await;
    let login = json!({"email": user.user["email"], "password": "another password"});
    api.client().post("/api/auth/login", login).await.expect(StatusCode::UNAUTHORIZED);
    let token = user.token.unwrap();
    let secret = token.split_once('.').unwrap().1;
    let log = api.log();
    assert!(log.contains("/api/auth/login"), "requests are there at all");
    for hidden in [secret, PASSWORD, "another password", "$argon2", "a title"] {
        assert!(!log.contains(hidden), "{hidden} is in\n{log}");
    }
}

async fn a_stop_finishes_what_was_begun(mut api: Api) {
    let user = api.user().await;
    // A log-in takes a while, and SIGTERM meets it on its way.
    let login = json!({"email": user.user["email"], "password": PASSWORD});
    let logins: Vec<_> = (0..8)
        .map(|_| {
            let (user, login) = (user.clone(), login.clone());
            tokio::spawn(async move { user.post("/api/auth/login", login).await })
        })
        .collect();
    eventually("the log-ins have arrived", async || {
        let metrics = Client::new(api.metrics).get("/metrics").await.body;
        let open =
            metrics.as_str()?.lines().find_map(|line| line.strip_prefix("active_connections "))?.parse::<u32>().ok()?;
        (8..).contains(&open).then_some(())
    })
    .await;
    api.terminate();
    let health = eventually("health tells", async || {
        let reply = user.try_send(Method::GET, "/api/health", &[], vec![]).await?;
        (reply.status == StatusCode::SERVICE_UNAVAILABLE).then_some(reply)
    })
    .await;
    assert_eq!((health.header("connection"), health.header("retry-after")), ("close", "1"));
    for login in logins {
        login.await.unwrap().expect(StatusCode::OK);
    }
    assert!(api.ended().await.success());
    assert!(user.try_send(Method::GET, "/api/health", &[], vec![]).await.is_none(), "nobody listens any more");
}
