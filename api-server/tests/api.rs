//! What the API promises, on both of its stores: SQLite alone, and PostgreSQL through PgBouncer with a replica and a Redis Cluster.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can not go on says so")]

mod common;

use std::collections::HashSet;

use axum::http::{Method, StatusCode};
use common::{Api, PASSWORD, Services, path, unique};
use futures::future::join_all;
use serde_json::{Value, json};

macro_rules! on_both_stores {
    ($($test:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Api::alone().await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                if let Some(services) = super::Services::find(concat!("postgres::", stringify!($test))) {
                    super::$test(super::Api::on(&services).await).await;
                }
            })+
        }
    };
}

on_both_stores!(
    an_account_logs_in_and_out,
    emails_compare_without_case,
    a_failed_login_tells_nothing,
    the_cookie_is_guarded,
    a_task_lives,
    a_patch_changes_what_it_names,
    tasks_are_their_users_alone,
    lists_go_on_where_they_ended,
    lists_filter,
    many_tasks_at_once,
    titles_of_any_script,
    every_refusal_has_its_answer,
    what_is_wrong_is_named,
    requests_are_counted_and_named,
    secrets_are_not_logged,
    a_stop_finishes_what_was_begun,
);

async fn an_account_logs_in_and_out(api: Api) {
    let mut client = api.client();
    client.get("/api/auth/me").await.expect(StatusCode::UNAUTHORIZED);

    let email = format!("{}@example.com", unique("me"));
    let reply = client.post("/api/auth/register", json!({"email": email, "password": PASSWORD, "name": "Me"})).await;
    let token = reply.body["token"].as_str().unwrap().to_owned();
    let cookie = reply.header("set-cookie").to_owned();
    assert_eq!(cookie, format!("SESSIONID={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age=86400"));
    let user = reply.expect(StatusCode::CREATED)["user"].clone();
    assert_eq!((&user["email"], &user["name"]), (&json!(email), &json!("Me")));

    let by_cookie = format!("theme=dark; SESSIONID={token}");
    let me = client.send(Method::GET, "/api/auth/me", &[("cookie", &by_cookie)], vec![]).await;
    assert_eq!(me.expect(StatusCode::OK), user);
    client.token = Some(token);
    assert_eq!(client.get("/api/auth/me").await.expect(StatusCode::OK), user);

    let credentials = json!({"email": email, "password": PASSWORD});
    let https = [("content-type", "application/json"), ("x-forwarded-proto", "https")];
    let secure = client.send(Method::POST, "/api/auth/login", &https, credentials.to_string().into_bytes()).await;
    assert!(secure.header("set-cookie").ends_with("; Secure"));
    let login = client.post("/api/auth/login", credentials).await;
    assert!(login.header("set-cookie").starts_with("SESSIONID="));
    let login = login.expect(StatusCode::OK);
    assert_eq!(login["user"], user);
    assert_ne!(login["token"].as_str(), client.token.as_deref(), "every log-in has a session of its own");

    let logout = client.post("/api/auth/logout", Value::Null).await;
    assert!(logout.header("set-cookie").contains("Max-Age=0"));
    logout.expect(StatusCode::NO_CONTENT);
    client.get("/api/auth/me").await.expect(StatusCode::UNAUTHORIZED);
    client.token = login["token"].as_str().map(str::to_owned);
    client.get("/api/auth/me").await.expect(StatusCode::OK);
}

async fn emails_compare_without_case(api: Api) {
    let email = format!("Ärger.{}@Example.com", unique("me"));
    api.client().register(&email).await;
    for same in [email.to_uppercase(), email.to_lowercase(), email.clone()] {
        let body = json!({"email": same, "password": PASSWORD});
        api.client().post("/api/auth/register", body.clone()).await.expect(StatusCode::CONFLICT);
        let login = api.client().post("/api/auth/login", body).await.expect(StatusCode::OK);
        assert_eq!(login["user"]["email"], email, "it is shown as it was given");
    }
}

