//! What a cluster lives through, against real servers.

use std::time::{Duration, Instant};

use super::{
    servers::{PASSWORD, Servers, connections, eventually, no_redis},
    shape::{THREE, assert_shape, assert_spread, masters, pod},
};
use crate::keepers::redis::{State, reconcile};

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
    let health = reconcile(&mut connections(PASSWORD), &servers.pods(), &THREE).await.expect("reconciled");
    let State::Degraded { message } = &health.state else { panic!("{health:#?}") };
    assert!(message.contains("0-5461") && message.contains("PersistentVolumeClaim"), "{message}");
    assert_eq!(health.slots_assigned, 16384 - 5462);

    servers.lose_volume([master]).await;
    let start = Instant::now();
    let health = loop {
        let health = reconcile(&mut connections(PASSWORD), &servers.pods(), &THREE).await.expect("reconciled");
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
        let health = reconcile(&mut connections(PASSWORD), &servers.pods(), &THREE).await.expect("reconciled");
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

#[tokio::test]
async fn a_lost_node_that_held_most_masters_is_not_waited_for() {
    if no_redis() {
        return;
    }
    let servers = Servers::start_with_timeout(6, 2, 5000).await;
    let (health, _) = servers.heal(&THREE).await;
    servers.write_keys(200).await;
    let on_node = |node: usize| masters(&health).into_iter().filter(|master| master % 2 == node).count();
    let node = usize::from(on_node(1) > on_node(0));
    assert_eq!(on_node(node), 2, "{health:#?}");
    let lost: Vec<usize> = (0..6).filter(|pod| pod % 2 == node).collect();
    for pod in &lost {
        servers.signal(*pod, "STOP");
    }
    let mut pods = servers.pods();
    let start = Instant::now();
    let health = reconcile(&mut connections(PASSWORD), &pods, &THREE).await.expect("reconciled");
    assert!(health.slots_assigned < 16384, "nobody says that the node is lost: {health:#?}");
    for pod in &lost {
        pods.members[*pod].is_lost = true;
    }
    let heal = eventually("the replicas serve", Duration::from_secs(30), async || {
        let health = reconcile(&mut connections(PASSWORD), &pods, &THREE).await.expect("reconciled");
        health.slots_assigned == 16384
    });
    let left: Vec<usize> = (0..6).filter(|pod| pod % 2 != node).collect();
    let all_say = async |question: &str, answer: &str| {
        for pod in &left {
            if !servers.ask::<String>(*pod, question).await.contains(answer) {
                return false;
            }
        }
        true
    };
    let watch = async {
        let patience = Duration::from_secs(30);
        eventually("they are masters", patience, async || all_say("INFO replication", "role:master").await).await;
        let since = Instant::now();
        eventually("they take commands", patience, async || all_say("CLUSTER INFO", "cluster_state:ok").await).await;
        since.elapsed()
    };
    let ((), held_up) = tokio::join!(heal, watch);
    println!("two of three masters' node lost: served after {:.1?}, {held_up:.1?} of them held up", start.elapsed());
    assert!(held_up < Duration::from_secs(4), "Redis itself holds them up for 5 s: {held_up:?}");
    for pod in &left {
        let timeout: Vec<String> = servers.ask(*pod, "CONFIG GET cluster-node-timeout").await;
        assert_eq!(timeout[1], "5000");
    }
    for pod in &lost {
        servers.signal(*pod, "CONT");
    }
    let (health, _) = servers.heal(&THREE).await;
    assert_shape(&health, &THREE);
    assert_eq!(servers.lost_keys(200).await, Vec::<usize>::new());
}
