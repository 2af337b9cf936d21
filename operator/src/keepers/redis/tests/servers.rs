//! Throw-away Redis servers, each with a loopback address of its own, so that a pod restarted with a new IP really has one.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use redis::{
    AsyncCommands, AsyncConnectionConfig, Client, aio::MultiplexedConnection, cluster::ClusterClient,
    cluster_async::ClusterConnection,
};
use taskplatform_blueprint::{Credentials, Part, RedisCluster};
use tempfile::TempDir;

use crate::keepers::redis::{Connections, Error, Health, Member, Passwords, Pods, State, Target, reconcile};

pub(super) const PASSWORD: &str = "secret";
/// The longest that a cluster may take to heal.
const HEALING: Duration = Duration::from_secs(50);
const PORT: u16 = 7379;

/// True where there is no Redis to test with; says so.
pub(super) fn no_redis() -> bool {
    let found =
        Command::new("redis-server").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("SKIPPED: redis-server is not in PATH (Debian: apt-get install redis-server)");
    }
    !found
}

/// Connections of an operator that has just begun.
pub(super) fn connections(password: &str) -> Connections {
    let mut connections = Connections::default();
    connections.expect(Passwords { current: password.to_owned(), former: None });
    connections
}

/// An address that no server had before.
fn fresh_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Another process that runs the same tests gets another part of 127.0.0.0/8.
    let process = std::process::id() % 200 + 20;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let [_, _, high, low] = number.to_be_bytes();
    let process = u8::try_from(process).expect("at most 219");
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, process, high, low + 1)), PORT)
}

/// One pod: its volume outlives its process.
struct Server {
    process: Option<Child>,
    /// What is in its redis.conf.
    configuration: String,
    address: SocketAddr,
    volume: TempDir,
    node: String,
}

impl Server {
    /// The file of the Secret, as the blueprint renders it.
    fn write_passwords(&self, current: &str, former: Option<&str>) {
        let former = former.map(|former| ("cache-password.a", former));
        let entries = [("cache-password.b", current), ("cache-password.version", "1")].into_iter().chain(former);
        let credentials: Credentials = entries.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let file = RedisCluster::Cache.credential_files()[0];
        let folder = self.volume.path().join("credentials");
        std::fs::create_dir_all(&folder).expect("made");
        std::fs::write(folder.join(file.key), (file.text)(&credentials)).expect("written");
    }

