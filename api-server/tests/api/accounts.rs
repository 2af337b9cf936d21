//! Accounts and sessions.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{Api, PASSWORD, unique};

on_both_stores!(
    an_account_logs_in_and_out,
    emails_compare_without_case,
    a_failed_login_tells_nothing,
    the_cookie_is_guarded,
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
