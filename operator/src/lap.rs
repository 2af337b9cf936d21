//! What is done for one platform whenever something about it has changed. [`lap`] reads as the steps that it takes:
//! snapshot -> validated spec -> credentials, predecessor -> blueprint -> apply -> keepers -> status.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::controller::Action,
};
use rand::RngExt;
use serde_json::json;
use taskplatform_blueprint::{Component, Credentials, Draft, Facts, MANAGED_BY, Platform, Unit, blueprint, units};
use taskplatform_crds::{TaskPlatform, TaskPlatformStatus};
use tokio::time::Instant;

use crate::{
    apply::{Applied, Failure, credentials, ending, predecessor},
    context::{Context, Memory, Settled},
    describe,
    keepers::{Brief, seen},
    metrics::Outcome,
    status::{self, Hold},
    volumes::{self, Growth, Room},
    world::{Found, Snapshot},
};

/// Changes of objects and what keepers see are answered at once. What nobody tells of is looked at after this time: whether the cluster
/// serves a metric by now.
const LOOK_AGAIN: Duration = Duration::from_secs(45);
/// How soon it is looked whether a predecessor has ended.
const PREDECESSOR: Duration = Duration::from_secs(2);
/// So long the Secret is taken for what it was: what runs changes far more often.
const FRESH: Duration = Duration::from_secs(30);

