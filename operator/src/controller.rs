//! Reconciles TaskPlatforms. [`reconcile`] reads as the steps that it takes:
//! validated spec -> wait for a predecessor's end -> blueprint -> apply -> act -> observe -> status.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::StreamExt;
use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
    runtime::{
        Controller, WatchStreamExt,
        controller::{self, Action},
        events::{Event, EventType, Recorder, Reporter},
        predicates, reflector,
        utils::PredicateConfig,
        watcher,
    },
};
use serde_json::json;
use taskplatform_blueprint::{Component, Facts, Kind, MANAGED_BY, Platform, RedisCluster, blueprint};
use taskplatform_crds::{TaskPlatform, TaskPlatformSpec, TaskPlatformStatus};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::{
    act::{gateway, patroni, pooler, redis_cluster},
    children::{self, Children, lock},
    config::Config,
    credentials::{self, Credentials},
    describe,
    facts::Offers,
    http::Http,
    leader::Stop,
    metrics::{Metrics, Outcome, OutcomeLabel, PlatformLabel},
    predecessor, redis,
    status::{self, Observed},
    volumes,
};

/// A TaskPlatform, or what was stored under that name and is none.
pub(crate) type Guarded = DeserializeGuard<TaskPlatform>;

/// How many platforms are reconciled at once.
const CONCURRENCY: u16 = 32;
/// Changes within this time are answered once.
const DEBOUNCE: Duration = Duration::from_millis(300);
/// How soon a platform is looked at again: one that is on its way, and one that is as it should be. Changes of its objects
/// are seen at once; what happens inside PostgreSQL and Redis is not.
const ON_ITS_WAY: Duration = Duration::from_secs(2);
const SETTLED: Duration = Duration::from_secs(20);
/// The longest wait after failures.
const LONGEST_BACKOFF: Duration = Duration::from_mins(1);
/// The same where single objects could not be applied: the others are looked after all the same, and must not wait for long.
const LONGEST_BACKOFF_OF_OBJECTS: Duration = Duration::from_secs(10);
/// For so long after an operator began to lead, the network may not know its pod and keep it out: policies follow the pods' addresses.
const UNKNOWN_TO_THE_NETWORK: Duration = Duration::from_secs(5);
/// How soon those are asked again who did not answer meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// The API server refuses longer notes.
const LONGEST_NOTE: usize = 1000;

/// Why a reconciliation failed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Credentials(#[from] credentials::Error),
    #[error(transparent)]
    Predecessor(#[from] predecessor::Error),
    #[error("the number of API instances cannot be written into the TaskPlatform")]
    Instances(#[source] Box<kube::Error>),
    #[error("{}", .0.join("; "))]
    Children(Vec<String>),
    #[error("the status cannot be written")]
    Status(#[source] Box<kube::Error>),
}

struct Context {
    client: Client,
    children: Arc<Children>,
    facts: Facts,
    offers: Offers,
    http: Http,
    recorder: Recorder,
    metrics: Arc<Metrics>,
    leads_since: Instant,
    /// What is remembered of a platform, by its uid.
    memories: Mutex<HashMap<String, Memory>>,
}

/// What a platform's next reconciliation has to know of the ones before.
#[derive(Clone, Copy, Default)]
struct Memory {
    failures: u32,
    /// The number of nodes that hold everything: those beyond it have given away all that they held.
    cache_drained_to: Option<i32>,
    sessions_drained_to: Option<i32>,
}

/// Reconciles until asked to stop; what has begun by then is finished.
pub(crate) async fn run(client: Client, config: &Config, metrics: Arc<Metrics>, mut stop: Stop) {
    let (children, changed) = Children::watch(client.clone(), Arc::clone(&metrics)).await;
    let reporter = Reporter { controller: MANAGED_BY.into(), instance: Some(config.identity.clone()) };
    let context = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        children,
        facts: Facts {
            images: config.images.clone(),
            operator_namespace: config.namespace.clone(),
            ..Facts::default()
        },
        offers: Offers::default(),
        http: Http::default(),
        metrics,
        leads_since: Instant::now(),
        memories: Mutex::default(),
        client: client.clone(),
    });
    let shutdown = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let (known, writer) = reflector::store();
    let platforms = watcher(Api::<Guarded>::all(client), watcher::Config::default().page_size(50))
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        // Its own reports are no reason to look again: they hold figures that change all the time.
        .predicate_filter(predicates::generation, PredicateConfig::default());
    Controller::for_stream(platforms, known)
        .with_config(controller::Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY))
        .reconcile_on(changed)
        .graceful_shutdown_on(shutdown)
        .run(reconcile, back_off, Arc::clone(&context))
        .for_each(|result| async {
            match result {
                // Deleted: its objects still tell of their own end.
                Err(controller::Error::ObjectNotFound(gone)) => {
                    forget(&context, &gone.namespace.unwrap_or_default(), &gone.name);
                }
                Err(error) => debug!(error = describe(&error), "not reconciled"),
                Ok(_) => {}
            }
        })
        .await;
}

