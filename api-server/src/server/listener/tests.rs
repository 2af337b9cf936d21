use std::sync::atomic::{AtomicU32, Ordering};

use axum::{
    http::StatusCode,
    routing::{get, post},
};
use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{config::Args, http::JsonBody, server::router};

const ANSWER: &str = "a small answer";
/// More than the sockets' buffers hold.
const LARGE: usize = 64 << 20;

/// A client, and the connections that it is one of. Nobody really waits: time passes when nothing else can happen, but in small
/// steps, so that what is on its way between the sockets arrives before much of it has passed.
async fn connect() -> (TcpStream, Listener) {
    tokio::spawn(async {
        loop {
            sleep(Duration::from_millis(2)).await;
            std::thread::yield_now();
        }
    });
    let router = Router::new()
        .route("/", get(async || ANSWER))
        .route("/large", get(async || "x".repeat(LARGE)))
        .route("/read", post(async |_: JsonBody| StatusCode::OK))
        .with_state(app("read"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Listener::default();
    tokio::spawn(connections.clone().accept(listener, router, None));
    (TcpStream::connect(address).await.unwrap(), connections)
}

/// Everything until the connection ends, and how long that took.
async fn rest(mut client: TcpStream) -> (String, Duration) {
    let began = Instant::now();
    let mut bytes = Vec::new();
    // A reset ends it as well.
    let _ = client.read_to_end(&mut bytes).await;
    (String::from_utf8(bytes).unwrap(), began.elapsed())
}

async fn answers(client: &mut TcpStream, count: usize) {
    let mut text = String::new();
    while text.matches(ANSWER).count() < count {
        let mut bytes = [0; 4096];
        let read = client.read(&mut bytes).await.unwrap();
        assert!(read > 0, "{text}");
        text += std::str::from_utf8(&bytes[..read]).unwrap();
    }
}

const ASK: &[u8] = b"GET /api/tasks HTTP/1.1\r\nhost: a\r\n\r\n";

/// An instance alone, with a directory of its own.
fn app(name: &str) -> Arc<App> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("{name}-{}-{count}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let url = format!("--database-url={}", directory.join("tasks.db").display());
    let app = App::new(&Args::parse_from(["task-api", &url]).into_config().unwrap()).unwrap();
    // What is open stays, without a name.
    std::fs::remove_dir_all(&directory).unwrap();
    app
}

/// The API, and where it listens.
async fn serve_api(name: &str) -> (Arc<App>, std::net::SocketAddr) {
    let app = app(name);
    app.lifecycle.start();
    let bound = Bound {
        connections: 100,
        beyond: router::refusing(Arc::clone(&app), "connections"),
        overloaded: router::refusing(Arc::clone(&app), "requests"),
        app: Arc::clone(&app),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(Listener::default().accept(listener, router::api(Arc::clone(&app)).unwrap(), Some(bound)));
    (app, address)
}

async fn ask(address: std::net::SocketAddr, request: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(request).await.unwrap();
    client
}

async fn status(client: &mut TcpStream) -> String {
    let mut line = [0; "HTTP/1.1 200".len()];
    client.read_exact(&mut line).await.unwrap();
    String::from_utf8(line.to_vec()).unwrap()
}

async fn until(what: impl Fn() -> bool) {
    timeout(Duration::from_secs(10), async {
        while !what() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
}

fn seconds_taken(app: &App) -> f64 {
    let text = app.metrics.render(app.load());
    let sum = text
        .lines()
        .find(|line| line.starts_with("http_request_duration_seconds_sum") && line.contains(r#""/api/tasks""#));
    sum.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap()
}

#[tokio::test]
async fn a_request_waits_for_its_turn_but_a_probe_does_not() {
    let (app, address) = serve_api("turns").await;
    let mut turns: Vec<_> = std::iter::from_fn(|| app.admission.try_enter()).collect();
    let mut waits = ask(address, ASK).await;
    until(|| app.admission.waiting() == 1).await;
    // It waits by now, so all of this is a part of its wait.
    let began = Instant::now();
    sleep(Duration::from_millis(20)).await;
    let mut probe = ask(address, b"GET /api/health HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(status(&mut probe).await, "HTTP/1.1 200");
    assert_eq!(app.admission.waiting(), 1);
    let waited = began.elapsed();
    turns.pop();
    assert_eq!(status(&mut waits).await, "HTTP/1.1 401");
    until(|| app.admission.in_flight() == turns.len()).await;
    assert!(seconds_taken(&app) >= waited.as_secs_f64(), "the wait counts: {} of {waited:?}", seconds_taken(&app));
}

#[tokio::test]
async fn who_waited_too_long_is_refused() {
    let (app, address) = serve_api("refused").await;
    let _turns: Vec<_> = std::iter::from_fn(|| app.admission.try_enter()).collect();
    assert_eq!(status(&mut ask(address, ASK).await).await, "HTTP/1.1 503");
    assert_eq!(app.metrics.shed.requests.get(), 1);
}

#[tokio::test]
async fn who_waits_for_its_client_gives_its_turn_to_the_next() {
    let (app, address) = serve_api("given").await;
    let mut turns: Vec<_> = std::iter::from_fn(|| app.admission.try_enter()).collect();
    turns.pop();
    let (begun, rest) = ASK.split_at(10);
    let mut slow = ask(address, begun).await;
    until(|| app.admission.in_flight() > turns.len()).await;
    assert_eq!(status(&mut ask(address, ASK).await).await, "HTTP/1.1 401");
    slow.write_all(rest).await.unwrap();
    assert_eq!(status(&mut slow).await, "HTTP/1.1 401");
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let (mut client, _connections) = connect().await;
    for _ in 0..3 {
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        answers(&mut client, 1).await;
    }
    // Three at once, of which the last comes in two parts.
    let three = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(3);
    client.write_all(&three[..70]).await.unwrap();
    answers(&mut client, 2).await;
    client.write_all(&three[70..]).await.unwrap();
    answers(&mut client, 1).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let (last, took) = rest(client).await;
    assert!(last.ends_with(ANSWER) && took < IDLE_TIMEOUT, "{last} after {took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_a_while() {
    let (mut client, _connections) = connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let (_, took) = rest(client).await;
    assert!((IDLE_TIMEOUT..IDLE_TIMEOUT * 2).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_drips_is_cut_off() {
    let (client, _connections) = connect().await;
    let (read, mut write) = client.into_split();
    let drip = tokio::spawn(async move {
        for byte in b"GET / HTTP/1.1\r\nhost: a-long-name.example.com\r\n\r\n" {
            write.write_all(&[*byte]).await?;
            sleep(Duration::from_secs(1)).await;
        }
        Ok::<_, std::io::Error>(write)
    });
    let began = Instant::now();
    let mut bytes = Vec::new();
    let _ = { read }.read_to_end(&mut bytes).await;
    assert_eq!(bytes, b"", "there is no request to answer");
    assert!((9..20).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    drop(drip);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let (mut client, _connections) = connect().await;
    let head = "POST /read HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    client.write_all(head.as_bytes()).await.unwrap();
    let (answer, took) = rest(client).await;
    assert!(answer.starts_with("HTTP/1.1 408") && took < Duration::from_secs(20), "{answer} after {took:?}");
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_not_in_the_way() {
    let (mut client, _connections) = connect().await;
    for _ in 0..3 {
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 19\r\n\r\n").await.unwrap();
        tokio::task::yield_now().await;
        client.write_all(b"GET /large HTTP/1.1").await.unwrap();
        answers(&mut client, 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_reads_is_not_waited_for_either() {
    let (mut client, _connections) = connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nGET /large").await.unwrap();
    let (answer, took) = rest(client).await;
    assert!(answer.contains("connection: close") && answer.ends_with(ANSWER), "{answer}");
    assert!(took < IDLE_TIMEOUT, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut_off() {
    let (mut client, connections) = connect().await;
    let began = Instant::now();
    client.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    client.readable().await.unwrap();
    // One more watches: the loop that accepts.
    while connections.close.receiver_count() > 1 {
        sleep(Duration::from_secs(1)).await;
    }
    assert!((29..60).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert!(rest(client).await.0.len() < LARGE);
}

#[tokio::test]
async fn the_end_waits_for_an_answer_and_not_for_the_idle() {
    let (mut busy, connections) = connect().await;
    busy.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    busy.readable().await.unwrap();
    let finish = tokio::spawn(connections.finish());
    let (answer, took) = rest(busy).await;
    assert!(answer.len() > LARGE && took < IDLE_TIMEOUT, "{} after {took:?}", answer.len());
    finish.await.unwrap();
}
