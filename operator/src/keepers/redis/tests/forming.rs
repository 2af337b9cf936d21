//! How a cluster comes to be, against real servers.

use std::time::Duration;

use redis::AsyncCommands;

use super::{
    servers::{PASSWORD, Servers, connections, eventually, no_redis},
    shape::{THREE, assert_shape, assert_spread, masters},
};
use crate::keepers::redis::{Error, State, Target, reconcile, reconcile_within};

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
    let health = reconcile(&mut connections(PASSWORD), &servers.pods(), &target).await.expect("reconciled");
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
        let mut connections = connections(PASSWORD);
        let attempt = reconcile_within(&mut connections, &pods, &THREE, Duration::from_secs(10));
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
async fn a_wrong_password_is_an_error_that_says_so() {
    if no_redis() {
        return;
    }
    let servers = Servers::start(1, 1).await;
    let error = reconcile(&mut connections("wrong"), &servers.pods(), &THREE).await.expect_err("refused");
    assert!(matches!(&error, Error::Refused { pod, .. } if pod == "tasks-cache-0"), "{error:?}");
}