/// Why a lap failed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Ending(#[from] ending::Error),
    #[error(transparent)]
    Credentials(#[from] credentials::Error),
    #[error(transparent)]
    Predecessor(#[from] predecessor::Error),
    #[error("the number of API instances cannot be written into the TaskPlatform")]
    Instances(#[source] Box<kube::Error>),
    #[error("{}", .0.join("; "))]
    Objects(Vec<String>),
    #[error(transparent)]
    Status(#[from] status::Error),
}

impl Error {
    /// The reason of the condition that tells of it.
    const fn reason(&self) -> &'static str {
        match self {
            Self::Ending(_) => "FinalizerFailed",
            Self::Credentials(_) => "CredentialsFailed",
            Self::Predecessor(_) => "PredecessorUnknown",
            Self::Instances(_) | Self::Objects(_) | Self::Status(_) => "ApplyFailed",
        }
    }
}

/// One lap.
///
/// # Errors
/// As [`Error`] says; what could be reported stands in the status.
pub(crate) async fn lap(found: &Found, context: &Context) -> Result<(Outcome, Action), Error> {
    let snapshot = context.world.snapshot(&found.namespace().unwrap_or_default(), &found.name_any());
    let draft = Draft::from(&found.platform);
    if found.meta().deletion_timestamp.is_some() {
        // Owner references do the rest.
        ending::finish(&context.client, &draft, found.meta()).await?;
        return Ok((Outcome::Applied, Action::await_change()));
    }
    if let Some(why) = &found.unreadable {
        return stall(&draft, why, snapshot, context).await;
    }
    match validate(&found.platform, draft.clone(), context) {
        Err(why) => stall(&draft, &why, snapshot, context).await,
        Ok(platform) => match build(found, Arc::new(platform), snapshot.clone(), context).await {
            Err(Error::Credentials(error)) if error.is_for_a_person() => {
                let status = status::stalled(&draft, "CredentialsMissing", &describe(&error), Timestamp::now());
                context.reporter.report(&draft, &status).await?;
                context.keepers.tend_as_before(draft.uid(), snapshot);
                Err(error.into())
            }
            Err(error @ (Error::Ending(_) | Error::Credentials(_) | Error::Predecessor(_) | Error::Instances(_))) => {
                let status = status::waiting(&draft, error.reason(), &describe(&error), Timestamp::now());
                context.reporter.report(&draft, &status).await?;
                Err(error)
            }
            Err(error) => Err(error),
            Ok(action) => Ok((Outcome::Applied, action)),
        },
    }
}

/// The rules are checked again: an object may be older than they are. Once for each generation, since that takes milliseconds.
fn validate(platform: &TaskPlatform, draft: Draft, context: &Context) -> Result<Platform, String> {
    if !is_checked(&draft, context) {
        platform.check_rules().map_err(|error| error.to_string())?;
        context.remember(draft.uid(), |memory| memory.checked = Some(draft.generation()));
    }
    draft.validate().map_err(|error| error.to_string())
}

/// Whether this operator has checked the rules for this spec, or one of the same release before it, which has said so in the status.
fn is_checked(draft: &Draft, context: &Context) -> bool {
    let is_remembered = context.memory(draft.uid()).checked == Some(draft.generation());
    let is_told = |status: &TaskPlatformStatus| {
        status.observed_generation == draft.generation()
            && status.release.as_deref() == Some(status::RELEASE)
            && status.conditions.iter().any(|condition| condition.type_ == "Stalled" && condition.status == "False")
    };
    is_remembered || draft.status().is_some_and(is_told)
}

async fn build(found: &Found, platform: Arc<Platform>, snapshot: Snapshot, context: &Context) -> Result<Action, Error> {
    let hold = hold(found, &platform, context);
    let room = room(&platform, &snapshot, context).await;
    let mut facts = facts(&platform, &snapshot, room.as_ref(), context).await;
    if hold.is_none() {
        ending::prepare(&context.client, &platform, found.meta()).await?;
        begin_with_instances(&platform, &facts, context).await?;
    }
    let Memory { credentials: known, settled, .. } = context.memory(platform.uid());
    let fresh = known.as_ref().filter(|(_, read)| read.elapsed() < FRESH);
    let secret = match fresh {
        Some(_) => None,
        None => credentials::find(&context.client, &platform).await?,
    };
    let remains = predecessor::remains(&context.client, &snapshot, &platform, secret.as_ref()).await?;
    if !remains.is_empty() {
        context.reporter.report(&platform, &status::succeeding(&platform, &remains, Timestamp::now())).await?;
        return Ok(Action::requeue(PREDECESSOR));
    }
    let credentials = if let Some((credentials, _)) = fresh {
        Arc::clone(credentials)
    } else {
        let known = known.as_ref().map(|(credentials, _)| credentials);
        let read = credentials::complete(&context.client, &platform, secret, known, &snapshot).await?;
        remember_credentials(&platform, read, context)
    };
    facts.versions = credentials.versions();

    let Applied { snapshot, mut failures, writes: _ } = match hold {
        None if settled.is_some_and(|settled| settled.is(&platform, &facts, &snapshot)) => {
            Applied { snapshot, failures: Vec::new(), writes: 0 }
        }
        None => {
            let applied = context.applier.apply(&platform, snapshot.clone(), &blueprint(&platform, &facts)).await;
            let is_settled = applied.writes == 0 && applied.failures.is_empty();
            let settled = Settled { generation: platform.generation(), facts: facts.clone(), snapshot };
            context.remember(platform.uid(), |memory| memory.settled = is_settled.then_some(settled));
            applied
        }
        Some(_) => Applied { snapshot, failures: Vec::new(), writes: 0 },
    };
    failures.extend(credentials.refused().map(|key| Failure::of_password(&platform, key)));
    let may_act = hold != Some(Hold::Paused);
    let observed = context.keepers.tend(Brief {
        platform: Arc::clone(&platform),
        credentials,
        snapshot: snapshot.clone(),
        may_act,
        is_applied: hold.is_none() && failures.is_empty(),
    });
    // What was told before holds until every keeper of an operator that has just begun has looked.
    if observed.is_complete() || platform.status().is_none_or(|status| !status::is_true(status, "Ready")) {
        let facts = status::Facts {
            platform: &platform,
            snapshot: &snapshot,
            observed: &observed,
            failures: &failures,
            hold: hold.as_ref(),
            requests_per_second: facts.requests_per_second,
            room: room.as_ref(),
        };
        let status = status::built(&facts, Timestamp::now());
        if status::is_true(&status, "Ready") && !status::is_true(&status, "Reconciling") {
            context.upgrades.settled(platform.uid());
        }
        context.reporter.report(&platform, &status).await?;
    }
    if !failures.is_empty() {
        return Err(Error::Objects(failures.into_iter().map(|failure| failure.message).collect()));
    }
    context.remember(platform.uid(), |memory| memory.failures = 0);
    Ok(Action::requeue(LOOK_AGAIN.mul_f64(rand::rng().random_range(0.8..1.2))))
}

/// Why nothing is to be applied, though the spec can be built.
fn hold(found: &Found, platform: &Platform, context: &Context) -> Option<Hold> {
    if !found.unknown.is_empty() {
        return Some(Hold::Newer(found.unknown.clone()));
    }
    if platform.spec().paused { Some(Hold::Paused) } else { context.upgrades.hold(platform) }
}

/// The autoscaler needs a number: the scale subresource has none while spec.api.replicas is absent, at the beginning or since somebody has
/// replaced the whole. What runs stays.
async fn begin_with_instances(platform: &Platform, facts: &Facts, context: &Context) -> Result<(), Error> {
    if platform.spec().api.replicas.is_some() {
        return Ok(());
    }
    let api: Api<TaskPlatform> = Api::namespaced(context.client.clone(), platform.namespace());
    let parameters = PatchParams { field_manager: Some(MANAGED_BY.to_owned()), ..PatchParams::default() };
    // The API server refuses it where a new platform has taken the name.
    let instances = platform.api_instances(facts.api_instances);
    let change = json!({"metadata": {"uid": platform.uid()}, "spec": {"api": {"replicas": instances}}});
    let patched = api.patch_metadata(platform.name(), &parameters, &Patch::Merge(change)).await;
    patched.map(|_| ()).map_err(|error| Error::Instances(Box::new(error)))
}

/// How much room the volumes of the database have. Those whose storage class does not let them grow are not asked to: nothing would be applied.
async fn room(platform: &Platform, snapshot: &Snapshot, context: &Context) -> Option<Room> {
    let observed = context.keepers.observed(platform.uid());
    let cluster = seen(observed.database.as_ref())?.as_ref().ok()?;
    let room = Room::of(platform, snapshot, cluster)?;
    if let Growth::To(_) = room.growth {
        let class = volumes::class(platform, snapshot);
        if !context.offers.is_expandable(&context.client, &class).await {
            return Some(Room { growth: Growth::Impossible(class), ..room });
        }
    }
    Some(room)
}

/// What the blueprint has to know of what is there.
async fn facts(platform: &Platform, snapshot: &Snapshot, room: Option<&Room>, context: &Context) -> Facts {
    let observed = context.keepers.observed(platform.uid());
    let replicas = |unit: &Unit| {
        let workload = snapshot.get(unit.kind(), &unit.name)?;
        i32::try_from(workload.data()["spec"]["replicas"].as_i64()?).ok()
    };
    let units = units(platform, platform.api_instances(None));
    let api = units.iter().find(|unit| unit.component == Component::API);
    let stateful = units.iter().filter(|unit| unit.is_stateful());
    let kept = stateful.filter_map(|unit| {
        let pods = replicas(unit)?;
        (pods > unit.pods && !observed.may_shrink(platform, unit)).then(|| (unit.name.clone(), pods))
    });
    Facts {
        requests_per_second: context.offers.requests_per_second(&context.client).await,
        api_instances: api.and_then(replicas),
        kept_pods: kept.collect(),
        volumes: volumes::sizes(platform, &units, snapshot, room),
        ..context.facts.clone()
    }
}

/// Reports a spec that cannot be built. It is looked at again when it changes.
async fn stall(draft: &Draft, why: &str, snapshot: Snapshot, context: &Context) -> Result<(Outcome, Action), Error> {
    let message = format!("{why}. Nothing that runs is touched until the spec is mended.");
    let status = status::stalled(draft, "InvalidSpec", &message, Timestamp::now());
    context.reporter.report(draft, &status).await?;
    context.keepers.tend_as_before(draft.uid(), snapshot);
    Ok((Outcome::Invalid, Action::await_change()))
}

/// One that is known already is not kept twice.
fn remember_credentials(platform: &Platform, read: Credentials, context: &Context) -> Arc<Credentials> {
    context.remember(platform.uid(), |memory| {
        let known = memory.credentials.take().map(|(credentials, _)| credentials).filter(|known| **known == read);
        let credentials = known.unwrap_or_else(|| Arc::new(read));
        memory.credentials = Some((Arc::clone(&credentials), Instant::now()));
        credentials
    })
}
