//! Writers that keep a ledger of what was acknowledged, and compare it afterwards with what is there.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::jiff::Timestamp;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::target::eventually;

/// How many users write at once.
const WRITERS: usize = 4;
/// How many refusals are shown of a run.
const SHOWN: usize = 5;
/// So long a user waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The writers, and what came of what they wrote.
pub(crate) struct Ledger {
    users: Arc<Users>,
    /// What tells its writes from those of other runs.
    run: usize,
    over: AtomicBool,
    entries: Mutex<Vec<Entry>>,
}

/// The same for all runs: who registers too often is held up.
pub(crate) struct Users {
    all: Vec<User>,
    /// Between two writes of each.
    pause: Duration,
}

struct User {
    client: Client,
    url: String,
    token: String,
}

/// A write.
struct Entry {
    user: usize,
    title: String,
    answered: Instant,
    took: Duration,
    outcome: Outcome,
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Acknowledged,
    /// The answer says that it is not stored, and to come again: the answer.
    Refused(String),
    /// The connection broke, the time ran out, or the answer says that it may or may not be stored: how.
    Unknown(String),
    /// Any other answer.
    Wrong(String),
}

/// The ledger, closed.
pub(crate) struct Written {
    users: Arc<Users>,
    entries: Vec<Entry>,
}

/// What the ledger says, beside what is there.
#[derive(Debug)]
pub(crate) struct Reconciled {
    pub(crate) acknowledged: usize,
    pub(crate) refused: Vec<String>,
    pub(crate) unknown: Vec<String>,
    pub(crate) wrong: Vec<String>,
    /// Acknowledged, and not there.
    pub(crate) lost: usize,
    /// There more than once.
    pub(crate) doubled: usize,
    /// Refused, and there all the same.
    pub(crate) failed_but_there: usize,
    /// Users who are not known any more.
    pub(crate) sessions_lost: usize,
}

impl fmt::Display for Reconciled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, refused, unknown, wrong, lost, doubled, failed_but_there, sessions_lost } = self;
        write!(
            f,
            "{acknowledged} acknowledged, {} refused, {} unknown, {} wrong; {lost} lost, {doubled} doubled, {failed_but_there} refused but there, {sessions_lost} sessions lost",
            refused.len(),
            unknown.len(),
            wrong.len()
        )?;
        refused.iter().take(SHOWN).chain(unknown).chain(wrong).try_for_each(|answer| write!(f, "\n    {answer}"))
    }
}

impl Users {
    pub(crate) async fn register(url: &str, pause: Duration) -> Result<Arc<Self>> {
        // The gateway lets five in a minute: each comes again by itself.
        let register =
            async |number| eventually("a user registers", 180, async || User::register(url, number).await).await;
        let all = try_join_all((0..WRITERS).map(register)).await?;
        Ok(Arc::new(Self { all, pause }))
    }
}

impl Ledger {
    pub(crate) fn open(users: &Arc<Users>, run: usize) -> Self {
        Self { users: Arc::clone(users), run, over: AtomicBool::new(false), entries: Mutex::default() }
    }

    /// Writes until it is closed.
    pub(crate) async fn write(&self) -> Result<Written> {
        try_join_all(self.users.all.iter().enumerate().map(async |(number, user)| {
            let mut count = 0;
            while !self.over.load(Ordering::Relaxed) {
                count += 1;
                let title = format!("{}-{number}-{count}", self.run);
                let began = Instant::now();
                let outcome = user.create(&title).await;
                let entry = Entry { user: number, title, answered: Instant::now(), took: began.elapsed(), outcome };
                self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
                sleep(self.users.pause).await;
            }
            anyhow::Ok(())
        }))
        .await?;
        let entries = std::mem::take(&mut *self.entries.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Written { users: Arc::clone(&self.users), entries })
    }

    pub(crate) fn close(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether writes have been acknowledged for so long without a gap of a second.
    pub(crate) fn is_written_for(&self, time: Duration) -> bool {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let acknowledged = entries.iter().filter(|entry| entry.outcome == Outcome::Acknowledged);
        let mut ages: Vec<Duration> =
            acknowledged.map(|entry| entry.answered.elapsed()).filter(|age| *age < time).collect();
        ages.extend([Duration::ZERO, time]);
        ages.sort_unstable();
        ages.windows(2).all(|pair| pair[1].saturating_sub(pair[0]) < Duration::from_secs(1))
    }
}

impl User {
    async fn register(url: &str, number: usize) -> Result<Self> {
        let client = Client::builder().timeout(PATIENCE).build()?;
        let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let body =
            json!({"email": format!("chaos-{number}-{nanoseconds}@example.com"), "password": "correct horse battery"});
        let response = client.post(format!("{url}/api/auth/register")).json(&body).send().await?;
        let status = response.status();
        let answer: Value = response.json().await?;
        ensure!(status == StatusCode::CREATED, "not registered: {status} {answer}");
        let token = answer["token"].as_str().context("no token")?.to_owned();
        Ok(Self { client, url: url.to_owned(), token })
    }

