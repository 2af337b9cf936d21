//! Has a replica take over from the primary in order: users see a pause of a second or two, and no error. What dirty pages there are is
//! written first, so that PostgreSQL stops at once; then every PgBouncer lets the running transactions end and holds the next, and goes on
//! as soon as the new primary takes writes.

use std::{net::IpAddr, time::Duration};

use taskplatform_blueprint::Component;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::{Brief, patroni, pgbouncer, superuser};
use crate::{describe, http::Http};

/// Writing all dirty pages, spread over nothing.
const CHECKPOINT: Duration = Duration::from_secs(30);
/// Connecting to say so.
const CONNECT: Duration = Duration::from_secs(5);
/// How often it is tried to pause before those transactions that do not end are ended by the switchover.
const ATTEMPTS: u32 = 3;
/// Between two of them, users go on.
const BETWEEN: Duration = Duration::from_secs(1);
/// How often it is looked whether the new primary takes writes.
const LOOK: Duration = Duration::from_millis(100);

/// Switches over, and says what kept it from that.
pub(super) async fn switch_over(http: &Http, brief: &Brief, from: &str, to: &str) -> Result<(), String> {
    if let Some(address) = address(brief, from) {
        checkpoint(brief, address).await;
    }
    // Whoever is asked to stop in the middle, such as by the same drain, goes on to the end: the poolers are not left paused.
    let moving = move_lead(http.clone(), brief.clone(), from.to_owned(), to.to_owned());
    tokio::spawn(moving).await.unwrap_or_else(|error| Err(describe(&error)))
}

async fn move_lead(http: Http, brief: Brief, from: String, to: String) -> Result<(), String> {
    let (http, brief, from, to) = (&http, &brief, &*from, &*to);
    let (platform, namespace) = (brief.platform.name(), brief.platform.namespace());
    let began = Instant::now();
    let paused = pause(brief).await;
    let switched = tokio::select! {
        switched = patroni::hand_over(http, brief, from, to) => switched,
        () = leads(http, brief, to) => Ok(()),
    };
    if let Some(paused) = paused {
        paused.resume().await;
    }
    let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    info!(platform, namespace, from, to, milliseconds, switched = switched.is_ok(), "switched over");
    switched
}

fn address(brief: &Brief, pod: &str) -> Option<IpAddr> {
    brief.snapshot.pods(Component::DATABASE).find(|child| *child.name == *pod)?.last_address()
}

/// Without it, the switchover takes longer and is right all the same.
async fn checkpoint(brief: &Brief, address: IpAddr) {
    let write = async {
        let client = superuser::connect(address, &brief.credentials, CONNECT).await?;
        client.batch_execute("CHECKPOINT").await
    };
    match timeout(CHECKPOINT, write).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%address, %error, "no checkpoint before the switchover"),
        Err(_) => warn!(%address, "the checkpoint before the switchover takes too long"),
    }
}

/// Every pooler, or none.
async fn pause(brief: &Brief) -> Option<pgbouncer::Paused> {
    for attempt in 1..=ATTEMPTS {
        match pgbouncer::pause(brief).await {
            Ok(paused) => return Some(paused),
            Err(error) => warn!(platform = brief.platform.name(), attempt, error, "the poolers are not paused"),
        }
        sleep(BETWEEN).await;
    }
    None
}

/// Until this member leads.
async fn leads(http: &Http, brief: &Brief, pod: &str) {
    loop {
        sleep(LOOK).await;
        if let Some(address) = address(brief, pod)
            && patroni::takes_writes(http, address).await
        {
            return;
        }
    }
}
