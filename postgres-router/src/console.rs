//! What the router tells PgBouncer: to try again soon while nobody leads, to spread its reads anew when replicas come or fall behind, and
//! to go on when what it was paused for has happened, or does not happen.

use std::{collections::BTreeSet, error::Error as _, net::SocketAddr, path::PathBuf, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};
use tracing::{info, warn};

use crate::targets::Targets;

/// PgBouncer lets in without a password who has its own user and comes over its socket.
const USER: &str = "pgbouncer";
/// The database that reads.
const READS: &str = "tasks_ro";
/// PgBouncer does one thing at a time, but none of them takes long.
const TIMEOUT: Duration = Duration::from_secs(4);
const LOOK: Duration = Duration::from_millis(500);
/// PgBouncer has just begun, or ends.
const AGAIN: Duration = Duration::from_millis(500);
/// How soon it tries again to log in while nobody leads.
const RETRY_SOON: Duration = Duration::from_millis(200);
/// For so long after somebody leads again, it goes on trying soon.
const RETRY_SOON_FOR: Duration = Duration::from_secs(10);

/// How long clients wait or idle before they are told to leave, in seconds.
const LEAVE: &str = "0.1";

/// PgBouncer does not do what it is told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("PgBouncer does not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("PgBouncer cannot be reached: {}", .0.source().map_or_else(String::new, ToString::to_string))]
    Unreachable(tokio_postgres::Error),
    #[error("PgBouncer refuses: {0}")]
    Refused(String),
}

/// Where PgBouncer's console is.
#[derive(Clone, Debug)]
pub(crate) struct Socket {
    /// The folder with its socket.
    pub(crate) folder: PathBuf,
    pub(crate) port: u16,
}

/// PgBouncer's console.
pub(crate) struct Console {
    pub(crate) socket: Socket,
    pub(crate) login_retry: Duration,
    pub(crate) longest_pause: Duration,
    /// When PgBouncer was seen paused last.
    pub(crate) paused: watch::Sender<Option<Instant>>,
}

/// What PgBouncer was told.
#[derive(Debug, Default)]
struct Told {
    retries_soon: Option<bool>,
    replicas: BTreeSet<SocketAddr>,
}

/// What a pause is for, as far as can be seen from here: another primary.
#[derive(Debug, Default)]
struct Pause {
    /// Who led before it.
    former: Option<SocketAddr>,
    since: Option<Instant>,
}

impl Pause {
    /// Whether PgBouncer is to go on: another primary leads, or whoever ordered the pause has let `longest` pass.
    fn is_over(&mut self, is_paused: bool, primary: Option<SocketAddr>, longest: Duration) -> bool {
        if !is_paused {
            self.since = None;
            self.former = primary.or(self.former);
            return false;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        let has_moved = self.former.is_some_and(|former| primary.is_some_and(|primary| primary != former));
        has_moved || since.elapsed() > longest
    }
}

impl Console {
    /// Looks after PgBouncer for ever. One that has begun anew knows nothing of what the former was told.
    pub(crate) async fn look_after(&self, mut targets: watch::Receiver<Targets>) {
        loop {
            match self.look_after_one(&mut targets).await {
                Ok(()) => return,
                Err(error) => warn!(%error, "PgBouncer is told nothing"),
            }
            sleep(AGAIN).await;
        }
    }

    async fn look_after_one(&self, targets: &mut watch::Receiver<Targets>) -> Result<(), Error> {
        let client = within(self.socket.open()).await?;
        let mut told = Told::default();
        let mut led = Instant::now();
        let mut pause = Pause::default();
        loop {
            let now = targets.borrow_and_update().clone();
            let is_paused = within(is_paused(&client)).await?;
            if is_paused {
                self.paused.send_replace(Some(Instant::now()));
            }
            if pause.is_over(is_paused, now.primary, self.longest_pause) {
                info!(primary = ?now.primary, "the pause is over: PgBouncer goes on");
                within(run(&client, "RESUME")).await?;
            }
            // A pause breaks off logins, which count as failed.
            if now.primary.is_none() || is_paused {
                led = Instant::now();
            }
            let retries_soon = led.elapsed() < RETRY_SOON_FOR;
            if told.retries_soon != Some(retries_soon) {
                let retry = if retries_soon { RETRY_SOON.min(self.login_retry) } else { self.login_retry };
                within(run(&client, &format!("SET server_login_retry = '{}'", retry.as_secs_f64()))).await?;
                told.retries_soon = Some(retries_soon);
            }
            if now.replicas != told.replicas {
                // Those to one that fell behind go as well as those that all went elsewhere while it was away: each as soon as its
                // transaction ends.
                within(run(&client, &format!("RECONNECT {READS}"))).await?;
                told.replicas = now.replicas;
            }
            if let Ok(Err(_)) = timeout(LOOK, targets.changed()).await {
                return Ok(());
            }
        }
    }
}

impl Socket {
    async fn open(&self) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host_path(&self.folder).port(self.port).user(USER).dbname(USER);
        let (client, connection) = config.connect(NoTls).await?;
        // It ends with its client, or with PgBouncer.
        tokio::spawn(connection);
        Ok(client)
    }

