//! What happens to a cluster in its life, against real servers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use redis::AsyncCommands;

use super::servers::{PASSWORD, Servers, eventually, no_redis};
use crate::redis::{Error, Health, State, Target, reconcile, reconcile_within};

const THREE: Target = Target { shards: 3, replicas_per_shard: 1 };

fn pod(name: &str) -> usize {
    name.rsplit('-').next().and_then(|ordinal| ordinal.parse().ok()).expect("an ordinal")
}

fn masters(health: &Health) -> Vec<usize> {
    health.shards.iter().map(|shard| pod(&shard.master)).collect()
}

fn assert_shape(health: &Health, target: &Target) {
    assert_eq!(health.shards.len(), usize::from(target.shards), "{health:#?}");
    for shard in &health.shards {
        assert_eq!(shard.replicas.len(), usize::from(target.replicas_per_shard), "{health:#?}");
        assert!(shard.replicas.iter().all(|replica| replica.in_sync), "{health:#?}");
        assert!(shard.slots.abs_diff(16384 / target.shards) <= 1, "{health:#?}");
    }
    assert!(!health.surplus_drained, "there is no surplus");
}

/// With pods dealt out to three Kubernetes nodes in turn, the loss of one leaves a majority and a copy of everything.
fn assert_spread(health: &Health, kubernetes_nodes: usize) {
    let node = |name: &str| pod(name) % kubernetes_nodes;
    for lost in 0..kubernetes_nodes {
        let left = health.shards.iter().filter(|shard| node(&shard.master) != lost).count();
        assert!(left > health.shards.len() / 2, "{health:#?}");
        for shard in &health.shards {
            let copies = shard.replicas.iter().map(|replica| &replica.pod).chain([&shard.master]);
            assert!(copies.into_iter().any(|copy| node(copy) != lost), "{health:#?}");
        }
    }
}

#[tokio::test]
async fn forms_a_cluster_and_then_leaves_it_alone() {
    if no_redis() {
        return;
    }
    let servers = Servers::start(6, 3).await;
    let (health, took) = servers.heal(&THREE).await;
    println!("formed 3 x (1 + 1) in {took:.1?}");
    assert_shape(&health, &THREE);
    assert_spread(&health, 3);
    let before: String = servers.ask(0, "CLUSTER NODES").await;
    let (again, took) = servers.heal(&THREE).await;
    println!("looked at a healthy cluster in {took:.1?}");
    assert_eq!(masters(&again), masters(&health));
    let after: String = servers.ask(0, "CLUSTER NODES").await;
    let epochs = |nodes: &str| nodes.lines().map(|line| line.split(' ').nth(6).map(str::to_owned)).collect::<Vec<_>>();
    assert_eq!(epochs(&before), epochs(&after));
}

#[tokio::test]
async fn forms_a_single_node_and_a_cluster_without_replicas() {
    if no_redis() {
        return;
    }
    let mut servers = Servers::start(1, 1).await;
    let one = Target { shards: 1, replicas_per_shard: 0 };
    assert_shape(&servers.heal(&one).await.0, &one);
    servers.write_keys(50).await;
    servers.add(2).await;
    let three = Target { shards: 3, replicas_per_shard: 0 };
    assert_shape(&servers.heal(&three).await.0, &three);
    assert_eq!(servers.lost_keys(50).await, Vec::<usize>::new());
}

#[tokio::test]
async fn a_pod_comes_back_with_another_address() {
    if no_redis() {
        return;
    }
    let mut servers = Servers::start(6, 3).await;
    let (health, _) = servers.heal(&THREE).await;
    servers.write_keys(200).await;
    for restarted in [pod(&health.shards[0].replicas[0].pod), masters(&health)[1]] {
        servers.restart([restarted]).await;
        let (health, took) = servers.heal(&THREE).await;
        println!("pod {restarted} back under another address: healthy in {took:.1?}");
        assert_shape(&health, &THREE);
        assert_eq!(servers.lost_keys(200).await, Vec::<usize>::new());
    }
}

#[tokio::test]
async fn all_pods_come_back_at_once_with_other_addresses() {
    if no_redis() {
        return;
    }
    let mut servers = Servers::start_with_timeout(6, 3, 5000).await;
    servers.heal(&THREE).await;
    servers.write_keys(2000).await;
    servers.restart(0..6).await;
    let (health, took) = servers.heal(&THREE).await;
    println!("all pods back under other addresses: healthy in {took:.1?}");
    assert_shape(&health, &THREE);
    assert_eq!(servers.lost_keys(2000).await, Vec::<usize>::new());
}