/// Forgets a platform that is gone, and removes what its database may have written after its Services had gone.
fn forget(context: &Context, namespace: &str, name: &str) {
    context.metrics.forget(namespace, name);
    if context.children.has_any(namespace, name, Component::Database) {
        return;
    }
    let (client, namespace, name) = (context.client.clone(), namespace.to_owned(), name.to_owned());
    // Reconciliations do not wait for it.
    tokio::spawn(async move {
        if let Err(error) = predecessor::forget_patroni(&client, &namespace, &name).await {
            warn!(platform = name, namespace, error = describe(&error), "what Patroni remembers stays");
        }
    });
}

async fn reconcile(guarded: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let began = Instant::now();
    let (outcome, result) = match reconcile_guarded(&guarded, &context).await {
        Ok((outcome, action)) => (outcome, Ok(action)),
        Err(error) => (Outcome::Failed, Err(error)),
    };
    context.metrics.reconciliations.get_or_create(&OutcomeLabel { outcome }).inc();
    context.metrics.reconcile_seconds.observe(began.elapsed().as_secs_f64());
    result
}

async fn reconcile_guarded(guarded: &Guarded, context: &Context) -> Result<(Outcome, Action), Error> {
    if guarded.meta().deletion_timestamp.is_some() {
        // Owner references do the rest.
        return Ok((Outcome::Applied, Action::await_change()));
    }
    match &guarded.0 {
        Ok(owner) => match validate(owner) {
            Ok(platform) => Ok((Outcome::Applied, reconcile_platform(owner, &platform, context).await?)),
            Err(reason) => stall(owner, &reason, context).await,
        },
        Err(invalid) => {
            let owner = TaskPlatform {
                metadata: invalid.metadata.clone(),
                ..TaskPlatform::new("", TaskPlatformSpec::default())
            };
            stall(&owner, &invalid.error, context).await
        }
    }
}

/// The rules are checked again: an object may be older than they are.
fn validate(owner: &TaskPlatform) -> Result<Platform, String> {
    owner.check_rules().map_err(|error| error.to_string())?;
    Platform::new(owner).map_err(|error| error.to_string())
}

async fn reconcile_platform(owner: &TaskPlatform, platform: &Platform, context: &Context) -> Result<Action, Error> {
    begin_with_the_fewest_instances(owner, platform, context).await?;
    let secret = credentials::find(&context.client, platform).await?;
    let remains = predecessor::remains(&context.client, &context.children, owner, platform, secret.as_ref()).await?;
    if !remains.is_empty() {
        report(owner, status::succeeding(owner, &remains, Timestamp::now()), context).await?;
        forget_failures(owner, context);
        return Ok(Action::requeue(ON_ITS_WAY));
    }
    let credentials = credentials::complete(&context.client, platform, owner, secret).await?;
    let facts = facts(owner, platform, context).await;

    let failures = apply(owner, platform, &facts, context).await;
    let observed = act(owner, platform, &credentials, &facts, &failures, context).await;
    remember_drained(owner, platform, &observed, context);

    let status = status::built(&context.children, owner, platform, &observed, Timestamp::now());
    let settled = is_true(&status, "Ready") && !is_true(&status, "Reconciling");
    report(owner, status, context).await?;
    if !observed.failures.is_empty() {
        return Err(Error::Children(observed.failures));
    }
    forget_failures(owner, context);
    Ok(Action::requeue(if settled { SETTLED } else { ON_ITS_WAY }))
}

/// The autoscaler needs a number to begin with: the scale subresource has none while spec.api.replicas is absent.
async fn begin_with_the_fewest_instances(
    owner: &TaskPlatform,
    platform: &Platform,
    context: &Context,
) -> Result<(), Error> {
    if owner.spec.api.replicas.is_some() {
        return Ok(());
    }
    let api: Api<TaskPlatform> = Api::namespaced(context.client.clone(), platform.namespace());
    let parameters = PatchParams { field_manager: Some(MANAGED_BY.to_owned()), ..PatchParams::default() };
    // The API server refuses it where a new platform has taken the name.
    let instances = json!({"metadata": {"uid": owner.uid()}, "spec": {"api": {"replicas": platform.api_instances()}}});
    let patched = api.patch(platform.name(), &parameters, &Patch::Merge(instances)).await;
    patched.map(|_| ()).map_err(|error| Error::Instances(Box::new(error)))
}

