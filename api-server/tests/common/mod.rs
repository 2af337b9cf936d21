//! Runs `task-api` as a process, the way a pod does, and talks HTTP to it.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    process::{Command as SyncCommand, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Long enough for a loaded machine; nothing waits for it when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const PASSWORD: &str = "correct horse battery";

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A word that no other test uses, nor another run of the same tests.
pub(crate) fn unique(prefix: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{}-{count}", now.as_millis(), std::process::id())
}

/// Waits until `condition` gives a value.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for this, in vain: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The services that `dev/test-services.sh` started.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    pub(crate) primary: String,
    pub(crate) replicas: String,
    pub(crate) sessions: String,
    pub(crate) broker: String,
    primary_admin: String,
    replica_admin: String,
}

impl Services {
    /// Nothing, said aloud, where they are not running.
    pub(crate) fn find(test: &str) -> Option<Self> {
        let var = |name: &str| std::env::var(format!("TASK_API_TEST_{name}")).ok().filter(|value| !value.is_empty());
        let found = (|| {
            Some(Self {
                primary: var("POSTGRES_URL")?,
                replicas: var("POSTGRES_READ_URL")?,
                sessions: var("REDIS_URL")?,
                broker: var("AMQP_URL").unwrap_or_default(),
                primary_admin: var("POSTGRES_ADMIN_URL")?,
                replica_admin: var("POSTGRES_REPLICA_ADMIN_URL")?,
            })
        })();
        if found.is_none() {
            // Not by a macro: the test runner would keep it to itself.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED {test}: no test services; start them with: eval \"$(dev/test-services.sh)\""
            );
        }
        found
    }

    /// A database of its own for a test.
    pub(crate) async fn with_database(mut self, name: &str) -> Self {
        let name = unique(name).replace('-', "_");
        self.admin("tasks").await.batch_execute(&format!("CREATE DATABASE {name} OWNER tasks")).await.unwrap();
        self.primary = self.primary.replace("/tasks", &format!("/{name}")).replacen(&format!("/{name}:"), "/tasks:", 1);
        // The pooler knows one database of the replica.
        self.replicas = String::new();
        self.primary_admin = in_database(&self.primary_admin, &name);
        self
    }

    /// The environment of an instance that uses them.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("DATABASE_URL", self.primary.clone()),
            ("DATABASE_READ_URL", self.replicas.clone()),
            ("SESSIONS_URL", self.sessions.clone()),
            ("SIGNING_KEY", "the same in every instance".to_owned()),
        ]
    }

    /// A superuser on the primary, past the pooler.
    pub(crate) async fn admin(&self, database: &str) -> tokio_postgres::Client {
        connect(&in_database(&self.primary_admin, database)).await
    }

    /// A superuser in this test's database.
    pub(crate) async fn admin_here(&self) -> tokio_postgres::Client {
        connect(&self.primary_admin).await
    }

    /// A superuser on the replica, past the pooler.
    pub(crate) async fn replica_admin(&self) -> tokio_postgres::Client {
        connect(&self.replica_admin).await
    }

    /// `dev/test-services.sh SERVICE ACTION`.
    pub(crate) async fn control(service: &str, action: &str) {
        // Told when the tests run: checkouts may share what is compiled.
        let script = format!("{}/../dev/test-services.sh", std::env::var("CARGO_MANIFEST_DIR").unwrap());
        let status = Command::new(script).args([service, action]).stdin(Stdio::null()).status().await.unwrap();
        assert!(status.success(), "{service} {action}: {status}");
    }
}

fn in_database(url: &str, database: &str) -> String {
    format!("{}/{database}", url.rsplit_once('/').unwrap().0)
}

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A running instance.
pub(crate) struct Api {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    /// What reads its log.
    reader: JoinHandle<()>,
    directory: Option<PathBuf>,
}

impl Api {
    /// An instance alone: SQLite in a directory of its own.
    pub(crate) async fn alone() -> Self {
        Self::alone_with(&[]).await
    }

    /// The same, with more in its environment.
    pub(crate) async fn alone_with(environment: &[(&str, String)]) -> Self {
        Self::alone_by(&mut Command::new(env!("CARGO_BIN_EXE_task-api")), environment).await
    }

