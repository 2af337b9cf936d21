//! One replica reconciles: the one that holds the lease.

use std::sync::Arc;

use kube::Client;
use kube_lease_manager::LeaseManagerBuilder;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::info;

use crate::{config::Config, metrics::Metrics};

/// Seconds for which the lease is valid, and before whose end it is renewed.
const LEASE_SECONDS: u64 = 15;
const GRACE_SECONDS: u64 = 5;

/// Why this replica does not lead any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the lease cannot be taken: does the operator's Role allow leases in its namespace?")]
    Lease(#[from] kube_lease_manager::LeaseManagerError),
    #[error("the lease was lost: another replica may lead now, this one starts again")]
    Lost,
    #[error("the task that renews the lease ended")]
    Renewal,
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

/// Waits for the lease, runs `work` while it is held, and gives it back when the process is asked to stop. A lost lease
/// ends the process: nothing that believes to lead may go on.
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
    let manager = LeaseManagerBuilder::new(client.clone(), "taskplatform-operator")
        .with_namespace(&config.namespace)
        .with_identity(&config.identity)
        .with_duration(LEASE_SECONDS)
        .with_grace(GRACE_SECONDS)
        .build()
        .await?;
    let (mut held, renewal) = manager.watch().await;
    info!(identity = config.identity, "waiting for the lease");
    tokio::select! {
        held = held.wait_for(|held| *held) => { held.map_err(|_| Error::Renewal)?; }
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
    }
    info!("holding the lease: reconciling");
    metrics.leader.set(1);
    let ended = tokio::select! {
        () = work(stop) => Ok(()),
        lost = held.wait_for(|held| !*held) => Err(lost.map_or(Error::Renewal, |_| Error::Lost)),
    };
    metrics.leader.set(0);
    // Without a receiver the renewal ends and gives the lease back: the other replica need not wait until it expires.
    drop(held);
    let _ = renewal.await;
    ended
}