async fn facts(owner: &TaskPlatform, platform: &Platform, context: &Context) -> Facts {
    let memory = memory(owner, context);
    let kept = |cluster: RedisCluster, drained_to: Option<i32>| {
        let name = platform.names().component(cluster.component());
        let set = context.children.get(owner, Kind::StatefulSet, &name)?;
        let nodes = i32::try_from(set.data["spec"]["replicas"].as_i64()?).ok()?;
        let wanted = cluster.nodes(platform);
        (nodes > wanted && drained_to != Some(wanted)).then_some(nodes)
    };
    Facts {
        requests_per_second: context.offers.requests_per_second(&context.client).await,
        cache_nodes_in_use: kept(RedisCluster::Cache, memory.cache_drained_to),
        sessions_nodes_in_use: kept(RedisCluster::Sessions, memory.sessions_drained_to),
        ..context.facts.clone()
    }
}

/// Applies the blueprint and removes what it does not have. One object that cannot be applied does not hold up the others.
async fn apply(owner: &TaskPlatform, platform: &Platform, facts: &Facts, context: &Context) -> Vec<String> {
    let objects = blueprint(platform, facts);
    let mut failures = Vec::new();
    for object in &objects {
        if let Err(error) = context.children.apply(owner, object).await {
            failures.push(failure(owner, &error));
        }
    }
    if let Err(error) = context.children.prune(owner, &objects).await {
        failures.push(failure(owner, &error));
    }
    if let Err(error) = volumes::own(&context.client, owner, &context.children.claims(owner)).await {
        failures.push(failure(owner, &error.into()));
    }
    failures
}

fn failure(owner: &TaskPlatform, error: &children::Error) -> String {
    let text = describe(error);
    warn!(platform = owner.name_any(), namespace = owner.namespace(), error = text, "not applied");
    text
}

/// Looks after what only a running controller can. An operator that has just begun asks a platform that was ready until it is let in.
async fn act(
    owner: &TaskPlatform,
    platform: &Platform,
    credentials: &Credentials,
    facts: &Facts,
    failures: &[String],
    context: &Context,
) -> Observed {
    let was_ready = owner.status.as_ref().is_some_and(|status| is_true(status, "Ready"));
    loop {
        let observed = act_once(owner, platform, credentials, facts, failures, context).await;
        if !was_ready || observed.all_answer() || context.leads_since.elapsed() > UNKNOWN_TO_THE_NETWORK {
            return observed;
        }
        sleep(ASK_AGAIN).await;
    }
}

/// All at once: none has to wait for another that is in trouble.
async fn act_once(
    owner: &TaskPlatform,
    platform: &Platform,
    credentials: &Credentials,
    facts: &Facts,
    failures: &[String],
    context: &Context,
) -> Observed {
    let pods = |component| context.children.pods(owner, component);
    let (database_pods, pooler_pods) = (pods(Component::Database), pods(Component::Pooler));
    let (cache_pods, sessions_pods) = (pods(Component::Cache), pods(Component::Sessions));
    let (database, poolers, cache, sessions, gateway) = futures::future::join5(
        patroni::look_after(&context.http, platform, &database_pods, credentials),
        pooler::look_at(&pooler_pods, credentials),
        redis_cluster::look_after(platform, RedisCluster::Cache, &cache_pods, credentials),
        redis_cluster::look_after(platform, RedisCluster::Sessions, &sessions_pods, credentials),
        ask_the_gateway(owner, platform, context),
    )
    .await;
    let failures = failures.to_vec();
    Observed { database, poolers, cache, sessions, gateway, failures, requests_per_second: facts.requests_per_second }
}

/// Asks only when somebody can answer.
async fn ask_the_gateway(owner: &TaskPlatform, platform: &Platform, context: &Context) -> Option<Result<(), String>> {
    let api = context.children.get(owner, Kind::Deployment, &platform.names().component(Component::Api))?;
    if api.data["status"]["readyReplicas"].as_i64().unwrap_or(0) == 0 {
        return None;
    }
    gateway::serves(&context.http, &context.children.pods(owner, Component::Gateway)).await
}

/// Reports a spec that cannot be built. It is looked at again when it changes.
async fn stall(owner: &TaskPlatform, reason: &str, context: &Context) -> Result<(Outcome, Action), Error> {
    let status = status::stalled(owner, reason, Timestamp::now());
    report(owner, status, context).await?;
    Ok((Outcome::Invalid, Action::await_change()))
}

