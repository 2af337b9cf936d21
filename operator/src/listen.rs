//! Opens ports, on kernels without IPv6, too.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::net::{TcpListener, TcpSocket};

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Opens a port. `[::]` is every address that the kernel has: without IPv6, those of IPv4.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let (socket, address) = match (TcpSocket::new_v6(), address) {
        (Err(_), SocketAddr::V6(every)) if every.ip().is_unspecified() => {
            (TcpSocket::new_v4()?, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), every.port()))
        }
        (socket, SocketAddr::V6(_)) => (socket?, address),
        (_, SocketAddr::V4(_)) => (TcpSocket::new_v4()?, address),
    };
    // A process that has just ended does not keep the next from its port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_address_has_those_of_ipv4() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    }
}