    /// Has all clients leave, each with an answer: whoever waits for a server is refused, and whoever is idle is told to go. One that ends with clients
    /// closes their connections without a word, and nobody knows what became of a statement that was on its way.
    pub(crate) async fn see_clients_off(&self) -> Result<(), Error> {
        self.hold().await?;
        let client = within(self.open()).await?;
        for setting in ["query_wait_timeout", "client_idle_timeout"] {
            within(run(&client, &format!("SET {setting} = '{LEAVE}'"))).await?;
        }
        let all_gone = async {
            while within(clients(&client)).await? > 0 {
                sleep(Duration::from_millis(50)).await;
                // Whoever has it go on when another primary leads does not know that this one ends.
                if !within(is_paused(&client)).await? {
                    self.hold().await?;
                }
            }
            Ok(())
        };
        timeout(TIMEOUT, all_gone).await.map_err(|_| Error::Timeout)?
    }

    /// Has what runs end, and all else wait. Where somebody else has paused it, all wait already.
    async fn hold(&self) -> Result<(), Error> {
        let client = within(self.open()).await?;
        match timeout(TIMEOUT, run(&client, "PAUSE")).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "PgBouncer ends without a pause of its own"),
            Err(_) => warn!("transactions run for longer than {} s: PgBouncer ends all the same", TIMEOUT.as_secs()),
        }
        Ok(())
    }
}

/// How many clients there are beside those of the console.
async fn clients(client: &Client) -> Result<usize, tokio_postgres::Error> {
    let rows = client.simple_query("SHOW CLIENTS").await?;
    let is_client = |row: &SimpleQueryMessage| match row {
        SimpleQueryMessage::Row(row) => row.get("database") != Some(USER),
        _ => false,
    };
    Ok(rows.iter().filter(|row| is_client(row)).count())
}

async fn within<T>(ask: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Error> {
    let answer = timeout(TIMEOUT, ask).await.map_err(|_| Error::Timeout)?;
    answer.map_err(|error| match error.as_db_error() {
        Some(refusal) => Error::Refused(refusal.message().to_owned()),
        None => Error::Unreachable(error),
    })
}

async fn run(client: &Client, command: &str) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(command).await
}

async fn is_paused(client: &Client) -> Result<bool, tokio_postgres::Error> {
    let rows = client.simple_query("SHOW STATE").await?;
    Ok(rows.iter().any(|row| match row {
        SimpleQueryMessage::Row(row) => row.get(0) == Some("paused") && row.get(1) == Some("yes"),
        _ => false,
    }))
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const LONGEST: Duration = Duration::from_secs(7);

    fn member(number: u8) -> SocketAddr {
        ([10, 0, 0, number], 5432).into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_over_when_another_primary_leads() {
        let mut pause = Pause::default();
        assert!(!pause.is_over(false, Some(member(1)), LONGEST), "it is not paused");
        assert!(!pause.is_over(true, Some(member(1)), LONGEST), "the former leads still");
        assert!(!pause.is_over(true, None, LONGEST), "nobody leads");
        assert!(pause.is_over(true, Some(member(2)), LONGEST));
        assert!(!pause.is_over(false, Some(member(2)), LONGEST));
        assert!(!pause.is_over(true, Some(member(2)), LONGEST), "the next pause is for the next move");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_for_nothing_ends_by_itself() {
        let mut pause = Pause::default();
        assert!(!pause.is_over(false, Some(member(1)), LONGEST));
        assert!(!pause.is_over(true, Some(member(1)), LONGEST));
        advance(LONGEST).await;
        assert!(!pause.is_over(true, Some(member(1)), LONGEST));
        advance(Duration::from_millis(1)).await;
        assert!(pause.is_over(true, Some(member(1)), LONGEST));
        assert!(!pause.is_over(false, Some(member(1)), LONGEST));
        assert!(!pause.is_over(true, Some(member(1)), LONGEST), "the time begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_router_that_begins_in_a_pause_waits_for_the_end_of_it() {
        let mut pause = Pause::default();
        assert!(!pause.is_over(true, None, LONGEST));
        assert!(!pause.is_over(true, Some(member(2)), LONGEST), "nobody knows whether the move is over");
    }
}
