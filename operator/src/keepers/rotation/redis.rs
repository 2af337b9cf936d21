//! Tells the nodes of a Redis Cluster of passwords.

use taskplatform_blueprint::RedisCluster;

use crate::{
    describe,
    keepers::{
        Brief,
        redis::{self, Connections},
        redis_cluster,
    },
};

const CLUSTERS: [RedisCluster; 2] = [RedisCluster::Cache, RedisCluster::Sessions];

/// The nodes take both passwords; when all do, they use the one in force among themselves.
pub(super) async fn admit(brief: &Brief, keys: &[&str]) -> Result<(), String> {
    for which in CLUSTERS.into_iter().filter(|which| keys.contains(&which.password())) {
        let Some((mut connections, addresses)) = nodes(brief, which) else { continue };
        redis::passwords::admit(&mut connections, &addresses).await.map_err(|error| describe(&error))?;
    }
    Ok(())
}

/// The nodes take the password in force alone.
pub(super) async fn dismiss(brief: &Brief, keys: &[&str]) -> Result<(), String> {
    for which in CLUSTERS.into_iter().filter(|which| keys.contains(&which.password())) {
        let Some((mut connections, addresses)) = nodes(brief, which) else { continue };
        redis::passwords::dismiss(&mut connections, &addresses).await.map_err(|error| describe(&error))?;
    }
    Ok(())
}

fn nodes(brief: &Brief, which: RedisCluster) -> Option<(Connections, Vec<std::net::SocketAddr>)> {
    let mut connections = Connections::default();
    connections.expect(redis_cluster::passwords(brief, which)?);
    let pods = brief.snapshot.pods(taskplatform_blueprint::Part::component(&which));
    let addresses = pods.filter_map(|pod| Some(which.endpoint().at(pod.address()?)));
    Some((connections, addresses.collect()))
}
