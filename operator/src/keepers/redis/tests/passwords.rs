//! A password is changed, against real servers.

use std::net::SocketAddr;

use super::{
    servers::{PASSWORD, Servers, eventually, no_redis},
    shape::THREE,
};
use crate::keepers::redis::{Connections, Passwords, passwords, reconcile};

const NEXT: &str = "the-next-password";

fn connections(former: Option<&str>) -> Connections {
    let mut connections = Connections::default();
    connections.expect(Passwords { current: NEXT.to_owned(), former: former.map(str::to_owned) });
    connections
}

async fn takes(address: SocketAddr, password: &str) -> bool {
    let client = redis::Client::open(format!("redis://:{password}@{address}")).expect("a client");
    client.get_multiplexed_async_connection().await.is_ok()
}

#[tokio::test]
async fn both_passwords_are_taken_until_everybody_has_the_next() {
    if no_redis() {
        return;
    }
    let mut servers = Servers::start(6, 3).await;
    let (_, _) = servers.heal(&THREE).await;
    servers.write_keys(100).await;
    let all = |servers: &Servers| (0..6).map(|pod| servers.address(pod)).collect::<Vec<_>>();
    let ready = |servers: &Servers| (0..6).all(|pod| servers.script(pod, "redis-ready").0);
    assert!(ready(&servers), "before");

    // The files come first, the nodes are told later: nobody takes the next one yet.
    servers.write_passwords(NEXT, Some(PASSWORD));
    assert!(ready(&servers), "the probes take whichever a node takes");
    let mut both = connections(Some(PASSWORD));
    reconcile(&mut both, &servers.pods(), &THREE).await.expect("looked after with the former");
    for _ in 0..2 {
        passwords::admit(&mut both, &all(&servers)).await.expect("told");
    }
    for address in all(&servers) {
        assert!(takes(address, PASSWORD).await && takes(address, NEXT).await, "{address} takes both");
    }
    assert_eq!(servers.lost_keys(100).await, Vec::<usize>::new());

    // A pod starts again in the middle, and replicates with the next.
    servers.restart([1, 4]).await;
    servers.heal(&THREE).await;
    eventually("every replica is in sync", std::time::Duration::from_secs(20), async || ready(&servers)).await;
    assert!(takes(servers.address(1), PASSWORD).await && takes(servers.address(1), NEXT).await);

    passwords::dismiss(&mut both, &all(&servers)).await.expect("told");
    servers.write_passwords(NEXT, None);
    for address in all(&servers) {
        assert!(!takes(address, PASSWORD).await && takes(address, NEXT).await, "{address} takes the next alone");
    }
    assert!(ready(&servers), "after");
    let health = reconcile(&mut connections(None), &servers.pods(), &THREE).await.expect("looked after");
    assert_eq!(health.slots_assigned, 16384);
}
