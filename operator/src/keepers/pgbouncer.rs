//! Asks PgBouncer's console who is connected and who waits.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use futures::future::join_all;
use jiff::Timestamp;
use taskplatform_blueprint::{Component, Endpoint, Login};
use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow};
use tracing::warn;

use super::{Brief, Keeper, Poolers, Seen, pace::Mood};
use crate::describe;

/// PgBouncer does one thing at a time, but none of them takes long.
const TIMEOUT: Duration = Duration::from_secs(4);
/// The files of a Secret reach a pod within two minutes, as a rule.
const FILES_ARRIVE: Duration = Duration::from_mins(10);
/// So long a pooler may take to let its running transactions end.
const PAUSE: Duration = Duration::from_secs(5);
/// Its console's name.
const CONSOLE: &str = "pgbouncer";
const LOGIN: Option<Login> = Endpoint::POOLER_CONSOLE.login;

/// A PgBouncer that is ready does not say who is connected.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{pod} does not answer within {} s", TIMEOUT.as_secs())]
    Timeout { pod: String },
    #[error("transactions on {pod} do not end within {} s", PAUSE.as_secs())]
    Busy { pod: String },
    #[error("{pod} does not say who is connected")]
    Refused { pod: String, source: tokio_postgres::Error },
}

/// A PgBouncer's connections, over all databases but its console.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Pools {
    pub(crate) pod: String,
    pub(crate) clients: i32,
    pub(crate) waiting: i32,
    pub(crate) max_wait: Duration,
    pub(crate) servers_busy: i32,
    pub(crate) servers_idle: i32,
}

/// The consoles of a platform's poolers, each with a connection that is kept from look to look.
#[derive(Default)]
pub(super) struct Consoles {
    open: HashMap<IpAddr, Console>,
}

struct Console(Client);

/// A user of the console, and its password.
type User = (String, String);

impl Keeper for Consoles {
    type Sight = Poolers;

    /// Asks every pod that is ready.
    async fn look(&mut self, brief: &Brief) -> Seen<Self::Sight> {
        let users = users(brief)?;
        let users = users.split_first()?;
        let pods = ready(brief);
        if pods.is_empty() {
            return None;
        }
        let reload = brief.may_act && may_have_changed(brief.credentials.rotated_at());
        let mut open = std::mem::take(&mut self.open);
        let asked = pods.into_iter().map(|(pod, address)| {
            let console = open.remove(&address);
            async move { (address, ask(pod, address, users, console, reload).await) }
        });
        let mut pools = Vec::new();
        for (address, answer) in join_all(asked).await {
            pools.push(answer.map_err(|error| describe(&error)).map(|(sum, console)| {
                self.open.insert(address, console);
                sum
            }));
        }
        Some(Ok(pools))
    }

    fn mood(sight: &Self::Sight) -> Mood {
        if sight.iter().all(Result::is_ok) { Mood::Settled } else { Mood::Troubled }
    }
}

/// The poolers of a platform, which hold what users ask for. They go on by themselves after a while.
pub(super) struct Paused(Vec<(String, Console)>);

/// Lets all poolers hold what users ask for, once the running transactions have ended: all, or none.
pub(super) async fn pause(brief: &Brief) -> Result<Paused, String> {
    let users = users(brief).unwrap_or_default();
    let users = users.split_first().ok_or_else(|| "no password of PgBouncer's console is known".to_owned())?;
    let answers = join_all(ready(brief).into_iter().map(async |(pod, address)| {
        let console = timeout(TIMEOUT, open(address, users)).await.map_err(|_| Error::Timeout { pod: pod.clone() })?;
        let console = console.map_err(|source| Error::Refused { pod: pod.clone(), source })?;
        match timeout(PAUSE, console.0.batch_execute("PAUSE")).await {
            Ok(Ok(())) => Ok((pod, console)),
            Ok(Err(source)) => Err(Error::Refused { pod, source }),
            Err(_) => {
                // The one that waits is answered only then; another has to say it.
                drop(console);
                if let Ok(Ok(console)) = timeout(TIMEOUT, open(address, users)).await {
                    resume(&pod, &console).await;
                }
                Err(Error::Busy { pod })
            }
        }
    }))
    .await;
    let (paused, errors): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    let paused = Paused(paused.into_iter().filter_map(Result::ok).collect());
    match errors.into_iter().find_map(Result::err) {
        None => Ok(paused),
        Some(error) => {
            paused.resume().await;
            Err(describe(&error))
        }
    }
}

