//! Which passwords the nodes of a cluster take.

use std::net::SocketAddr;

use redis::{Cmd, RedisError};

use super::Connections;

/// A node cannot be told of a password.
#[derive(Debug, thiserror::Error)]
#[error("the Redis node at {address} cannot be told of a password")]
pub(crate) struct Error {
    address: SocketAddr,
    source: RedisError,
}

/// Every node takes the password in force beside the one before. When all do, each uses it towards its master.
pub(crate) async fn admit(connections: &mut Connections, nodes: &[SocketAddr]) -> Result<(), Error> {
    let current = connections.password().to_owned();
    for node in nodes {
        tell(connections, *node, redis::cmd("ACL").arg("SETUSER").arg("default").arg(format!(">{current}"))).await?;
    }
    for node in nodes {
        tell(connections, *node, redis::cmd("CONFIG").arg("SET").arg("masterauth").arg(&current)).await?;
    }
    Ok(())
}

/// Every node takes the password in force alone. Connections that are open stay so.
pub(crate) async fn dismiss(connections: &mut Connections, nodes: &[SocketAddr]) -> Result<(), Error> {
    let current = connections.password().to_owned();
    for node in nodes {
        let alone =
            redis::cmd("ACL").arg("SETUSER").arg("default").arg("resetpass").arg(format!(">{current}")).to_owned();
        tell(connections, *node, &alone).await?;
    }
    Ok(())
}

async fn tell(connections: &mut Connections, node: SocketAddr, command: &Cmd) -> Result<(), Error> {
    connections.command(node, command).await.map_err(|source| Error { address: node, source })
}