#[tokio::test]
async fn two_islands_become_one_cluster() {
    if no_redis() {
        return;
    }
    let servers = Servers::start(6, 3).await;
    // Pods 0 to 2 met each other and share all slots; so did pods 3 to 5.
    for island in [[0, 1, 2], [3, 4, 5]] {
        for (index, pod) in island.into_iter().enumerate() {
            let ip = servers.address(island[0]).ip();
            servers.ask::<()>(pod, &format!("CLUSTER MEET {ip} {}", servers.address(pod).port())).await;
            let (start, end) = [(0, 5460), (5461, 10922), (10923, 16383)][index];
            servers.ask::<()>(pod, &format!("CLUSTER ADDSLOTSRANGE {start} {end}")).await;
        }
    }
    eventually("the second island serves", Duration::from_secs(20), async || {
        servers.ask::<String>(3, "CLUSTER INFO").await.contains("cluster_state:ok")
    })
    .await;
    servers.ask::<()>(3, "SET {06S} kept").await;
    let (health, took) = servers.heal(&THREE).await;
    println!("two islands joined in {took:.1?}");
    assert_shape(&health, &THREE);
    let value: Option<String> = servers.client().await.get("{06S}").await.expect("read");
    assert_eq!(value.as_deref(), Some("kept"), "the island with keys keeps its slots");
}

#[tokio::test]
async fn clusters_that_both_hold_keys_are_never_joined() {
    if no_redis() {
        return;
    }
    let servers = Servers::start(2, 1).await;
    for pod in 0..2 {
        servers.ask::<()>(pod, "CLUSTER ADDSLOTSRANGE 0 16383").await;
        eventually("serves", Duration::from_secs(10), async || {
            servers.ask::<String>(pod, "CLUSTER INFO").await.contains("cluster_state:ok")
        })
        .await;
        servers.ask::<()>(pod, "SET key value").await;
    }
    let target = Target { shards: 2, replicas_per_shard: 0 };
    let health = reconcile(&servers.pods(), &target, PASSWORD).await.expect("reconciled");
    let State::Degraded { message } = health.state else { panic!("{health:#?}") };
    assert!(message.contains("belong to different clusters"), "{message}");
    for pod in 0..2 {
        assert_eq!(servers.ask::<i64>(pod, "DBSIZE").await, 1);
        assert_eq!(servers.ask::<String>(pod, "CLUSTER NODES").await.lines().count(), 1);
    }
}

#[tokio::test]
async fn an_interrupted_forming_goes_on() {
    if no_redis() {
        return;
    }
    let servers = Servers::start(6, 3).await;
    // Whatever moment the operator is stopped at, the next one goes on from there.
    for pause in [30, 150, 400, 700, 1000] {
        let pods = servers.pods();
        let attempt = reconcile_within(&pods, &THREE, PASSWORD, Duration::from_secs(10));
        let _ = tokio::time::timeout(Duration::from_millis(pause), attempt).await;
    }
    assert_shape(&servers.heal(&THREE).await.0, &THREE);
}

#[tokio::test]
async fn a_half_assigned_cluster_is_completed() {
    if no_redis() {
        return;
    }
    let servers = Servers::start(6, 3).await;
    for pod in 1..6 {
        let address = servers.address(0);
        servers.ask::<()>(pod, &format!("CLUSTER MEET {} {}", address.ip(), address.port())).await;
    }
    servers.ask::<()>(0, "CLUSTER ADDSLOTSRANGE 0 5461").await;
    servers.ask::<()>(4, "CLUSTER ADDSLOTSRANGE 7000 7099").await;
    let (health, _) = servers.heal(&THREE).await;
    assert_shape(&health, &THREE);
    assert!(masters(&health).contains(&4));
}

#[tokio::test]
async fn lost_volumes_are_refilled() {
    if no_redis() {
        return;
    }
    let mut servers = Servers::start(6, 3).await;
    let (health, _) = servers.heal(&THREE).await;
    servers.write_keys(200).await;
    let replica = pod(&health.shards[0].replicas[0].pod);
    servers.lose_volume([replica]).await;
    let (health, took) = servers.heal(&THREE).await;
    println!("a replica's volume lost: healthy in {took:.1?}");
    assert_shape(&health, &THREE);

    let master = masters(&health)[1];
    servers.lose_volume([master]).await;
    let (health, took) = servers.heal(&THREE).await;
    println!("a master's volume lost: healthy in {took:.1?}");
    assert_shape(&health, &THREE);
    assert_eq!(servers.lost_keys(200).await, Vec::<usize>::new());
    let nodes: String = servers.ask(0, "CLUSTER NODES").await;
    assert_eq!(nodes.lines().count(), 6, "the dead ids are forgotten: {nodes}");
}

#[tokio::test]
async fn replicas_take_over_where_most_masters_lost_their_volumes() {
    if no_redis() {
        return;
    }
    let mut servers = Servers::start(6, 3).await;
    let (health, _) = servers.heal(&THREE).await;
    servers.write_keys(200).await;
    servers.lose_volume(masters(&health).into_iter().take(2)).await;
    let (health, took) = servers.heal(&THREE).await;
    println!("two of three masters' volumes lost: healthy in {took:.1?}");
    assert_shape(&health, &THREE);
    assert_eq!(servers.lost_keys(200).await, Vec::<usize>::new());
}

