//! A node of a small session store stays within its pod's memory, whatever is written to it.

use std::{
    fs::read_to_string,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use redis::{Pipeline, RedisError, aio::MultiplexedConnection};
use serde_json::json;
use taskplatform_blueprint::{Facts, Kind, Platform, blueprint};
use taskplatform_crds::TaskPlatform;

use super::servers::{Servers, connect, eventually, no_redis};
use crate::keepers::redis::Target;

const MIB: u64 = 1 << 20;
const MEMORY: u64 = 64 * MIB;
const ONE_SHARD: Target = Target { shards: 1, replicas_per_shard: 1 };

/// The sessions' redis.conf where each node has [`MEMORY`].
fn configuration() -> String {
    let document = json!({
        "apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform", "metadata": {"name": "tasks"},
        "spec": {"sessions": {"resources": {"cpu": "100m", "memory": MEMORY.to_string()}}},
    });
    let platform = Platform::new(&TaskPlatform::parse(document).expect("well-formed")).expect("buildable");
    let objects = blueprint(&platform, &Facts::default());
    let map = objects.iter().find(|object| object.kind() == Kind::ConfigMap && object.name() == "tasks-sessions");
    map.expect("a ConfigMap").value()["data"]["redis.conf"].as_str().expect("a text").to_owned()
}

/// Looks at the memory of a process all the time.
struct Watch {
    stop: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Watch {
    fn begin(process: u32) -> Self {
        let (stop, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = thread::spawn({
            let (stop, peak) = (stop.clone(), peak.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    peak.fetch_max(resident(process), Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(5));
                }
            }
        });
        Self { stop, peak, thread }
    }

    /// The most that it was.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only looks");
        self.peak.load(Ordering::Relaxed)
    }
}

/// What a process has in memory, and what its children have that it does not share with them: what a pod is charged for.
fn resident(process: u32) -> u64 {
    let children = read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    let copied = children.split_whitespace().filter_map(|child| child.parse().ok()).map(|child| {
        let memory = memory(child);
        field(&memory, "Private_Clean") + field(&memory, "Private_Dirty")
    });
    field(&memory(process), "Rss") + copied.sum::<u64>()
}

fn memory(process: u32) -> String {
    read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default()
}

/// Bytes of a line such as `Rss:   1234 kB`.
fn field(memory: &str, name: &str) -> u64 {
    let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() << 10
}

/// Writes sessions to one node.
struct Writer {
    connection: MultiplexedConnection,
    written: usize,
}

impl Writer {
    const BATCH: usize = 100;
    const SESSION: usize = 400;

    async fn to(servers: &Servers, pod: usize) -> Self {
        Self { connection: connect(servers.address(pod)).await.expect("connected"), written: 0 }
    }

    /// Few slots: Redis 8 takes 2.5 KiB for each that has a key.
    fn key(number: usize) -> String {
        format!("session:{{{}}}:{number}", number % 500)
    }

    async fn write(&mut self, first: usize) -> Result<(), RedisError> {
        let mut sets = Pipeline::new();
        for number in first..first + Self::BATCH {
            self.written += 1;
            let value = format!("{:0>width$}", self.written, width = Self::SESSION);
            sets.cmd("SET").arg(Self::key(number)).arg(value).arg("EX").arg(86400).ignore();
        }
        sets.exec_async(&mut self.connection).await
    }

    /// Adds sessions until one is refused, and says how many there are.
    async fn fill(&mut self) -> usize {
        for first in (0..).step_by(Self::BATCH) {
            if let Err(error) = self.write(first).await {
                assert!(error.to_string().contains("used memory > 'maxmemory'"), "{error}");
                return first;
            }
        }
        unreachable!("it is never full")
    }

    async fn delete(&mut self, numbers: std::ops::Range<usize>) {
        let mut deletions = Pipeline::new();
        for number in numbers {
            deletions.cmd("DEL").arg(Self::key(number)).ignore();
        }
        deletions.exec_async(&mut self.connection).await.expect("deleted");
    }

    /// Renews the first so many sessions until it is enough, with a pause after every hundred.
    async fn renew(&mut self, sessions: usize, pause: Duration, enough: impl Fn(u64) -> bool) {
        let mut bytes = 0;
        for first in (0..sessions - Self::BATCH).step_by(Self::BATCH).cycle() {
            if enough(bytes) {
                return;
            }
            self.write(first).await.expect("a session is renewed");
            bytes += (Self::BATCH * Self::SESSION) as u64;
            tokio::time::sleep(pause).await;
        }
    }
}

async fn statistic(servers: &Servers, pod: usize, name: &str) -> u64 {
    let info: String = servers.ask(pod, "INFO").await;
    let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.parse().ok());
    value.expect("a statistic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_session_store_stays_within_its_memory() {
    if no_redis() {
        return;
    }
    let mut servers = Servers::start_configured(2, &configuration()).await;
    servers.heal(&ONE_SHARD).await;
    let (master, replica) = (0, 1);
    let watch = Watch::begin(servers.process(master));

    let mut writer = Writer::to(&servers, master).await;
    let sessions = writer.fill().await;
    println!("{} MiB of sessions, then one was refused", (sessions * Writer::SESSION) as u64 / MIB);
    writer.delete(sessions * 9 / 10..sessions).await;
    let sessions = sessions * 9 / 10;

    // A replica copies everything while some 4 000 sessions are renewed each second.
    let copies = statistic(&servers, master, "sync_full").await;
    servers.lose_volume([replica]).await;
    let copy = Watch::begin(servers.process(replica));
    let healed = AtomicBool::new(false);
    let heal = async {
        servers.heal(&ONE_SHARD).await;
        healed.store(true, Ordering::Relaxed);
    };
    tokio::join!(heal, writer.renew(sessions, Duration::from_millis(20), |_| healed.load(Ordering::Relaxed)));
    let copies = statistic(&servers, master, "sync_full").await - copies;
    assert!((1..=3).contains(&copies), "the copy began {copies} times");

    // It hangs, and what it does not read piles up, while the append-only file is rewritten so slowly that everything changes.
    servers.signal(replica, "STOP");
    servers.ask::<()>(master, "CONFIG SET rdb-key-save-delay 200").await;
    servers.ask::<String>(master, "BGREWRITEAOF").await;
    writer.renew(sessions, Duration::ZERO, |bytes| bytes > 40 * MIB).await;
    servers.signal(replica, "CONT");
    eventually("the replica is back", Duration::from_secs(20), async || {
        servers.ask::<String>(replica, "INFO replication").await.contains("master_link_status:up")
    })
    .await;

    let (master, replica) = (watch.end(), copy.end());
    println!("the master had {} MiB in memory, the replica {} MiB", master / MIB, replica / MIB);
    assert!(master < MEMORY && replica < MEMORY, "{master} and {replica} bytes");
    assert!(master.min(replica) > 20 * MIB, "it was looked at");
}
