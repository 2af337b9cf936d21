//! One replica reconciles: the one that holds the lease. It stops before another one may begin, by its own clock.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use rand::RngExt;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{info, warn};

use crate::{config::Config, describe, metrics::Metrics};

const LEASE: &str = "taskplatform-operator";
/// For so long after a renewal that others have seen the lease is held.
const DURATION: Duration = Duration::from_secs(15);
/// For so long after a renewal began the holder acts. What it has sent by then has the rest of the duration to arrive.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often the lease is looked at, or renewed; up to a fifth more.
const RETRY: Duration = Duration::from_secs(2);
/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Why this replica does not lead any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the lease was not renewed for {} s: another replica may lead soon, this one starts again", DEADLINE.as_secs())]
    Lost,
}

/// Turns true once the process is asked to stop.
pub(crate) type Stop = watch::Receiver<bool>;

pub(crate) fn shutdown_signal() -> std::io::Result<Stop> {
    let (sender, receiver) = watch::channel(false);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = sender.send(true);
        sender.closed().await;
    });
    Ok(receiver)
}

/// Waits for the lease, runs `work` while it is held, and gives it back when the process is asked to stop. A lost lease ends the
/// process: nothing that believes to lead may go on.
pub(crate) async fn lead<F, W>(
    client: &Client,
    config: &Config,
    metrics: &Arc<Metrics>,
    mut stop: Stop,
    work: F,
) -> Result<(), Error>
where
    F: FnOnce(Stop) -> W,
    W: Future<Output = ()>,
{
    let mut candidate = Candidate::new(client, config);
    info!(identity = config.identity, "waiting for the lease");
    let renewed = tokio::select! {
        renewed = candidate.take() => renewed,
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
    };
    info!("holding the lease: reconciling");
    metrics.leader.set(1);
    let ended = tokio::select! {
        () = work(stop) => Ok(()),
        () = candidate.keep(renewed) => Err(Error::Lost),
    };
    metrics.leader.set(0);
    if ended.is_ok() {
        candidate.give_back().await;
    }
    ended
}

/// A replica that wants to hold the lease, or holds it.
struct Candidate {
    api: Api<Lease>,
    identity: String,
    /// The lease as it was seen last, and since when it has been so, by this replica's clock: clocks of machines differ.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Candidate {
    fn new(client: &Client, config: &Config) -> Self {
        let api = Api::namespaced(client.clone(), &config.namespace);
        Self { api, identity: config.identity.clone(), seen: None }
    }

    /// Resolves once the lease is held, with the instant from which on it counts.
    async fn take(&mut self) -> Instant {
        loop {
            let began = Instant::now();
            if self.hold().await {
                return began;
            }
            pause().await;
        }
    }

    /// Renews the lease; resolves when another one has it, or when that has not worked for too long, while a question may still be under
    /// way.
    async fn keep(&mut self, renewed: Instant) {
        let mut deadline = renewed + DEADLINE;
        loop {
            let round = async {
                pause().await;
                let began = Instant::now();
                self.hold().await.then_some(began)
            };
            tokio::select! {
                began = round => match began {
                    Some(began) => deadline = began + DEADLINE,
                    None if self.is_anothers() => return,
                    None => {}
                },
                () = sleep_until(deadline) => return,
            }
        }
    }

    /// Takes or renews the lease, and says whether it is held then.
    async fn hold(&mut self) -> bool {
        match timeout(TIMEOUT, self.try_hold()).await {
            Ok(Ok(held)) => held,
            Ok(Err(error)) => {
                warn!(
                    error = describe(&error),
                    "the lease can be neither taken nor renewed: does the operator's Role allow it to get, create and update leases in its namespace?"
                );
                false
            }
            Err(_) => {
                warn!("the API server does not answer within {} s whether the lease is held", TIMEOUT.as_secs());
                false
            }
        }
    }

    async fn try_hold(&mut self) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(LEASE).await? else {
            let metadata = ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.renewed(&LeaseSpec::default())) };
            return written(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        if !self.may_take(&spec) {
            return Ok(false);
        }
        // The resource version that was read: of two that try, one is refused.
        lease.spec = Some(self.renewed(&spec));
        written(self.api.replace(LEASE, &PostParams::default(), &lease).await)
    }

    /// Whether the lease is this replica's, nobody's, or has not been renewed for its duration.
    fn may_take(&mut self, spec: &LeaseSpec) -> bool {
        let since = match &self.seen {
            Some((seen, since)) if seen == spec => *since,
            _ => Instant::now(),
        };
        self.seen = Some((spec.clone(), since));
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let duration = u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
        holder.is_empty() || holder == self.identity || since.elapsed() >= Duration::from_secs(duration)
    }

    fn is_anothers(&self) -> bool {
        let holder = self.seen.as_ref().and_then(|(seen, _)| seen.holder_identity.as_deref());
        holder.is_some_and(|holder| !holder.is_empty() && holder != self.identity)
    }

    fn renewed(&self, spec: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let is_own = spec.holder_identity.as_ref() == Some(&self.identity);
        let changes = spec.lease_transitions.unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if is_own { spec.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if is_own { changes } else { changes.saturating_add(1) }),
            ..spec.clone()
        }
    }

    /// The other replica need not wait until it expires.
    async fn give_back(&self) {
        let give_back = async {
            let Some(mut lease) = self.api.get_opt(LEASE).await? else { return Ok(false) };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_ref() != Some(&self.identity) {
                return Ok(false);
            }
            spec.holder_identity = None;
            written(self.api.replace(LEASE, &PostParams::default(), &lease).await)
        };
        if !matches!(timeout(TIMEOUT, give_back).await, Ok(Ok(true))) {
            info!("the lease could not be given back: it expires");
        }
    }
}

/// Whether it was written; not, where somebody else was faster.
fn written(answer: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match answer {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}

async fn pause() {
    let wait = RETRY.mul_f64(rand::rng().random_range(1.0..1.2));
    sleep(wait).await;
}
