//! What the server does around the handlers: limits, an orderly end, compression, logs that keep secrets.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can not go on says so")]

mod common;

use std::{
    io::Read,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::http::{HeaderMap, Method, Request, StatusCode};
use common::{Api, PASSWORD, eventually, unique};
use futures::future::join_all;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::{client::legacy, rt::TokioExecutor};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A request whose body is yet to come: it takes a place until then.
async fn begin_login(address: SocketAddr, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /api/auth/login HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn too_many_requests_are_refused_and_the_others_answered() {
    let api = Api::alone_with(&[("MAX_IN_FLIGHT", "2".to_owned())]).await;
    // An answer is read a moment before its request's place is free.
    eventually("the probe has left", async || (api.metric("http_requests_in_flight").await < 1.0).then_some(())).await;
    let body = json!({"email": "nobody@example.com", "password": PASSWORD}).to_string();
    let mut slow = join_all((0..2).map(|_| begin_login(api.address, &body))).await;
    eventually("both have their places", async || (api.metric("http_requests_in_flight").await > 1.0).then_some(()))
        .await;

    let client = api.client();
    let replies = join_all((0..6).map(|_| client.get("/api/auth/me"))).await;
    for reply in replies {
        assert_eq!(reply.header("retry-after"), "1");
        reply.expect(StatusCode::SERVICE_UNAVAILABLE);
    }
    assert!(api.metric(r#"http_shed_total{reason="requests"}"#).await > 5.0);
    client.get("/api/health").await.expect(StatusCode::OK);
    client.get("/api/ready").await.expect(StatusCode::OK);

    for stream in &mut slow {
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
    client.get("/api/auth/me").await.expect(StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn too_many_connections_are_refused_but_probes_are_not() {
    let api = Api::alone_with(&[("MAX_CONNECTIONS", "3".to_owned())]).await;
    let held = eventually("all that are served are held", async || {
        let held = join_all((0..3).map(|_| TcpStream::connect(api.address))).await;
        let reply = api.client().get("/api/auth/me").await;
        (reply.status == StatusCode::SERVICE_UNAVAILABLE).then_some((held, reply))
    })
    .await;
    assert_eq!((held.1.header("connection"), held.1.header("retry-after")), ("close", "1"));
    api.client().get("/api/health").await.expect(StatusCode::OK);
    assert!(api.metric(r#"http_shed_total{reason="connections"}"#).await > 1.0);
    drop(held);
    eventually("there is room again", async || {
        (api.client().get("/api/auth/me").await.status == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
}

#[tokio::test]
async fn it_survives_that_no_file_is_left() {
    let api = Api::alone_with_files(64).await;
    let held = join_all((0..100).map(|_| TcpStream::connect(api.address))).await;
    eventually("it has no file left", async || api.log().contains("can't accept connections").then_some(())).await;
    drop(held);
    eventually("it goes on", async || {
        let reply = api.client().try_send(Method::GET, "/api/health", &[], vec![]).await?;
        (reply.status == StatusCode::OK).then_some(())
    })
    .await;
    assert_eq!(api.log().matches("can't accept connections").count(), 1, "said once\n{}", api.log());
}

/// Asks without a pause until it is told that the connection closes. Fails if a request got no answer.
async fn ask_until_the_end(address: SocketAddr, token: String, answered: Arc<AtomicUsize>) {
    let client = legacy::Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http();
    loop {
        let request = Request::post(format!("http://{address}/api/tasks"))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(http_body_util::Full::<Bytes>::from(r#"{"title": "on the way"}"#))
            .unwrap();
        match client.request(request).await {
            Ok(response) => {
                assert_eq!(response.status(), StatusCode::CREATED);
                let last = response.headers().contains_key("connection");
                response.into_body().collect().await.expect("a whole answer");
                answered.fetch_add(1, Ordering::Relaxed);
                if last {
                    return;
                }
            }
            Err(error) => panic!("a request was lost: {error:?}"),
        }
    }
}

#[tokio::test]
async fn a_stop_under_load_loses_no_request() {
    let mut api = Api::alone().await;
    let token = api.user().await.token.unwrap();
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> =
        (0..16).map(|_| tokio::spawn(ask_until_the_end(api.address, token.clone(), Arc::clone(&answered)))).collect();
    eventually("there is load", async || (answered.load(Ordering::Relaxed) > 100).then_some(())).await;
    let before = answered.load(Ordering::Relaxed);
    api.terminate();
    for client in clients {
        client.await.unwrap();
    }
    assert!(api.ended().await.success());
    assert!(answered.load(Ordering::Relaxed) > before, "those on their way were answered");
}

async fn fetch(address: SocketAddr, path: &str, token: &str, encoding: Option<&str>) -> (HeaderMap, Vec<u8>) {
    let client = legacy::Client::builder(TokioExecutor::new()).build_http();
    let mut request =
        Request::get(format!("http://{address}{path}")).header("authorization", format!("Bearer {token}"));
    if let Some(encoding) = encoding {
        request = request.header("accept-encoding", encoding);
    }
    let response = client.request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let (head, body) = response.into_parts();
    (head.headers, body.collect().await.unwrap().to_bytes().to_vec())
}

#[tokio::test]
async fn a_list_is_compressed_for_who_asks() {
    let api = Api::alone().await;
    let user = api.user().await;
    for number in 0..20 {
        user.task(&format!("task number {number}")).await;
    }
    let token = user.token.unwrap();
    let (headers, plain) = fetch(api.address, "/api/tasks", &token, None).await;
    assert_eq!(headers.get("content-encoding"), None);
    assert!(headers.get_all("vary").iter().any(|vary| vary == "accept-encoding"), "{headers:?}");

    let (headers, gzipped) = fetch(api.address, "/api/tasks", &token, Some("gzip")).await;
    assert_eq!(headers["content-encoding"], "gzip");
    let mut unzipped = Vec::new();
    flate2::read::GzDecoder::new(&*gzipped).read_to_end(&mut unzipped).unwrap();
    assert!(unzipped == plain && gzipped.len() < plain.len() / 4, "{} of {}", gzipped.len(), plain.len());

    let (headers, brotli) = fetch(api.address, "/api/tasks", &token, Some("gzip, br")).await;
    assert_eq!(headers["content-encoding"], "br");
    let mut unpacked = Vec::new();
    brotli::Decompressor::new(&*brotli, 4096).read_to_end(&mut unpacked).unwrap();
    assert!(unpacked == plain && brotli.len() < plain.len() / 4, "{} of {}", brotli.len(), plain.len());

    let (headers, _) = fetch(api.address, "/api/health", &token, Some("gzip, br")).await;
    assert_eq!(headers.get("content-encoding"), None, "it is small");
}

/// Whatever level is asked for.
#[tokio::test]
async fn no_secret_is_logged_at_any_level() {
    let api = Api::alone_with(&[("RUST_LOG", "trace".to_owned())]).await;
    let user = api.user().await;
    user.task("a private title").await;
    let email = user.user["email"].as_str().unwrap();
    api.client().post("/api/auth/login", json!({"email": email, "password": "another password"})).await;
    let token = user.token.clone().unwrap();
    let cookie = format!("SESSIONID={token}");
    user.send(Method::GET, "/api/auth/me", &[("cookie", &cookie)], vec![]).await.expect(StatusCode::OK);
    user.send(Method::GET, "/api/auth/me?token=in-the-query", &[("cookie", &cookie)], vec![]).await;
    user.post("/api/auth/logout", json!({})).await;
    let log = eventually("requests are there at all", async || {
        let log = api.log();
        log.contains("/api/auth/logout").then_some(log)
    })
    .await;
    let secret = token.split_once('.').unwrap().1;
    for hidden in [secret, PASSWORD, "another password", "$argon2", "a private title", "in-the-query", email] {
        assert!(!log.contains(hidden), "{hidden} is in\n{log}");
    }
}

#[tokio::test]
async fn log_lines_are_found_by_request_and_trace() {
    let api = Api::alone().await;
    let id = unique("request");
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [("x-request-id", id.as_str()), ("traceparent", parent)];
    api.client().send(Method::GET, "/api/auth/me", &headers, vec![]).await.expect(StatusCode::UNAUTHORIZED);
    let line: Value = eventually("the request's line", async || {
        api.log().lines().find(|line| line.contains(&id)).map(|line| serde_json::from_str(line).unwrap())
    })
    .await;
    for (name, value) in [
        ("http.request.id", json!(id)),
        ("trace.id", json!("4bf92f3577b34da6a3ce929d0e0e4736")),
        ("span.id", json!("00f067aa0ba902b7")),
        ("http.request.method", json!("GET")),
        ("url.path", json!("/api/auth/me")),
        ("http.response.status_code", json!(401)),
        ("log.level", json!("debug")),
        ("service.name", json!("task-api")),
    ] {
        assert_eq!(line[name], value, "{name} in {line}");
    }
    assert!(line["event.duration"].as_u64().unwrap() > 1000, "{line}");
}
