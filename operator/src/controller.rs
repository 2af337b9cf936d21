//! Has a lap go round for each TaskPlatform whenever something about it has changed.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        Controller, WatchStreamExt,
        controller::{self, Action},
        predicates, reflector,
        utils::{Predicate, PredicateConfig},
        watcher::{self, Event, watcher},
    },
};
use taskplatform_blueprint::{Component, Draft};
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tracing::{debug, warn};

use crate::{
    apply::{ending, predecessor},
    config::Config,
    context::Context,
    describe,
    lap::{Error, lap},
    leader::Stop,
    metrics::{Metrics, Outcome, OutcomeLabel},
    replicas, silence,
    world::{Found, Watched, World, lock},
};

/// How many platforms are reconciled at once.
const CONCURRENCY: u16 = 32;
/// Changes within this time are answered once.
const DEBOUNCE: Duration = Duration::from_millis(300);
/// The longest wait after failures.
const LONGEST_BACKOFF: Duration = Duration::from_mins(1);
/// The same where single objects could not be applied: the others are looked after all the same, and must not wait for long.
const LONGEST_BACKOFF_OF_OBJECTS: Duration = Duration::from_secs(10);

/// Reconciles until asked to stop; what has begun by then is finished. `unlisted` names the kinds that cannot be listed yet: until they
/// can, nothing is reconciled.
pub(crate) async fn run(
    client: Client,
    config: &Config,
    metrics: Arc<Metrics>,
    world: Arc<World>,
    mut unlisted: watch::Receiver<BTreeSet<Watched>>,
    mut stop: Stop,
) {
    let (changes, touched) = world.changes();
    tokio::select! {
        _ = unlisted.wait_for(BTreeSet::is_empty) => {}
        _ = stop.wait_for(|stop| *stop) => return,
    }
    // It ends with this function, and leads no longer than that.
    let mut others = JoinSet::new();
    others.spawn(silence::replace(client.clone(), Arc::clone(&world)));
    others.spawn(replicas::keep_apart(client.clone(), config.clone(), Arc::clone(&world), Arc::clone(&metrics)));
    let context = Arc::new(Context::new(&client, config, &world, changes, metrics));
    let shutdown = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let (known, writer) = reflector::store();
    let (gone, remains) = (Arc::clone(&context), Arc::clone(&context));
    let platforms = watcher(Api::<Found>::all(client), watcher::Config::default().page_size(50))
        .default_backoff()
        .inspect_ok(move |event| {
            if let Event::Delete(found) = event {
                tokio::spawn(end(Arc::clone(&gone), found.clone()));
            }
        })
        .reflect(writer)
        .applied_objects()
        // Its own reports are no reason to look again: they hold figures that change all the time. Finalizers, the beginning of a
        // deletion, and annotations, one of which has another member lead, are.
        .predicate_filter(
            predicates::generation.combine(predicates::finalizers).combine(predicates::annotations),
            PredicateConfig::default(),
        );
    Controller::for_stream(platforms, known)
        .with_config(controller::Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY))
        .reconcile_on(touched)
        .graceful_shutdown_on(shutdown)
        .run(reconcile, back_off, context)
        .for_each(|result| async {
            match result {
                // Deleted: its objects still tell of their own end.
                Err(controller::Error::ObjectNotFound(gone)) => {
                    forget_patroni(&remains, &gone.namespace.unwrap_or_default(), &gone.name);
                }
                Err(error) => debug!(error = describe(&error), "not reconciled"),
                Ok(_) => {}
            }
        })
        .await;
}

/// What is left to do for a platform that is gone.
async fn end(context: Arc<Context>, found: Found) {
    let draft = Draft::from(&found.platform);
    let (name, namespace) = (draft.name(), draft.namespace());
    context.keepers.forget(draft.uid());
    let conditions = draft.status().map(|status| status.conditions.as_slice()).unwrap_or_default();
    context.metrics.forget(namespace, name, conditions.iter().map(|condition| condition.type_.as_str()));
    lock(&context.memories).remove(draft.uid());
    if let Err(error) = ending::finish_gone(&context.client, &draft, found.meta()).await {
        warn!(platform = name, namespace, error = describe(&error), "volumes of a deleted platform stay");
    }
}

/// Removes what the database of a platform that is gone may have written after its Services had gone.
fn forget_patroni(context: &Context, namespace: &str, name: &str) {
    if context.world.snapshot(namespace, name).has_any(Component::DATABASE) {
        return;
    }
    let (client, namespace, name) = (context.client.clone(), namespace.to_owned(), name.to_owned());
    // Laps do not wait for it.
    tokio::spawn(async move {
        if let Err(error) = predecessor::forget_patroni(&client, &namespace, &name).await {
            warn!(platform = name, namespace, error = describe(&error), "what Patroni remembers stays");
        }
    });
}

async fn reconcile(found: Arc<Found>, context: Arc<Context>) -> Result<Action, Error> {
    let began = Instant::now();
    let (outcome, result) = match lap(&found, &context).await {
        Ok((outcome, action)) => (outcome, Ok(action)),
        Err(error) => (Outcome::Failed, Err(error)),
    };
    context.metrics.reconciliations.get_or_create(&OutcomeLabel { outcome }).inc();
    context.metrics.reconcile_seconds.observe(began.elapsed().as_secs_f64());
    result
}

/// Each failure in a row doubles the wait.
#[expect(clippy::needless_pass_by_value, reason = "the controller's signature")]
fn back_off(found: Arc<Found>, error: &Error, context: Arc<Context>) -> Action {
    let failures = context.remember(&found.uid().unwrap_or_default(), |memory| {
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    });
    let longest = if matches!(error, Error::Objects(_)) { LONGEST_BACKOFF_OF_OBJECTS } else { LONGEST_BACKOFF };
    let wait = Duration::from_secs(1 << failures.min(6)).min(longest);
    warn!(
        platform = found.name_any(),
        namespace = found.namespace(),
        error = describe(error),
        failures,
        again_in_seconds = wait.as_secs(),
        "the reconciliation failed"
    );
    Action::requeue(wait)
}
