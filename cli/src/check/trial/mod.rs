//! A trial: pods, network policies and volumes in a namespace of its own, which is deleted at the end whatever happens.

mod images;
mod network;
mod pods;
mod volumes;

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    io,
    time::Duration,
};

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
    core::ObjectMeta,
    runtime::wait::await_condition,
};
use taskplatform_blueprint::Image;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Target,
    outcome::{Group, Outcome, message},
    progress,
};
use crate::cluster::Cluster;

const GROUP: Group = Group::Trial;
/// Longer than Kubernetes gives pods that don't stop, and than a busy cluster needs.
const DELETION: Duration = Duration::from_mins(2);
/// What the namespace is labelled with, so that one that was left behind is found.
const LABEL: (&str, &str) = ("app.kubernetes.io/name", "taskplatform-check");
const POSSIBLE: &str = "a trial can be made";

/// The trial while it runs.
struct Trial {
    client: Client,
    /// Its name is known before it is made: whatever happens then, it is deleted.
    namespace: String,
    deadline: Instant,
}

pub(super) fn skipped() -> Vec<Outcome> {
    let names = [images::NAME, network::NAME, "volumes are made, and can be written"];
    names.map(|name| GROUP.skipped(name, "not tried, as --no-trial says")).into()
}

pub(super) async fn run(cluster: &Cluster, target: &Target, limit: Duration) -> Vec<Outcome> {
    let trial = Trial {
        client: cluster.client.clone(),
        namespace: format!("{}-{:08x}", LABEL.1, RandomState::new().build_hasher().finish() & 0xffff_ffff),
        deadline: Instant::now() + limit,
    };
    let shown = format!("trying pods, network policies and volumes in namespace {}", trial.namespace);
    match progress::shown(&shown, attempt(&trial, cluster, target)).await {
        Err(refused) => vec![refused],
        Ok(mut outcomes) => {
            let shown = format!("deleting namespace {}", trial.namespace);
            outcomes.push(progress::shown(&shown, end(&trial)).await);
            outcomes
        }
    }
}

/// Ctrl-C, and what CI ends programs with.
#[cfg(unix)]
fn interrupted() -> io::Result<impl Future<Output = ()> + use<>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn interrupted() -> io::Result<impl Future<Output = ()> + use<>> {
    Ok(async { drop(tokio::signal::ctrl_c().await) })
}

/// Tries everything. There is nothing to delete if the namespace is refused.
async fn attempt(trial: &Trial, cluster: &Cluster, target: &Target) -> Result<Vec<Outcome>, Outcome> {
    let interrupted = interrupted().map_err(|error| {
        GROUP.failure(POSSIBLE, format!("signals cannot be waited for: {error}"), "give --no-trial")
    })?;
    let trying = async {
        let late = |_| "the API server does not answer".to_owned();
        let images = timeout_at(trial.deadline, cluster.images()).await.map_err(late);
        let images = images.and_then(|images| images.map_err(|error| error.to_string()));
        trial.make_namespace().await?;
        if let Err(outcome) = trial.admits_pods().await {
            return Ok(vec![outcome]);
        }
        let redis = images.clone().unwrap_or_default().get(Image::Redis).to_owned();
        let (mut outcomes, network, volumes) = tokio::join!(
            images::check(trial, target, images).boxed(),
            network::check(trial, &redis).boxed(),
            volumes::check(trial, target, &redis).boxed(),
        );
        outcomes.push(network);
        outcomes.extend(volumes);
        Ok(outcomes)
    };
    tokio::select! {
        outcomes = trying => outcomes,
        () = interrupted => Ok(vec![GROUP.failure("the trial was made", "it was interrupted", "check again")]),
    }
}

impl Trial {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Fails only when it is refused: what became of one without an answer shows later.
    async fn make_namespace(&self) -> Result<(), Outcome> {
        let labels = [LABEL, ("pod-security.kubernetes.io/enforce", "restricted")];
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(self.namespace.clone()),
                labels: Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let api: Api<Namespace> = Api::all(self.client.clone());
        match timeout_at(self.deadline, Box::pin(api.create(&PostParams::default(), &namespace))).await {
            Ok(Err(kube::Error::Api(status))) if status.code < 500 => Err(GROUP.warning(
                POSSIBLE,
                format!("the namespace is refused: {}", status.message),
                "ask for the role in docs/check.md, or give --no-trial",
            )),
            _ => Ok(()),
        }
    }

    /// Pods are refused until their namespace has its default account.
    async fn admits_pods(&self) -> Result<(), Outcome> {
        let there = |account: Option<&ServiceAccount>| account.is_some();
        let why = match timeout_at(self.deadline, Box::pin(await_condition(self.api(), "default", there))).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "Kubernetes has given it no ServiceAccount".to_owned(),
        };
        Err(GROUP.failure(
            "a new namespace admits pods",
            why,
            "look how the controller manager is (kubectl -n kube-system get pods)",
        ))
    }
}

/// Deletes the namespace, and waits until it is gone. Whoever interrupts that as well finds out how to do it.
async fn end(trial: &Trial) -> Outcome {
    let name = "the trial leaves nothing";
    let namespace = &trial.namespace;
    let left = |why: &str| {
        GROUP.warning(
            name,
            format!("namespace {namespace} {why}"),
            format!("delete it (kubectl delete namespace {namespace})"),
        )
    };
    let api: Api<Namespace> = Api::all(trial.client.clone());
    let deleting = async {
        match api.delete(namespace, &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(format!("cannot be deleted: {}", message(&error))),
            Ok(_) => {
                let gone = |namespace: Option<&Namespace>| namespace.is_none();
                let gone = await_condition(api.clone(), namespace, gone).await;
                gone.map(drop).map_err(|error| format!("is being deleted, but not watched: {error}"))
            }
        }
    };
    let deleting = timeout(DELETION, Box::pin(deleting));
    let interrupted = async {
        match interrupted() {
            Ok(interrupted) => interrupted.await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        deleted = deleting => match deleted {
            Ok(Ok(())) => GROUP.pass(name, format!("namespace {namespace} is deleted")),
            Ok(Err(why)) => left(&why),
            Err(_) => left("is still being deleted"),
        },
        () = interrupted => left("was still being deleted"),
    }
}