async fn a_failed_login_tells_nothing(api: Api) {
    let user = api.user().await;
    let login = async |email: &str, password: &str| {
        let reply = api.client().post("/api/auth/login", json!({"email": email, "password": password})).await;
        assert_eq!(reply.header("set-cookie"), "");
        let id = reply.header("x-request-id").to_owned();
        let mut problem = reply.expect(StatusCode::UNAUTHORIZED);
        assert_eq!(problem["request_id"].take(), json!(id));
        problem
    };
    let wrong = login(user.user["email"].as_str().unwrap(), "wrong password").await;
    for (email, password) in [("nobody@example.com", PASSWORD), ("not an e-mail", ""), ("", PASSWORD)] {
        assert_eq!(login(email, password).await, wrong);
    }
}

async fn the_cookie_is_guarded(api: Api) {
    let user = api.user().await;
    let cookie = format!("SESSIONID={}", user.token.as_ref().unwrap());
    let send = async |path: &str, headers: &[(&str, &str)], body: &str| {
        let headers = [&[("cookie", cookie.as_str())], headers].concat();
        api.client().send(Method::POST, path, &headers, body.into()).await
    };
    let form = ("content-type", "application/x-www-form-urlencoded");
    let json = ("content-type", "application/json");
    let task = r#"{"title": "mine"}"#;
    send("/api/tasks", &[form], "title=theirs").await.expect(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    send("/api/tasks", &[("content-type", "text/plain")], task).await.expect(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    send("/api/tasks", &[json, ("sec-fetch-site", "cross-site")], task).await.expect(StatusCode::FORBIDDEN);
    send("/api/auth/logout", &[form], "").await.expect(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    send("/api/tasks", &[json, ("sec-fetch-site", "same-origin")], task).await.expect(StatusCode::CREATED);
    send("/api/auth/logout", &[], "").await.expect(StatusCode::NO_CONTENT);
}

async fn a_task_lives(api: Api) {
    let user = api.user().await;
    let reply = user.post("/api/tasks", json!({"title": "plain"})).await;
    let location = reply.header("location").to_owned();
    let plain = reply.expect(StatusCode::CREATED);
    assert_eq!(location, path(&plain));
    assert_eq!(plain["user_id"], user.user["id"]);
    assert_eq!(plain["created_at"], plain["updated_at"]);
    for (field, value) in [
        ("description", Value::Null),
        ("status", json!("pending")),
        ("priority", json!("medium")),
        ("due_date", Value::Null),
    ] {
        assert_eq!(plain[field], value, "{field}");
    }
    assert!(plain["id"].as_i64().unwrap() < 1 << 53, "JavaScript can hold it");

    let body = json!({"title": "full", "description": "all of it", "status": "in_progress", "priority": "urgent",
        "due_date": "2030-01-31T12:00:00.5+02:00"});
    let full = user.post("/api/tasks", body).await.expect(StatusCode::CREATED);
    assert_eq!(full["due_date"], "2030-01-31T10:00:00.5Z");
    assert_eq!(user.get(&path(&full)).await.expect(StatusCode::OK), full);

    user.delete(&path(&full)).await.expect(StatusCode::NO_CONTENT);
    for gone in [user.get(&path(&full)).await, user.delete(&path(&full)).await] {
        gone.expect(StatusCode::NOT_FOUND);
    }
    user.patch(&path(&full), json!({"title": "back"})).await.expect(StatusCode::NOT_FOUND);
    let list = user.get("/api/tasks").await.expect(StatusCode::OK);
    assert_eq!(list, json!({"items": [plain], "next_cursor": null}));
}

async fn a_patch_changes_what_it_names(api: Api) {
    let user = api.user().await;
    let body = json!({"title": "before", "description": "text", "due_date": "2030-01-01T00:00:00Z"});
    let before = user.post("/api/tasks", body).await.expect(StatusCode::CREATED);
    let patch = async |body: Value| user.patch(&path(&before), body).await.expect(StatusCode::OK);

    let after = patch(json!({"title": "after", "status": "completed", "priority": "low"})).await;
    assert_eq!(
        (&after["title"], &after["status"], &after["priority"]),
        (&json!("after"), &json!("completed"), &json!("low"))
    );
    assert_eq!((&after["description"], &after["due_date"]), (&before["description"], &before["due_date"]));
    assert_eq!(after["created_at"], before["created_at"]);
    assert!(after["updated_at"].as_str() > before["updated_at"].as_str());

    let cleared = patch(json!({"description": null, "due_date": null})).await;
    assert_eq!(
        (&cleared["description"], &cleared["due_date"], &cleared["title"]),
        (&Value::Null, &Value::Null, &json!("after"))
    );
    assert_eq!(patch(json!({})).await, cleared, "nothing changes, not even updated_at");
    assert_eq!(
        patch(json!({"id": 1, "user_id": 1, "created_at": "x"})).await,
        cleared,
        "what can't be changed is ignored"
    );
    let emptied = patch(json!({"description": ""})).await;
    assert_eq!(emptied["description"], "");
    assert_eq!(user.get(&path(&before)).await.expect(StatusCode::OK), emptied);
    assert_eq!(
        user.patch(&path(&before), json!({"title": null, "status": 1})).await.wrong_fields(),
        ["title", "status"]
    );
}

async fn tasks_are_their_users_alone(api: Api) {
    let (mine, theirs) = (api.user().await, api.user().await);
    let task = theirs.task("theirs").await;
    mine.get(&path(&task)).await.expect(StatusCode::NOT_FOUND);
    mine.patch(&path(&task), json!({"title": "mine"})).await.expect(StatusCode::NOT_FOUND);
    mine.patch(&path(&task), json!({})).await.expect(StatusCode::NOT_FOUND);
    mine.delete(&path(&task)).await.expect(StatusCode::NOT_FOUND);
    assert_eq!(mine.get("/api/tasks").await.expect(StatusCode::OK)["items"], json!([]));
    assert_eq!(theirs.get(&path(&task)).await.expect(StatusCode::OK), task);
    api.client().get(&path(&task)).await.expect(StatusCode::UNAUTHORIZED);
}

/// Reads a list to its end.
async fn walk(user: &common::Client, query: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = user.get(&format!("/api/tasks?{query}&cursor={cursor}")).await.expect(StatusCode::OK);
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return items,
        }
    }
}

async fn lists_go_on_where_they_ended(api: Api) {
    let (user, other) = (api.user().await, api.user().await);
    let mut made = Vec::new();
    for number in 0..7 {
        made.insert(0, user.task(&format!("task {number}")).await);
    }
    for limit in [1, 2, 3, 6, 7, 100] {
        assert_eq!(walk(&user, &format!("limit={limit}")).await, made, "limit {limit}");
    }

    let first = user.get("/api/tasks?limit=3").await.expect(StatusCode::OK);
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = format!("/api/tasks?limit=100&cursor={cursor}");
    user.task("newer").await;
    user.delete(&path(&made[2])).await.expect(StatusCode::NO_CONTENT);
    let rest_items = user.get(&rest).await.expect(StatusCode::OK)["items"].clone();
    assert_eq!(rest_items, json!(made[3..]), "neither newer tasks nor the end of the page gone move it");

    other.get(&rest).await.expect(StatusCode::BAD_REQUEST);
    user.get(&format!("{rest}&status=pending")).await.expect(StatusCode::BAD_REQUEST);
    user.get(&format!("{rest}A")).await.expect(StatusCode::BAD_REQUEST);
    user.get("/api/tasks?cursor=made-up").await.expect(StatusCode::BAD_REQUEST);
}

async fn lists_filter(api: Api) {
    let user = api.user().await;
    let mut made = Vec::new();
    for (status, priority) in
        [("pending", "low"), ("pending", "urgent"), ("completed", "low"), ("in_progress", "low"), ("pending", "low")]
    {
        let body = json!({"title": "x", "status": status, "priority": priority});
        made.insert(0, user.post("/api/tasks", body).await.expect(StatusCode::CREATED));
    }
    for (query, status, priority) in [
        ("", None, None),
        ("status=pending", Some("pending"), None),
        ("status=completed", Some("completed"), None),
        ("priority=low", None, Some("low")),
        ("priority=high", None, Some("high")),
        ("status=pending&priority=low", Some("pending"), Some("low")),
        ("status=completed&priority=urgent", Some("completed"), Some("urgent")),
    ] {
        let fits = |task: &&Value| {
            status.is_none_or(|status| task["status"] == status)
                && priority.is_none_or(|priority| task["priority"] == priority)
        };
        let expected: Vec<_> = made.iter().filter(fits).cloned().collect();
        assert_eq!(walk(&user, &format!("{query}&limit=1")).await, expected, "{query}");
    }
}

async fn many_tasks_at_once(api: Api) {
    let user = api.user().await;
    let made = join_all((0..60).map(|number| {
        let user = user.clone();
        async move { user.task(&format!("{number}")).await["id"].as_i64().unwrap() }
    }));
    let made: HashSet<i64> = made.await.into_iter().collect();
    assert_eq!(made.len(), 60);
    let listed = walk(&user, "limit=7").await;
    assert_eq!(listed.len(), 60);
    assert_eq!(listed.iter().map(|task| task["id"].as_i64().unwrap()).collect::<HashSet<_>>(), made);
    let order: Vec<_> =
        listed.iter().map(|task| (task["created_at"].as_str().unwrap().to_owned(), task["id"].as_i64())).collect();
    assert!(order.is_sorted_by(|a, b| instant(&a.0) > instant(&b.0) || (instant(&a.0) == instant(&b.0) && a.1 > b.1)));
}

fn instant(text: &str) -> jiff::Timestamp {
    text.parse().unwrap()
}

async fn titles_of_any_script(api: Api) {
    let user = api.user().await;
    for title in ["日本語のタスク", "👩‍👩‍👧 \"quoted\" \\ back\tslash\n", "'; DROP TABLE tasks; --", "\u{202e}rtl", "ß$1%s"]
    {
        let task = user.task(title).await;
        assert_eq!(user.get(&path(&task)).await.expect(StatusCode::OK)["title"], title);
    }
    let longest = user.task(&"👍".repeat(255)).await;
    assert_eq!(longest["title"].as_str().unwrap().chars().count(), 255);
    let words: Vec<_> = (0..16_000).map(|number| format!("{number:x}")).collect();
    let mut text = words.join(" ");
    text.truncate(65_536);
    let body = json!({"title": "long", "description": text});
    assert_eq!(user.post("/api/tasks", body).await.expect(StatusCode::CREATED)["description"], json!(text));
}

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

async fn requests_are_counted_and_named(api: Api) {
    let user = api.user().await;
    let task = user.task("counted").await;
    user.get(&path(&task)).await.expect(StatusCode::OK);
    user.get("/api/tasks/1").await.expect(StatusCode::NOT_FOUND);
    user.get("/no/such/path").await.expect(StatusCode::NOT_FOUND);

    let named = user.send(Method::GET, "/api/health", &[("x-request-id", "abc-123")], vec![]).await;
    assert_eq!(named.header("x-request-id"), "abc-123");
    let unnamed = user.send(Method::GET, "/api/health", &[("x-request-id", "not {an} id")], vec![]).await;
    assert_eq!(unnamed.header("x-request-id").len(), 32);
    let head = user.send(Method::HEAD, "/api/health", &[], vec![]).await;
    assert_eq!((head.status, head.body), (StatusCode::OK, Value::Null));

    let metrics = common::Client::new(api.metrics).get("/metrics").await;
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
    for bound in ["0.01", "0.05", "0.1", "0.5", "1.0", "2.0", "5.0", "+Inf"] {
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
    common::eventually("the log-ins have arrived", async || {
        let metrics = common::Client::new(api.metrics).get("/metrics").await.body;
        let open =
            metrics.as_str()?.lines().find_map(|line| line.strip_prefix("active_connections "))?.parse::<u32>().ok()?;
        (8..).contains(&open).then_some(())
    })
    .await;
    api.terminate();
    let health = common::eventually("health tells", async || {
        let reply = user.get("/api/health").await;
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

/// What is in the file is worth nothing to who reads it.
#[tokio::test]
async fn the_file_holds_no_secrets() {
    let api = Api::alone().await;
    let user = api.user().await;
    let mut found = Vec::new();
    for file in std::fs::read_dir(api.directory()).unwrap() {
        found.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    let contains = |text: &str| found.windows(text.len()).any(|bytes| bytes == text.as_bytes());
    assert!(contains(user.user["email"].as_str().unwrap()));
    assert!(contains("$argon2id$"));
    assert!(!contains(PASSWORD));
    assert!(!contains(user.token.unwrap().split_once('.').unwrap().1));
}