    async fn create(&self, title: &str) -> Outcome {
        let request = self.client.post(format!("{}/api/tasks", self.url)).bearer_auth(&self.token);
        let response = match request.json(&json!({"title": title})).send().await {
            Ok(response) => response,
            Err(error) => return Outcome::Unknown(format!("no answer: {:?}", anyhow::Error::from(error))),
        };
        let status = response.status();
        let comes_again = response.headers().contains_key("retry-after");
        let body = match response.text().await {
            Ok(body) => body,
            Err(error) => return Outcome::Unknown(format!("half an answer: {:?}", anyhow::Error::from(error))),
        };
        let answer = || format!("{status} {}", body.chars().take(300).collect::<String>());
        match status {
            StatusCode::CREATED => Outcome::Acknowledged,
            StatusCode::SERVICE_UNAVAILABLE if comes_again && body.contains("may or may not") => {
                Outcome::Unknown(answer())
            }
            StatusCode::SERVICE_UNAVAILABLE if comes_again => Outcome::Refused(answer()),
            _ => Outcome::Wrong(answer()),
        }
    }

    async fn titles(&self) -> Result<HashMap<String, usize>> {
        let (mut titles, mut cursor) = (HashMap::new(), String::new());
        loop {
            let url = format!("{}/api/tasks?limit=100{cursor}", self.url);
            let response = self.client.get(url).bearer_auth(&self.token).send().await?.error_for_status()?;
            let page: Value = response.json().await?;
            for task in page["items"].as_array().context("no items")? {
                *titles.entry(task["title"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(titles),
            }
        }
    }

    async fn is_known(&self) -> Result<bool> {
        let response = self.client.get(format!("{}/api/auth/me", self.url)).bearer_auth(&self.token).send().await?;
        ensure!(response.status() == StatusCode::OK || response.status() == StatusCode::UNAUTHORIZED, "{response:?}");
        Ok(response.status() == StatusCode::OK)
    }
}

impl Written {
    /// The longest time in which nobody's write was acknowledged, and since when.
    pub(crate) fn longest_gap(&self) -> (Duration, Timestamp) {
        let entries = self.entries.iter().filter(|entry| entry.outcome == Outcome::Acknowledged);
        let mut times: Vec<Instant> = entries.map(|entry| entry.answered).collect();
        times.sort_unstable();
        let gaps = times.windows(2).map(|pair| (pair[1].duration_since(pair[0]), pair[0]));
        let (longest, since) = gaps.max().unwrap_or_else(|| (Duration::ZERO, Instant::now()));
        (longest, clock(since))
    }

    /// How long acknowledged writes took, of so many in a hundred no longer.
    pub(crate) fn took(&self, percent: usize) -> Duration {
        let entries = self.entries.iter().filter(|entry| entry.outcome == Outcome::Acknowledged);
        let mut times: Vec<Duration> = entries.map(|entry| entry.took).collect();
        times.sort_unstable();
        times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
    }

    /// Compares what was acknowledged with what is there.
    pub(crate) async fn reconcile(self) -> Result<Reconciled> {
        let mut reconciled = Reconciled {
            acknowledged: 0,
            refused: Vec::new(),
            unknown: Vec::new(),
            wrong: Vec::new(),
            lost: 0,
            doubled: 0,
            failed_but_there: 0,
            sessions_lost: 0,
        };
        let mut stored = Vec::new();
        for user in &self.users.all {
            if eventually("a session is looked for", 60, async || user.is_known().await).await? {
                stored.push(eventually("the tasks are read", 60, async || user.titles().await).await?);
            } else {
                reconciled.sessions_lost += 1;
                stored.push(HashMap::new());
            }
        }
        for Entry { user, title, outcome, took, answered } in self.entries {
            let how = |answer: String| format!("{:.3} after {took:.1?}: {answer}", clock(answered));
            let there = stored[user].get(&title).copied().unwrap_or_default();
            reconciled.doubled += usize::from(there > 1);
            match outcome {
                Outcome::Acknowledged => {
                    reconciled.acknowledged += 1;
                    reconciled.lost += usize::from(there == 0);
                }
                Outcome::Refused(answer) => {
                    reconciled.refused.push(how(answer));
                    reconciled.failed_but_there += usize::from(there > 0);
                }
                Outcome::Unknown(answer) => reconciled.unknown.push(how(answer)),
                Outcome::Wrong(answer) => reconciled.wrong.push(how(answer)),
            }
        }
        Ok(reconciled)
    }
}

/// By the clock of this host, which logs have, too.
fn clock(instant: Instant) -> Timestamp {
    Timestamp::now() - instant.elapsed()
}