impl Paused {
    /// Has them go on.
    pub(super) async fn resume(self) {
        join_all(self.0.iter().map(|(pod, console)| resume(pod, console))).await;
    }
}

async fn resume(pod: &str, console: &Console) {
    match timeout(TIMEOUT, console.0.batch_execute("RESUME")).await {
        Ok(Ok(())) => {}
        // Its router has seen the new primary, too, and was faster.
        Ok(Err(error)) if error.as_db_error().is_some() => {}
        Ok(Err(error)) => warn!(pod, %error, "a pooler is not resumed: its router does it"),
        Err(_) => warn!(pod, "a pooler is not resumed: its router does it"),
    }
}

fn users(brief: &Brief) -> Option<Vec<User>> {
    Some(brief.credentials.users(LOGIN?).map(|(user, password)| (user, password.to_owned())).collect())
}

/// The poolers that are ready, and where.
fn ready(brief: &Brief) -> Vec<(String, IpAddr)> {
    let pods = brief.snapshot.pods(Component::POOLER).filter(|pod| pod.is_ready());
    pods.filter_map(|pod| Some((pod.name.to_string(), pod.address()?))).collect()
}

/// Whether the file with the users may have changed lately. PgBouncer reads it again only when it is told to, and nobody knows when it has
/// reached a pod.
fn may_have_changed(rotated_at: Option<&str>) -> bool {
    let rotated: Option<Timestamp> = rotated_at.and_then(|time| time.parse().ok());
    rotated.is_some_and(|rotated| Timestamp::now().duration_since(rotated).unsigned_abs() < FILES_ARRIVE)
}

async fn ask(
    pod: String,
    address: IpAddr,
    users: (&User, &[User]),
    console: Option<Console>,
    reload: bool,
) -> Result<(Pools, Console), Error> {
    let ask = async {
        // One that has ended since the last look is opened anew.
        let console = match console.filter(|console| !console.0.is_closed()) {
            Some(console) => console,
            None => open(address, users).await?,
        };
        if reload {
            console.0.batch_execute("RELOAD").await?;
        }
        let rows = rows(&console.0).await?;
        Ok((rows, console))
    };
    match timeout(TIMEOUT, ask).await {
        Ok(Ok((rows, console))) => Ok((pools(pod, &rows), console)),
        Ok(Err(source)) => Err(Error::Refused { pod, source }),
        Err(_) => Err(Error::Timeout { pod }),
    }
}

/// With the password in force, or with the one before: the pod's list of users follows the Secret within two minutes.
async fn open(address: IpAddr, (first, others): (&User, &[User])) -> Result<Console, tokio_postgres::Error> {
    let mut console = open_as(address, first).await;
    for user in others {
        if console.is_ok() {
            break;
        }
        console = open_as(address, user).await;
    }
    console
}

async fn open_as(address: IpAddr, (user, password): &User) -> Result<Console, tokio_postgres::Error> {
    let mut config = Config::new();
    config.hostaddr(address).port(Endpoint::POOLER_CONSOLE.port);
    config.user(user).dbname(CONSOLE).password(password).tcp_user_timeout(TIMEOUT);
    let (client, connection) = config.connect(NoTls).await?;
    // It ends with its client, or with PgBouncer.
    tokio::spawn(connection);
    Ok(Console(client))
}

async fn rows(client: &Client) -> Result<Vec<SimpleQueryRow>, tokio_postgres::Error> {
    let rows = client.simple_query("SHOW POOLS").await?.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows.collect())
}

fn pools(pod: String, rows: &[SimpleQueryRow]) -> Pools {
    let mut sum = Pools { pod, ..Pools::default() };
    for row in rows.iter().filter(|row| row.get("database") != Some(CONSOLE)) {
        let number = |column: &str| row.get(column).and_then(|text| text.parse::<i32>().ok()).unwrap_or_default();
        let waited = |column: &str| u64::try_from(number(column)).unwrap_or_default();
        let wait = Duration::from_secs(waited("maxwait")) + Duration::from_micros(waited("maxwait_us"));
        sum.clients += number("cl_active") + number("cl_waiting");
        sum.waiting += number("cl_waiting");
        sum.max_wait = sum.max_wait.max(wait);
        sum.servers_busy += number("sv_active");
        sum.servers_idle += number("sv_idle") + number("sv_used");
    }
    sum
}
