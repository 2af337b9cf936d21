//! Accounts and sessions.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{Api, PASSWORD, unique};

on_both_stores!(
    an_account_logs_in_and_out,
    emails_compare_without_case,
    a_failed_login_tells_nothing,
    the_cookie_is_guarded,
    a_password_is_changed_and_ends_the_other_sessions,
    all_sessions_of_a_user_end_together,
    what_is_typed_alike_is_alike,
    wrong_passwords_are_bounded_and_lock_nobody_out,
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

#[tokio::test]
async fn alone_a_session_outlives_the_process() {
    let first = Api::alone().await;
    let (stays, leaves) = (first.user().await, first.user().await);
    leaves.post("/api/auth/logout", Value::Null).await.expect(StatusCode::NO_CONTENT);
    let kept = first.directory().with_extension("kept");
    first.kill_and_keep(&kept).await;

    let database = kept.join("tasks.db").display().to_string();
    let second = Api::launch(&[("DATABASE_URL", database)]).await;
    second.ready().await;
    stays.at(&second).get("/api/auth/me").await.expect(StatusCode::OK);
    leaves.at(&second).get("/api/auth/me").await.expect(StatusCode::UNAUTHORIZED);
    drop(second);
    std::fs::remove_dir_all(kept).unwrap();
}

async fn a_password_is_changed_and_ends_the_other_sessions(api: Api) {
    let (user, other) = (api.user().await, api.user().await);
    let change = |current: &str, new: &str| json!({"current_password": current, "new_password": new});
    let wrong = user.post("/api/auth/password", change("not this one", "battery staple")).await;
    assert_eq!(wrong.wrong_fields(), ["current_password"]);
    assert_eq!(user.post("/api/auth/password", change(PASSWORD, "short")).await.wrong_fields(), ["new_password"]);
    user.get("/api/auth/me").await.expect(StatusCode::OK);

    let changed = user.post("/api/auth/password", change(PASSWORD, "battery staple")).await;
    assert!(changed.header("set-cookie").starts_with("SESSIONID="));
    let changed = changed.expect(StatusCode::OK);
    user.get("/api/auth/me").await.expect(StatusCode::UNAUTHORIZED);
    let mut renewed = user.clone();
    renewed.token = changed["token"].as_str().map(str::to_owned);
    renewed.get("/api/auth/me").await.expect(StatusCode::OK);
    let login = |password: &str| json!({"email": user.user["email"], "password": password});
    user.post("/api/auth/login", login(PASSWORD)).await.expect(StatusCode::UNAUTHORIZED);
    user.post("/api/auth/login", login("battery staple")).await.expect(StatusCode::OK);
    other.get("/api/auth/me").await.expect(StatusCode::OK);
}

async fn all_sessions_of_a_user_end_together(api: Api) {
    let (user, other) = (api.user().await, api.user().await);
    let login = json!({"email": user.user["email"], "password": PASSWORD});
    let again = async || {
        let reply = user.post("/api/auth/login", login.clone()).await.expect(StatusCode::OK);
        let mut client = user.clone();
        client.token = reply["token"].as_str().map(str::to_owned);
        client
    };
    for _ in 0..2 {
        let sessions = [again().await, again().await];
        let ended = sessions[0].post("/api/auth/logout-all", Value::Null).await;
        assert!(ended.header("set-cookie").contains("Max-Age=0"));
        ended.expect(StatusCode::NO_CONTENT);
        for session in sessions {
            session.get("/api/auth/me").await.expect(StatusCode::UNAUTHORIZED);
        }
    }
    user.get("/api/auth/me").await.expect(StatusCode::UNAUTHORIZED);
    other.get("/api/auth/me").await.expect(StatusCode::OK);
}

/// A letter with an accent is one character on one keyboard and two on another.
async fn what_is_typed_alike_is_alike(api: Api) {
    let name = unique("ren");
    let (composed, decomposed) = (format!("{name}\u{E9}@example.com"), format!("{name}e\u{301}@example.com"));
    let account = |email: &str, password: &str| json!({"email": email, "password": password});
    let client = api.client();
    client.post("/api/auth/register", account(&composed, "caf\u{E9} au lait")).await.expect(StatusCode::CREATED);
    client.post("/api/auth/login", account(&decomposed, "cafe\u{301} au lait")).await.expect(StatusCode::OK);
    let taken = client.post("/api/auth/register", account(&decomposed, "another one")).await;
    taken.expect(StatusCode::CONFLICT);
}

async fn wrong_passwords_are_bounded_and_lock_nobody_out(api: Api) {
    let (stranger, email) = (api.client(), format!("{}@example.com", unique("target")));
    let login = |password: &str| json!({"email": email, "password": password});
    let registered = stranger.post("/api/auth/register", login(PASSWORD)).await;
    let cookies: Vec<_> =
        registered.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
    let device = cookies.iter().find(|cookie| cookie.starts_with("DEVICE=")).unwrap().split(';').next().unwrap();
    for _ in 0..10 {
        stranger.post("/api/auth/login", login("a guess of many")).await.expect(StatusCode::UNAUTHORIZED);
    }
    for password in ["another guess", PASSWORD] {
        let refused = stranger.post("/api/auth/login", login(password)).await;
        assert_eq!(refused.header("retry-after"), "30");
        assert_eq!(refused.expect(StatusCode::TOO_MANY_REQUESTS)["type"], "urn:taskplatform:problem:too-many-tries");
    }
    let body = login(PASSWORD);
    let known = stranger.ask(Method::POST, "/api/auth/login", &[("cookie", device)], Some(&body)).await;
    known.expect(StatusCode::OK);
    let nobody = json!({"email": format!("{}@example.com", unique("nobody")), "password": "a guess of many"});
    for _ in 0..10 {
        stranger.post("/api/auth/login", nobody.clone()).await.expect(StatusCode::UNAUTHORIZED);
    }
    let refused = stranger.post("/api/auth/login", nobody).await;
    refused.expect(StatusCode::TOO_MANY_REQUESTS);
}