#[tokio::test]
async fn a_shard_that_lost_every_copy_is_served_anew() {
    if no_redis() {
        return;
    }
    let mut servers = Servers::start(6, 3).await;
    let (health, _) = servers.heal(&THREE).await;
    servers.write_keys(200).await;
    let shard = &health.shards[0];
    let (master, replica) = (pod(&shard.master), pod(&shard.replicas[0].pod));
    servers.kill(master);
    servers.kill(replica);
    let health = reconcile(&servers.pods(), &THREE, PASSWORD).await.expect("reconciled");
    let State::Degraded { message } = &health.state else { panic!("{health:#?}") };
    assert!(message.contains("0-5461") && message.contains("PersistentVolumeClaim"), "{message}");
    assert_eq!(health.slots_assigned, 16384 - 5462);

    servers.lose_volume([master]).await;
    let start = Instant::now();
    let health = loop {
        let health = reconcile(&servers.pods(), &THREE, PASSWORD).await.expect("reconciled");
        if !matches!(health.state, State::Working { .. }) || start.elapsed() > Duration::from_secs(30) {
            break health;
        }
    };
    assert!(matches!(health.state, State::Degraded { .. }), "the replica may still come back: {health:#?}");
    assert_eq!(health.slots_assigned, 16384 - 5462);

    servers.lose_volume([replica]).await;
    let (health, took) = servers.heal(&THREE).await;
    println!("a whole shard lost: served anew in {took:.1?}");
    assert_shape(&health, &THREE);
    let lost = servers.lost_keys(200).await.len();
    assert!((30..110).contains(&lost), "a third of the keys, no more: {lost}");
}

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
    let start = Instant::now();
    let health = loop {
        let health = reconcile(&servers.pods(), &THREE, PASSWORD).await.expect("reconciled");
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
        let attempt = reconcile_within(&pods, &four, PASSWORD, Duration::from_secs(10));
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

#[tokio::test]
async fn a_master_that_fails_is_replaced_and_comes_back_as_replica() {
    if no_redis() {
        return;
    }
    let mut servers = Servers::start(6, 3).await;
    let (health, _) = servers.heal(&THREE).await;
    servers.write_keys(100).await;
    let master = masters(&health)[0];
    servers.kill(master);
    let start = Instant::now();
    eventually("the replica serves", Duration::from_secs(20), async || {
        let health = reconcile(&servers.pods(), &THREE, PASSWORD).await.expect("reconciled");
        health.slots_assigned == 16384 && matches!(health.state, State::Degraded { .. })
    })
    .await;
    println!("failover after {:.1?}", start.elapsed());
    assert_eq!(servers.lost_keys(100).await, Vec::<usize>::new());
    servers.restart([master]).await;
    let (health, _) = servers.heal(&THREE).await;
    assert_shape(&health, &THREE);
    assert_spread(&health, 3);
}

#[tokio::test]
async fn a_wrong_password_is_an_error_that_says_so() {
    if no_redis() {
        return;
    }
    let servers = Servers::start(1, 1).await;
    let error = reconcile(&servers.pods(), &THREE, "wrong").await.expect_err("refused");
    assert!(matches!(&error, Error::Refused { pod, .. } if pod == "tasks-cache-0"), "{error:?}");
}

#[tokio::test]
async fn the_images_scripts_hand_over_and_tell_readiness() {
    if no_redis() {
        return;
    }
    let mut servers = Servers::start(6, 3).await;
    let (ready, why) = servers.script(0, "redis-ready");
    assert!(!ready && why.contains("cluster_state is fail"), "no cluster yet: {why}");
    let (health, _) = servers.heal(&THREE).await;
    servers.write_keys(100).await;
    for pod in 0..6 {
        let (ready, why) = servers.script(pod, "redis-ready");
        assert!(ready, "pod {pod}: {why}");
    }
    let (master, replica) = (masters(&health)[0], pod(&health.shards[0].replicas[0].pod));
    let start = Instant::now();
    assert!(servers.script(master, "redis-pre-stop").0);
    println!("handed over in {:.1?}", start.elapsed());
    assert!(servers.ask::<String>(master, "INFO replication").await.contains("role:slave"));
    assert!(servers.ask::<String>(replica, "INFO replication").await.contains("role:master"));

    // It is a replica now, whose master goes away without a word: not ready, and nothing to hand over.
    servers.kill(replica);
    eventually("the link is down", Duration::from_secs(5), async || !servers.script(master, "redis-ready").0).await;
    assert!(servers.script(replica, "redis-pre-stop").0, "the hook never fails");
    servers.restart([replica]).await;
    servers.heal(&THREE).await;

    // A fresh node that the cluster has not taken in is not ready.
    servers.lose_volume([replica]).await;
    let (ready, why) = servers.script(replica, "redis-ready");
    assert!(!ready, "{why}");
    servers.heal(&THREE).await;
    assert!(servers.script(replica, "redis-ready").0);
    assert_eq!(servers.lost_keys(100).await, Vec::<usize>::new());
}
