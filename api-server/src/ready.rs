//! `/api/ready`: whether everything that the API depends on really works, by using it.

use std::time::Duration;

use task_api_sessions::Sessions;
use task_api_store::Store;
use tokio::{sync::Mutex, time::Instant};

use crate::server::lifecycle::Lifecycle;

/// An answer is good for this long, so that probes cost little however many there are.
const FRESH: Duration = Duration::from_secs(2);

/// A dependency that takes longer than this counts as down.
const TIMEOUT: Duration = Duration::from_secs(3);

type Answer = Result<(), String>;

/// The last answer. Whoever comes while one is made waits for it and shares it.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<Option<(Instant, Answer)>>);

impl Readiness {
    /// What does not work, if anything.
    pub async fn check(&self, lifecycle: &Lifecycle, store: &Store, sessions: &Sessions) -> Answer {
        // Costs nothing to find out, and whoever waits for it should not wait longer.
        if !lifecycle.is_started() {
            return Err("database: its schema is not there yet; the log says what this instance waits for".to_owned());
        }
        let mut last = self.0.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < FRESH
        {
            return answer.clone();
        }
        let answer = probe(store, sessions).await;
        if last.as_ref().is_none_or(|(_, before)| *before != answer) {
            match &answer {
                Ok(()) => tracing::info!("ready: every dependency works"),
                Err(failed) => tracing::warn!("not ready: {failed}"),
            }
        }
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}

async fn probe(store: &Store, sessions: &Sessions) -> Answer {
    let (database, sessions) =
        tokio::join!(tokio::time::timeout(TIMEOUT, store.check()), tokio::time::timeout(TIMEOUT, sessions.check()),);
    let failed: Vec<_> = [
        describe("database", database.map(|result| result.map_err(|error| error.to_string()))),
        describe("sessions", sessions.map(|result| result.map_err(|error| error.to_string()))),
    ]
    .into_iter()
    .flatten()
    .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(failed.join("; "))
}

fn describe<E>(name: &str, result: Result<Answer, E>) -> Option<String> {
    match result {
        Ok(Ok(())) => None,
        Ok(Err(cause)) => Some(format!("{name}: {cause}")),
        Err(_) => Some(format!("{name}: no answer within {} s", TIMEOUT.as_secs())),
    }
}
