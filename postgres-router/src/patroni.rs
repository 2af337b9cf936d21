//! Asks Patroni on one member how it is.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Patroni answers from memory and one short query.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Its longest answer is the list of its members.
const MOST_BYTES: u64 = 256 * 1024;

/// A member does not say how it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("Patroni on {address} does not answer within {} s", TIMEOUT.as_secs())]
    Timeout { address: SocketAddr },
    #[error("Patroni on {address} cannot be reached")]
    Io { address: SocketAddr, source: io::Error },
    #[error("Patroni on {address} answers what is not understood: {answer}")]
    Answer { address: SocketAddr, answer: String },
}

/// The ports of each member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) postgresql: u16,
    pub(crate) patroni: u16,
}

/// What a member says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It holds the lead and takes writes.
    Leads { timeline: u64, position: u64 },
    /// It replays, up to this byte of the WAL.
    Follows { position: u64 },
    /// It holds the lead and replays still: it will take writes.
    TakesOver,
    /// It starts, stops or waits for the lead.
    Neither,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    state: String,
    #[serde(default)]
    role: String,
    #[serde(default)]
    timeline: u64,
    #[serde(default)]
    xlog: Positions,
}

#[derive(Default, Deserialize)]
struct Positions {
    location: Option<u64>,
    replayed_location: Option<u64>,
}

#[derive(Deserialize)]
struct Cluster {
    members: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    host: Option<IpAddr>,
}

/// How the member at this address is. Both have to say that it leads: Patroni, which holds the lease, and PostgreSQL, which may not have been
/// promoted yet.
pub(crate) async fn ask(address: SocketAddr) -> Result<Sight, Error> {
    let (status, body) = get(address, "/primary").await?;
    let holds_the_lead = status == 200;
    let Ok(Status { state, role, timeline, xlog }) = serde_json::from_slice(&body) else {
        return Err(Error::Answer { address, answer: String::from_utf8_lossy(&body).chars().take(200).collect() });
    };
    Ok(match role.as_str() {
        "primary" if holds_the_lead && state == "running" => {
            Sight::Leads { timeline, position: xlog.location.unwrap_or_default() }
        }
        "replica" if holds_the_lead && state == "running" => Sight::TakesOver,
        "replica" if state == "running" => Sight::Follows { position: xlog.replayed_location.unwrap_or_default() },
        _ => Sight::Neither,
    })
}

/// The addresses of all members that this one knows: those of pods that have just begun, too, which DNS may not know yet.
pub(crate) async fn members(address: SocketAddr) -> Result<Vec<IpAddr>, Error> {
    let (_, body) = get(address, "/cluster").await?;
    let Ok(cluster) = serde_json::from_slice::<Cluster>(&body) else {
        return Err(Error::Answer { address, answer: String::from_utf8_lossy(&body).chars().take(200).collect() });
    };
    Ok(cluster.members.into_iter().filter_map(|member| member.host).collect())
}

/// Patroni closes the connection after each answer.
async fn get(address: SocketAddr, path: &str) -> Result<(u16, Vec<u8>), Error> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MOST_BYTES).read_to_end(&mut answer).await?;
        Ok(answer)
    };
    let answer = timeout(TIMEOUT, ask).await.map_err(|_| Error::Timeout { address })?;
    let answer = answer.map_err(|source| Error::Io { address, source })?;
    parse(&answer)
        .ok_or_else(|| Error::Answer { address, answer: String::from_utf8_lossy(&answer).chars().take(200).collect() })
}

/// The status and the body of an answer.
fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let (head, body) = answer.split_at(end);
    let head = std::str::from_utf8(head).ok()?;
    let status = head.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some((status, body[4..].to_vec()))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A member that gives one answer.
    async fn member(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0; 1024];
            let _ = stream.read(&mut question).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        address
    }

    #[tokio::test]
    async fn a_member_that_holds_the_lead_leads_once_postgresql_takes_writes() {
        let leads = member("HTTP/1.0 200 OK\r\nServer: x\r\n\r\n{\"state\": \"running\", \"role\": \"primary\", \"timeline\": 3, \"xlog\": {\"location\": 77}}").await;
        assert_eq!(ask(leads).await.unwrap(), Sight::Leads { timeline: 3, position: 77 });
        let not_yet = member(
            "HTTP/1.0 503 Service Unavailable\r\n\r\n{\"state\": \"running\", \"role\": \"replica\", \"xlog\": {\"replayed_location\": 7}}",
        )
        .await;
        assert_eq!(ask(not_yet).await.unwrap(), Sight::Follows { position: 7 });
        let takes_over = member(
            "HTTP/1.0 200 OK\r\n\r\n{\"state\": \"running\", \"role\": \"replica\", \"xlog\": {\"replayed_location\": 7}}",
        )
        .await;
        assert_eq!(ask(takes_over).await.unwrap(), Sight::TakesOver);
        let not_any_more = member(
            "HTTP/1.0 503 Service Unavailable\r\n\r\n{\"state\": \"running\", \"role\": \"primary\", \"xlog\": {\"location\": 77}}",
        )
        .await;
        assert_eq!(ask(not_any_more).await.unwrap(), Sight::Neither);
    }

    #[tokio::test]
    async fn a_member_that_starts_is_neither() {
        let starts =
            member("HTTP/1.0 503 Service Unavailable\r\n\r\n{\"state\": \"starting\", \"role\": \"replica\"}").await;
        assert_eq!(ask(starts).await.unwrap(), Sight::Neither);
    }

    #[tokio::test]
    async fn what_is_not_an_answer_is_an_error() {
        let error = ask(member("SSH-2.0\r\n").await).await.unwrap_err();
        assert!(error.to_string().contains("SSH-2.0"), "{error}");
    }

    #[tokio::test]
    async fn all_members_are_known_from_one() {
        let one = member("HTTP/1.0 200 OK\r\n\r\n{\"members\": [{\"name\": \"a\", \"host\": \"10.0.0.1\"}, {\"name\": \"b\", \"host\": \"fd00::2\"}, {\"name\": \"c\"}]}").await;
        assert_eq!(members(one).await.unwrap(), ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
    }
}