/// Writes the status if it has changed, and tells of what has.
async fn report(owner: &TaskPlatform, status: TaskPlatformStatus, context: &Context) -> Result<(), Error> {
    let (name, namespace) = (owner.name_any(), owner.namespace().unwrap_or_default());
    let ready = i64::from(is_true(&status, "Ready"));
    context.metrics.ready.get_or_create(&PlatformLabel { namespace: namespace.clone(), name: name.clone() }).set(ready);
    if owner.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let api: Api<TaskPlatform> = Api::namespaced(context.client.clone(), &namespace);
    let parameters = PatchParams { field_manager: Some(MANAGED_BY.to_owned()), ..PatchParams::default() };
    match api.patch_status(&name, &parameters, &Patch::Merge(json!({"status": status}))).await {
        Ok(_) => {}
        // Deleted meanwhile: nobody is left to be told.
        Err(kube::Error::Api(answer)) if answer.is_not_found() => return Ok(()),
        Err(error) => return Err(Error::Status(Box::new(error))),
    }
    for event in transitions(owner.status.as_ref(), &status) {
        info!(platform = name, namespace, reason = event.reason, note = event.note, "transition");
        if let Err(error) = context.recorder.publish(&event, &owner.object_ref(&())).await {
            warn!(%error, "an event could not be written");
        }
    }
    Ok(())
}

/// An event for each condition whose status has changed and that says something then.
fn transitions(before: Option<&TaskPlatformStatus>, after: &TaskPlatformStatus) -> Vec<Event> {
    let before: BTreeMap<&str, &str> = before
        .into_iter()
        .flat_map(|status| &status.conditions)
        .map(|condition| (condition.type_.as_str(), condition.status.as_str()))
        .collect();
    let changed = after.conditions.iter().filter(|condition| {
        let before = before.get(condition.type_.as_str());
        let expected =
            if matches!(condition.type_.as_str(), "Stalled" | "AutoscalingPolicyDegraded") { "False" } else { "True" };
        // At the beginning nothing is ready: that is no news.
        condition.type_ != "Reconciling"
            && before.map_or(expected == "False" && condition.status == "True", |before| *before != condition.status)
    });
    changed
        .map(|condition| {
            let good = (condition.status == "True")
                != matches!(condition.type_.as_str(), "Stalled" | "AutoscalingPolicyDegraded");
            Event {
                type_: if good { EventType::Normal } else { EventType::Warning },
                reason: format!("{}{}", condition.type_, condition.status),
                note: Some(shortened(&condition.message)),
                action: "Reconcile".into(),
                secondary: None,
            }
        })
        .collect()
}

fn shortened(text: &str) -> String {
    if text.len() <= LONGEST_NOTE {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(LONGEST_NOTE - '…'.len_utf8())])
}

fn is_true(status: &TaskPlatformStatus, type_: &str) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True")
}

/// Each failure in a row doubles the wait.
#[expect(clippy::needless_pass_by_value, reason = "the controller's signature")]
fn back_off(guarded: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    let mut memories = lock(&context.memories);
    let memory = memories.entry(guarded.uid().unwrap_or_default()).or_default();
    memory.failures = memory.failures.saturating_add(1);
    let longest = if matches!(error, Error::Children(_)) { LONGEST_BACKOFF_OF_OBJECTS } else { LONGEST_BACKOFF };
    let wait = Duration::from_secs(1 << memory.failures.min(6)).min(longest);
    warn!(
        platform = guarded.name_any(),
        namespace = guarded.namespace(),
        error = describe(error),
        failures = memory.failures,
        again_in_seconds = wait.as_secs(),
        "the reconciliation failed"
    );
    Action::requeue(wait)
}

fn memory(owner: &TaskPlatform, context: &Context) -> Memory {
    lock(&context.memories).get(&owner.uid().unwrap_or_default()).copied().unwrap_or_default()
}

fn forget_failures(owner: &TaskPlatform, context: &Context) {
    if let Some(memory) = lock(&context.memories).get_mut(&owner.uid().unwrap_or_default()) {
        memory.failures = 0;
    }
}

fn remember_drained(owner: &TaskPlatform, platform: &Platform, observed: &Observed, context: &Context) {
    let drained_to = |health: &Option<Result<redis::Health, redis::Error>>, cluster: RedisCluster| {
        let drained = health.as_ref().is_some_and(|health| health.as_ref().is_ok_and(|health| health.surplus_drained));
        drained.then(|| cluster.nodes(platform))
    };
    let mut memories = lock(&context.memories);
    let memory = memories.entry(owner.uid().unwrap_or_default()).or_default();
    memory.cache_drained_to = drained_to(&observed.cache, RedisCluster::Cache);
    memory.sessions_drained_to = drained_to(&observed.sessions, RedisCluster::Sessions);
}
