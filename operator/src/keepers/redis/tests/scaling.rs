//! How a cluster grows and shrinks, against real servers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use redis::AsyncCommands;

use super::{
    servers::{PASSWORD, Servers, connections, eventually, no_redis},
    shape::{THREE, assert_shape, assert_spread, masters, pod},
};
use crate::keepers::redis::{Target, reconcile, reconcile_within};

#[tokio::test]
async fn replicas_are_added_and_removed() {
    if no_redis() {
        return;
    }
    let mut servers = Servers::start(6, 3).await;
    servers.heal(&THREE).await;
    servers.write_keys(200).await;
    servers.add(3).await;
    let six = Target { shards: 3, replicas_per_shard: 2 };
    let (health, took) = servers.heal(&six).await;
    println!("replicas 1 -> 2 in {took:.1?}");
    assert_shape(&health, &six);
    assert_spread(&health, 3);

    // A pod that will be surplus is a master when the target shrinks.
    let surplus = health.shards[0].replicas.iter().map(|replica| pod(&replica.pod)).find(|pod| *pod >= 6);
    let surplus = surplus.unwrap_or(6);
    let mut asked = None::<Instant>;
    eventually("pod is master", Duration::from_secs(30), async || {
        // One that misses its votes gives up after 5 s.
        if asked.is_none_or(|asked| asked.elapsed() > Duration::from_secs(6)) {
            servers.ask::<()>(surplus, "CLUSTER FAILOVER").await;
            asked = Some(Instant::now());
        }
        servers.ask::<String>(surplus, "INFO replication").await.contains("role:master")
    })
    .await;
    // Another surplus pod is lost, and finds no place to come back to.
    servers.kill(if surplus == 8 { 7 } else { 8 });
    let start = Instant::now();
    let health = loop {
        let health = reconcile(&mut connections(PASSWORD), &servers.pods(), &THREE).await.expect("reconciled");
        if health.surplus_drained {
            break health;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{health:#?}");
    };
    println!("surplus drained in {:.1?}", start.elapsed());
    assert!(masters(&health).iter().all(|master| *master < 6), "{health:#?}");
    servers.shrink(6);
    let (health, took) = servers.heal(&THREE).await;
    println!("replicas 2 -> 1, dead nodes forgotten in {took:.1?}");
    assert_shape(&health, &THREE);
    assert_eq!(servers.lost_keys(200).await, Vec::<usize>::new());
    let nodes: String = servers.ask(0, "CLUSTER NODES").await;
    assert_eq!(nodes.lines().count(), 6, "{nodes}");
}

/// How many keys are read all the time while they move.
const KEYS: usize = 5000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_is_added_under_load_with_crashes() {
    if no_redis() {
        return;
    }
    let mut servers = Servers::start(6, 3).await;
    servers.heal(&THREE).await;
    servers.write_keys(KEYS).await;
    servers.add(2).await;
    let four = Target { shards: 4, replicas_per_shard: 1 };

    let stop = Arc::new(AtomicBool::new(false));
    let operations = Arc::new(AtomicUsize::new(0));
    let mut client = servers.client().await;
    let load = tokio::spawn({
        let (stop, operations) = (stop.clone(), operations.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                let number = operations.fetch_add(1, Ordering::Relaxed);
                let value: Option<String> = client.get(format!("key-{}", number % KEYS)).await.expect("read");
                assert_eq!(value, Some(format!("value-{}", number % KEYS)));
                client.set::<_, _, ()>(format!("live-{}", number % 1000), number).await.expect("written");
                assert_eq!(
                    client.get::<_, Option<usize>>(format!("live-{}", number % 1000)).await.expect("read"),
                    Some(number)
                );
            }
        }
    });
    let start = Instant::now();
    let mut interrupted = 0;
    for pause in [700, 900, 1100, 300, 300, 300] {
        let pods = servers.pods();
        let mut connections = connections(PASSWORD);
        let attempt = reconcile_within(&mut connections, &pods, &four, Duration::from_secs(10));
        interrupted += usize::from(tokio::time::timeout(Duration::from_millis(pause), attempt).await.is_err());
    }
    let (health, _) = servers.heal(&four).await;
    println!(
        "shards 3 -> 4 in {:.1?} with {interrupted} crashes, under {} operations",
        start.elapsed(),
        operations.load(Ordering::Relaxed)
    );
    stop.store(true, Ordering::Relaxed);
    load.await.expect("no operation failed");
    assert_shape(&health, &four);
    assert_eq!(servers.lost_keys(KEYS).await, Vec::<usize>::new());
    for pod in 0..8 {
        let nodes: String = servers.ask(pod, "CLUSTER NODES").await;
        assert!(!nodes.contains('['), "an open slot is left: {nodes}");
    }
}

#[tokio::test]
async fn an_open_slot_whose_source_failed_over_is_finished() {
    if no_redis() {
        return;
    }
    let servers = Servers::start(6, 3).await;
    let (health, _) = servers.heal(&THREE).await;
    servers.write_keys(500).await;
    let (from, to) = (masters(&health)[0], masters(&health)[1]);
    let heir = pod(&health.shards[0].replicas[0].pod);
    let id = async |pod| servers.ask::<String>(pod, "CLUSTER MYID").await;
    for slot in [5, 6, 7] {
        servers.ask::<()>(to, &format!("CLUSTER SETSLOT {slot} IMPORTING {}", id(from).await)).await;
    }
    servers.ask::<()>(from, &format!("CLUSTER SETSLOT 5 MIGRATING {}", id(to).await)).await;
    servers.ask::<()>(heir, "CLUSTER FAILOVER").await;
    let (health, _) = servers.heal(&THREE).await;
    assert_shape(&health, &THREE);
    assert_eq!(servers.lost_keys(500).await, Vec::<usize>::new());
    for pod in 0..6 {
        let nodes: String = servers.ask(pod, "CLUSTER NODES").await;
        assert!(!nodes.contains('['), "an open slot is left: {nodes}");
    }
}