    /// The same, which can't open more than `files` files at once.
    pub(crate) async fn alone_with_files(files: u32) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_task-api")]);
        Self::alone_by(&mut command, &[]).await
    }

    async fn alone_by(command: &mut Command, environment: &[(&str, String)]) -> Self {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique("alone"));
        std::fs::create_dir_all(&directory).unwrap();
        let database = ("DATABASE_URL", directory.join("tasks.db").display().to_string());
        let mut api = Self::launch_by(command, &[environment, &[database]].concat()).await;
        api.directory = Some(directory);
        api.ready().await;
        api
    }

    /// An instance on the platform's services.
    pub(crate) async fn on(services: &Services) -> Self {
        Self::on_with(services, &[]).await
    }

    /// The same, with more in its environment.
    pub(crate) async fn on_with(services: &Services, environment: &[(&'static str, String)]) -> Self {
        let api = Self::launch(&[&services.environment(), environment].concat()).await;
        api.ready().await;
        api
    }

    /// An instance that listens, and may not be ready.
    pub(crate) async fn launch(environment: &[(&str, String)]) -> Self {
        Self::launch_by(&mut Command::new(env!("CARGO_BIN_EXE_task-api")), environment).await
    }

    /// A worker, which has a health of its own and answers nothing else.
    pub(crate) async fn worker(environment: &[(&str, String)]) -> Self {
        let worker = Self::launch_by(Command::new(env!("CARGO_BIN_EXE_task-api")).arg("worker"), environment).await;
        worker.ready().await;
        worker
    }

    async fn launch_by(command: &mut Command, environment: &[(&str, String)]) -> Self {
        let mut child = command
            .args(["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--log-format=json"])
            .env_clear()
            .env("RUST_LOG", "info,api_server=debug,task_api_store=debug,task_api_cache=debug,task_api_cluster=debug,task_api_sessions=debug")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut log = Vec::new();
        let listening: Value = loop {
            let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
            log.push(line.unwrap_or_else(|| panic!("it says that it listens, and not only {log:?}")));
            if let Some(said) = log.last().filter(|line| line.contains("\"listening\"")) {
                break serde_json::from_str(said).unwrap();
            }
        };
        let address = |field: &str| listening[field].as_str().unwrap_or_else(|| panic!("{listening}")).parse().unwrap();
        let (address, metrics) = (address("address"), address("metrics"));
        let log = Arc::new(Mutex::new(log));
        let kept = Arc::clone(&log);
        let reader = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                kept.lock().unwrap().push(line);
            }
        });
        Self { child, address, metrics, log, reader, directory: None }
    }

    /// Waits until it is ready.
    pub(crate) async fn ready(&self) {
        let client = self.client();
        eventually("the instance is ready", async || {
            (client.get("/api/ready").await.status == StatusCode::OK).then_some(())
        })
        .await;
    }

    /// The most memory that it has taken so far, in bytes.
    pub(crate) fn peak_memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().expect("it runs"))).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    /// Everything it logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Where it keeps its files.
    pub(crate) fn directory(&self) -> &PathBuf {
        self.directory.as_ref().unwrap()
    }

    /// The value of a metric: of the line that begins with `name`.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = Client::new(self.metrics).get("/metrics").await.expect(StatusCode::OK);
        let text = text.as_str().unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in\n{text}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// A client that is not logged in.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// A new account, logged in.
    pub(crate) async fn user(&self) -> Client {
        let mut client = self.client();
        client.register(&format!("{}@example.com", unique("user"))).await;
        client
    }

    /// Sends SIGTERM, as Kubernetes does.
    pub(crate) fn terminate(&self) {
        let pid = self.child.id().expect("it runs").to_string();
        assert!(SyncCommand::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap();
        // Its end may be seen before its last lines are read.
        timeout(PATIENCE, &mut self.reader).await.expect("its log ends").unwrap();
        status
    }

    /// Ends it without a word, and moves its files.
    pub(crate) async fn kill_and_keep(mut self, files: &std::path::Path) {
        self.child.kill().await.unwrap();
        std::fs::rename(self.directory(), files).unwrap();
        self.directory = None;
    }

    /// Ends it without a word.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "the instance at {} logged:\n{}", self.address, self.log());
        }
        if let Some(directory) = &self.directory {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Reply {
    /// The body, if the status is `status`.
    #[track_caller]
    pub(crate) fn expect(self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        if !status.is_success() {
            assert_eq!(self.header("content-type"), "application/problem+json");
            assert_eq!(self.body["status"], status.as_u16());
            assert!(self.body["title"].is_string() && self.body["detail"].is_string(), "{}", self.body);
        }
        self.body
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The fields that a 422 complains of.
    #[track_caller]
    pub(crate) fn wrong_fields(self) -> Vec<String> {
        let body = self.expect(StatusCode::UNPROCESSABLE_ENTITY);
        let errors = body["errors"].as_array().unwrap();
        errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
    }
}

/// A client of one instance.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    pub(crate) token: Option<String>,
    pub(crate) user: Value,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let http = HttpClient::builder(TokioExecutor::new()).build_http();
        Self { http, address, token: None, user: Value::Null }
    }

    /// The same user at another instance.
    pub(crate) fn at(&self, api: &Api) -> Self {
        Self { token: self.token.clone(), user: self.user.clone(), ..api.client() }
    }

    /// Sends what it is given; fails where the connection does.
    pub(crate) async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Option<Reply> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body)).unwrap();
        let response = timeout(PATIENCE, self.http.request(request)).await.expect("an answer in time").ok()?;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.ok()?.to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| if bytes.is_empty() { Value::Null } else { json!(String::from_utf8_lossy(&bytes)) });
        Some(Reply { status: parts.status, headers: parts.headers, body })
    }

    pub(crate) async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
        self.try_send(method, path, headers, body).await.expect("a connection")
    }

    /// Sends JSON, or nothing, as who is logged in.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Reply {
        let authorization = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut headers = headers.to_vec();
        if let Some(authorization) = &authorization {
            headers.push(("authorization", authorization.as_str()));
        }
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        self.send(method, path, &headers, body.map(|body| body.to_string().into_bytes()).unwrap_or_default()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.ask(Method::GET, path, &[], None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.ask(Method::POST, path, &[], Some(&body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Reply {
        self.ask(Method::PATCH, path, &[], Some(&body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.ask(Method::DELETE, path, &[], None).await
    }

    /// Makes an account and logs in to it.
    pub(crate) async fn register(&mut self, email: &str) -> Reply {
        let reply = self.post("/api/auth/register", json!({"email": email, "password": PASSWORD})).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.body);
        self.token = reply.body["token"].as_str().map(str::to_owned);
        self.user = reply.body["user"].clone();
        reply
    }

    /// Makes a task.
    pub(crate) async fn task(&self, title: &str) -> Value {
        self.post("/api/tasks", json!({"title": title})).await.expect(StatusCode::CREATED)
    }
}

/// Where a task is.
pub(crate) fn path(task: &Value) -> String {
    format!("/api/tasks/{}", task["id"])
}
