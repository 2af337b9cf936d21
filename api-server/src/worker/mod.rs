//! `task-api worker`: the work beside requests, on PostgreSQL. Any number of them may run; they share the work by locks in the database.
//!
//! It relays events from the outbox to RabbitMQ, makes the summaries anew when tasks have changed, makes partitions ahead of time and sweeps
//! what is out of date. It serves `/api/health`, `/api/ready` (the database answers) and, on a port of its own, `/metrics`.

pub mod broker;
mod health;
mod metrics;
mod relay;
mod summary;

use std::{sync::Arc, time::Duration};

use task_api_store::{Outbox, Store, Writes};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use self::{
    health::Health,
    metrics::{Metrics, ShardMetrics},
    relay::Relay,
};
use crate::{
    config::WorkerConfig,
    error::StartError,
    server::{self, lifecycle::Lifecycle, listener::Listener},
    upkeep,
};

/// How long a batch of events that is under way may take after the process was told to stop. Kubernetes kills it 30 s after it told it.
const FINISH: Duration = Duration::from_secs(24);
/// How often it is counted what waits in the outbox.
const COUNT: Duration = Duration::from_secs(5);

/// Works until SIGTERM or SIGINT, then finishes the batch of events that is under way.
pub async fn run(config: WorkerConfig) -> Result<(), StartError> {
    let listener = server::listen(config.listen)?;
    let metrics_listener = server::listen(config.metrics_listen)?;
    tracing::info!(
        address = %server::local(&listener, config.listen), metrics = %server::local(&metrics_listener, config.metrics_listen),
        relay = config.broker.is_some(), "listening"
    );
    let stop = server::stop_signal()?;
    let store = Arc::new(Store::open(&config.database, Writes::default())?);
    let lifecycle = Arc::new(Lifecycle::default());
    let metrics = Metrics::new();

    let health = Arc::new(Health::new(Arc::clone(&store), Arc::clone(&lifecycle)));
    let mut beside = JoinSet::new();
    beside.spawn(Listener::default().accept(listener, health::router(health), None));
    beside.spawn(Listener::default().accept(metrics_listener, metrics::router(Arc::clone(&metrics)), None));
    let working = tokio::spawn(work(config, Arc::clone(&store), Arc::clone(&lifecycle), metrics));

    stop.await;
    lifecycle.drain();
    tracing::info!("stopping: what was begun is finished");
    if timeout(FINISH, working).await.is_err() {
        tracing::warn!("a batch of events is cut off after {FINISH:?}; the next worker tells it again");
    }
    tracing::info!("stopped");
    Ok(())
}

/// All of the work, until the process is told to stop.
async fn work(config: WorkerConfig, store: Arc<Store>, lifecycle: Arc<Lifecycle>, metrics: Arc<Metrics>) {
    tokio::select! {
        () = upkeep::prepare(&store) => lifecycle.start(),
        () = lifecycle.draining() => return,
    }
    let mut endless = JoinSet::new();
    for (shard, summaries) in store.summaries().into_iter().enumerate() {
        endless.spawn(summary::run(shard, summaries, config.summary_interval, metrics.of_shard(shard)));
    }
    for (shard, outbox) in store.outboxes().into_iter().enumerate() {
        endless.spawn(count(outbox, metrics.of_shard(shard)));
    }
    let kept = Arc::clone(&store);
    endless.spawn(async move { upkeep::keep_up(&kept).await });
    let mut relays = JoinSet::new();
    if let Some(broker) = config.broker {
        for (shard, outbox) in store.outboxes().into_iter().enumerate() {
            let (lifecycle, metrics) = (Arc::clone(&lifecycle), metrics.of_shard(shard));
            let relay = Relay { shard, outbox, broker: broker.clone(), publisher: None, metrics };
            relays.spawn(async move { relay.run(&lifecycle).await });
        }
    }
    lifecycle.draining().await;
    while relays.join_next().await.is_some() {}
}

/// Keeps the metrics of the outbox up to date. It fails where the relay does, which says so.
async fn count(mut outbox: Outbox, metrics: ShardMetrics) {
    loop {
        if let Ok(backlog) = outbox.backlog().await {
            metrics.backlog(backlog);
        }
        sleep(COUNT).await;
    }
}