    fn start(&mut self, timeout_ms: u32) {
        let ip = self.address.ip().to_string();
        std::fs::write(self.volume.path().join("redis.conf"), &self.configuration).expect("written");
        if !self.volume.path().join("credentials").exists() {
            self.write_passwords(PASSWORD, None);
        }
        let process = Command::new("redis-server")
            .arg("redis.conf")
            .args(["--port", &self.address.port().to_string(), "--bind", &ip, "--cluster-announce-ip", &ip])
            .args(["--cluster-enabled", "yes", "--cluster-node-timeout", &timeout_ms.to_string()])
            .args([
                "--cluster-migration-barrier",
                "1000",
                "--cluster-require-full-coverage",
                "no",
                "--cluster-replica-validity-factor",
                "0",
            ])
            .args(["--repl-diskless-sync-delay", "0", "--include", "credentials/cache.conf"])
            .args(["--save", "", "--appendonly", "yes", "--appendfsync", "no", "--logfile", "redis.log"])
            .current_dir(self.volume.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        self.process = Some(process);
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("our own process");
            process.wait().expect("our own process");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The pods of a StatefulSet.
pub(super) struct Servers {
    pods: Vec<Server>,
    kubernetes_nodes: usize,
    timeout_ms: u32,
    configuration: String,
}

impl Servers {
    pub(super) async fn start(count: usize, kubernetes_nodes: usize) -> Self {
        Self::start_with_timeout(count, kubernetes_nodes, 2000).await
    }

    pub(super) async fn start_with_timeout(count: usize, kubernetes_nodes: usize, timeout_ms: u32) -> Self {
        let mut servers = Self { pods: Vec::new(), kubernetes_nodes, timeout_ms, configuration: String::new() };
        servers.add(count).await;
        servers
    }

    /// Servers with a configuration as the blueprint renders it, but for where a pod keeps its files.
    pub(super) async fn start_configured(count: usize, rendered: &str) -> Self {
        let here = rendered.lines().filter(|line| !line.starts_with("dir ") && !line.starts_with("include "));
        let configuration = here.collect::<Vec<_>>().join("\n");
        let mut servers = Self { pods: Vec::new(), kubernetes_nodes: count, timeout_ms: 2000, configuration };
        servers.add(count).await;
        servers
    }

    pub(super) async fn add(&mut self, count: usize) {
        for _ in 0..count {
            let node = format!("worker-{}", self.pods.len() % self.kubernetes_nodes);
            let volume = tempfile::Builder::new().prefix("redis-test-").tempdir().expect("a folder");
            let configuration = self.configuration.clone();
            let mut server = Server { process: None, configuration, address: fresh_address(), volume, node };
            server.start(self.timeout_ms);
            self.pods.push(server);
        }
        self.await_answers().await;
    }

    /// The Secret has changed, and its files have reached the pods.
    pub(super) fn write_passwords(&self, current: &str, former: Option<&str>) {
        self.pods.iter().for_each(|server| server.write_passwords(current, former));
    }

    /// The StatefulSet has shrunk: the last pods are gone, their volumes too.
    pub(super) fn shrink(&mut self, count: usize) {
        self.pods.truncate(count);
    }

    pub(super) fn kill(&mut self, pod: usize) {
        self.pods[pod].kill();
    }

    pub(super) fn process(&self, pod: usize) -> u32 {
        self.pods[pod].process.as_ref().expect("it runs").id()
    }

    /// Sends a signal such as STOP, after which a process hangs, and CONT.
    pub(super) fn signal(&self, pod: usize, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.process(pod).to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Starts pods again as Kubernetes would: under another address, on the same volume.
    pub(super) async fn restart(&mut self, pods: impl IntoIterator<Item = usize>) {
        let pods: Vec<usize> = pods.into_iter().collect();
        for pod in &pods {
            self.pods[*pod].kill();
        }
        for pod in &pods {
            self.pods[*pod].address = fresh_address();
            self.pods[*pod].start(self.timeout_ms);
        }
        self.await_answers().await;
    }

    /// Starts a pod again with an empty volume.
    pub(super) async fn lose_volume(&mut self, pods: impl IntoIterator<Item = usize>) {
        let pods: Vec<usize> = pods.into_iter().collect();
        for pod in &pods {
            self.pods[*pod].kill();
            self.pods[*pod].volume = tempfile::Builder::new().prefix("redis-test-").tempdir().expect("a folder");
        }
        self.restart(pods).await;
    }

    async fn await_answers(&self) {
        for (pod, server) in self.pods.iter().enumerate().filter(|(_, server)| server.process.is_some()) {
            eventually(&format!("pod {pod} answers"), Duration::from_secs(10), async || {
                let Ok(mut connection) = connect(server.address).await else { return false };
                redis::cmd("PING").exec_async(&mut connection).await.is_ok()
            })
            .await;
        }
    }

    pub(super) fn pods(&self) -> Pods {
        let running = self.pods.iter().enumerate().filter(|(_, server)| server.process.is_some());
        let members = running.map(|(ordinal, server)| Member {
            pod: format!("tasks-cache-{ordinal}"),
            address: server.address,
            node: Some(server.node.clone()),
            is_lost: false,
        });
        Pods { count: u32::try_from(self.pods.len()).expect("a few"), members: members.collect() }
    }

    pub(super) fn address(&self, pod: usize) -> SocketAddr {
        self.pods[pod].address
    }

    /// Runs a script of the image as the kubelet would, and says whether it succeeded and what it printed.
    pub(super) fn script(&self, pod: usize, name: &str) -> (bool, String) {
        let address = self.address(pod);
        // Told when the tests run: checkouts may share what is compiled.
        let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
        let script = Path::new(&package).join("../images/redis").join(name);
        let mut command = Command::new("sh");
        let path = std::env::var("PATH").unwrap_or_default();
        command.arg(&script).env("PATH", format!("{}:{path}", script.parent().expect("a folder").display()));
        command.env("REDIS_CREDENTIALS", self.pods[pod].volume.path().join("credentials"));
        command.env("REDIS_HOST", address.ip().to_string()).env("REDIS_PORT", address.port().to_string());
        let output = command.output().expect("sh runs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(super) async fn ask<T: redis::FromRedisValue>(&self, pod: usize, command: &str) -> T {
        let mut connection = connect(self.address(pod)).await.expect("connected");
        let mut words = command.split(' ');
        let mut built = redis::cmd(words.next().unwrap_or_default());
        for word in words {
            built.arg(word);
        }
        built.query_async(&mut connection).await.unwrap_or_else(|error| panic!("{command} on pod {pod}: {error}"))
    }

    /// Reconciles until the cluster is healthy, and says how long that took.
    pub(super) async fn heal(&self, target: &Target) -> (Health, Duration) {
        let start = Instant::now();
        loop {
            let health = match reconcile(&mut connections(PASSWORD), &self.pods(), target).await {
                // It is tried again, as the operator does.
                Err(Error::Step { .. }) if start.elapsed() < HEALING => continue,
                health => health.expect("reconciled"),
            };
            match &health.state {
                State::Healthy => {
                    assert_eq!(health.slots_assigned, 16384, "{health:#?}");
                    return (health, start.elapsed());
                }
                state => assert!(start.elapsed() < HEALING, "{state:?}\n{}", self.views().await),
            }
        }
    }

    async fn views(&self) -> String {
        let mut views = String::new();
        for (pod, server) in self.pods.iter().enumerate() {
            let Ok(mut connection) = connect(server.address).await else { continue };
            let nodes: Result<String, _> = redis::cmd("CLUSTER").arg("NODES").query_async(&mut connection).await;
            let _ = writeln!(views, "pod {pod}:\n{}", nodes.unwrap_or_default());
        }
        views
    }

    /// A client as the task API has one.
    pub(super) async fn client(&self) -> ClusterConnection {
        let seeds = self.pods().members.into_iter().map(|member| format!("redis://:{PASSWORD}@{}", member.address));
        let client = ClusterClient::builder(seeds).retries(30).build().expect("a client");
        client.get_async_connection().await.expect("connected to the cluster")
    }

    pub(super) async fn write_keys(&self, count: usize) {
        let mut client = self.client().await;
        for key in 0..count {
            client.set::<_, _, ()>(format!("key-{key}"), format!("value-{key}")).await.expect("written");
        }
        // Every replica has them before anything is broken.
        for pod in 0..self.pods.len() {
            eventually("replicas have it all", Duration::from_secs(10), async || self.is_replicated(pod).await).await;
        }
    }

    async fn is_replicated(&self, pod: usize) -> bool {
        let info: String = self.ask(pod, "INFO replication").await;
        let offset = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:")).expect("an offset");
        let mut replicas = info.lines().filter(|line| line.starts_with("slave") && line.contains("ip="));
        replicas.all(|replica| replica.contains(&format!("offset={offset},")))
    }

    /// The keys that are no longer there with their values.
    pub(super) async fn lost_keys(&self, count: usize) -> Vec<usize> {
        let mut client = self.client().await;
        let mut lost = Vec::new();
        for key in 0..count {
            let value: Option<String> = client.get(format!("key-{key}")).await.expect("read");
            if value.as_deref() != Some(&format!("value-{key}")) {
                lost.push(key);
            }
        }
        lost
    }
}

pub(super) async fn connect(address: SocketAddr) -> redis::RedisResult<MultiplexedConnection> {
    // For a slow disk: Redis answers nobody while it syncs its nodes.conf.
    let patience = Some(Duration::from_secs(10));
    let config = AsyncConnectionConfig::new().set_connection_timeout(patience).set_response_timeout(patience);
    let client = Client::open(format!("redis://:{PASSWORD}@{address}"))?;
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// Waits for a condition.
pub(super) async fn eventually(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
