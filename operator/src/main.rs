//! The controller that turns a TaskPlatform into a running platform.
//!
//! Two replicas run; the one that holds the lease reconciles: see `lap.rs`, which reads as the steps that it takes.

mod admission;
mod apply;
mod config;
mod context;
mod controller;
mod http;
mod keepers;
mod lap;
mod leader;
mod listen;
mod metrics;
mod procedure;
mod replicas;
mod rest;
mod server;
mod silence;
mod status;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod upgrade;
mod volumes;
mod world;

use std::{error::Error, process::ExitCode, sync::Arc};

use kube::Client;
use tikv_jemallocator::Jemalloc;
use tokio::sync::watch;
use tracing::{error, info};

use crate::{config::Config, metrics::Metrics, world::World};

/// After a burst, such as the first listing of everything, it gives memory back (see `.cargo/config.toml`).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = describe(error.as_ref()), "the operator ends");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let config = Config::from_environment()?;
    let client = client().await?;
    let metrics = Arc::new(Metrics::default());

    let stop = leader::shutdown_signal()?;
    let unlisted = watch::Sender::default();
    // Also by the replica that waits: it takes over in the time of one lap for each platform, and one that may not list a kind is never
    // ready, so that the one before it stays.
    let world = World::watch(&client, &unlisted);
    tokio::spawn(silence::watch(client.clone(), Arc::clone(&world)));
    let server = server::serve(config.listen, Arc::clone(&metrics), unlisted.subscribe())?;
    let certificate = Arc::new(admission::Serving::default());
    let desk = Arc::new(admission::Desk::default());
    let admission = admission::listen(
        config.admission_listen,
        Arc::clone(&certificate),
        client.clone(),
        Arc::clone(&world),
        Arc::clone(&metrics),
        Arc::clone(&desk),
    )?;
    tokio::spawn(admission::keep_current(client.clone(), config.namespace.clone(), certificate));
    info!(version = env!("CARGO_PKG_VERSION"), listen = %config.listen, "the operator starts");
    let ended: Result<(), Box<dyn Error>> = tokio::select! {
        ended = leader::lead(&client, &config, &metrics, stop, |stop| {
            controller::run(client.clone(), &config, Arc::clone(&metrics), world, unlisted.subscribe(), stop)
        }) => ended.map_err(Into::into),
        ended = server => ended?.map_err(Into::into),
        ended = admission => ended?.map_err(Into::into),
    };
    // Another replica leads meanwhile.
    desk.close().await;
    info!("the operator has stopped");
    ended
}

/// A client whose requests end: an API server that does not answer must not stop the controller for ever.
async fn client() -> Result<Client, Box<dyn Error>> {
    let mut config = kube::Config::infer().await?;
    config.connect_timeout = Some(std::time::Duration::from_secs(5));
    config.write_timeout = Some(std::time::Duration::from_secs(30));
    // Longer than a watch, which the API server ends after less than five minutes.
    config.read_timeout = Some(std::time::Duration::from_secs(295));
    Ok(Client::try_from(config)?)
}

/// An error and its causes in one line.
pub(crate) fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
