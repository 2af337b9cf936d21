//! `taskplatform switchover`: has another member of the database lead, and tells when it does.

use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::{api::core::v1::Endpoints, jiff::Timestamp};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    runtime::watcher,
};
use serde_json::json;
use taskplatform_crds::{SWITCHOVER, Switchover, TaskPlatform};

use crate::{
    cluster::{self, Cluster},
    output,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The TaskPlatform's name.
    name: String,
    #[command(flatten)]
    cluster: cluster::Arguments,
    /// The pod that is to lead; left out, the replica that has read the most.
    #[arg(long)]
    to: Option<String>,
    /// When, such as 2026-01-31T03:00:00Z; left out, at once. It is not waited for.
    #[arg(long)]
    at: Option<Timestamp>,
    /// Take back one that has not happened yet.
    #[arg(long, conflicts_with_all = ["to", "at"])]
    cancel: bool,
    /// How long to wait for it, such as 90s or 5m; then it is taken back.
    #[arg(long, default_value = "5m")]
    timeout: taskplatform_crds::Duration,
}

/// Why no other member leads.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    #[error(transparent)]
    Output(#[from] output::Error),
    #[error("there is no TaskPlatform {name} in namespace {namespace}: kubectl get tp -A lists them")]
    Missing { name: String, namespace: String },
    #[error("{name} cannot be changed: may you (kubectl auth can-i patch taskplatforms -n {namespace})?")]
    Patch { name: String, namespace: String, source: Box<kube::Error> },
    #[error("the TaskPlatform cannot be watched: may you list it?")]
    Watch(#[source] Box<watcher::Error>),
    #[error("who leads cannot be read: may you (kubectl auth can-i get endpoints -n {namespace})?")]
    Leader { namespace: String, source: Box<kube::Error> },
    #[error("{name} is paused: the operator changes nothing until spec.paused is false")]
    Paused { name: String },
    #[error("no other member leads after {timeout}, and the wish is taken back: {why}")]
    Timeout { timeout: taskplatform_crds::Duration, why: String },
    #[error("the watch of the TaskPlatform has ended, and the wish stays: --cancel takes it back")]
    Ended,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<(), Error> {
    let Arguments { name, cluster, to, at, cancel, timeout } = arguments;
    let cluster = cluster.connect().await?;
    let namespace = cluster.namespace.clone();
    let missing = || Error::Missing { name: name.clone(), namespace: namespace.clone() };
    let platform = cluster.platform(&namespace, name).await?.ok_or_else(missing)?;
    let api = cluster.platforms(&namespace);
    if *cancel {
        annotate(&api, name, &namespace, None).await?;
        return Ok(output::write(&format!("{name}: no switchover is wanted any more\n"))?);
    }
    if platform.spec.paused {
        return Err(Error::Paused { name: name.clone() });
    }
    let before = leader(&cluster, name).await?;
    let wish = Switchover { to: to.clone(), at: *at };
    annotate(&api, name, &namespace, Some(&wish)).await?;
    if let Some(at) = at.filter(|at| *at > Timestamp::now()) {
        let later = format!("{name}: another member leads from {at} on; --cancel takes it back\n");
        return Ok(output::write(&later)?);
    }
    let mut why = "the operator has not looked yet: is it running?".to_owned();
    let waiting = tokio::time::timeout(Duration::from(*timeout), follow(&api, name, &mut why));
    if let Ok(fulfilled) = waiting.await {
        fulfilled?;
        let now = leader(&cluster, name).await?;
        let told = if now == before { format!("{now} leads already") } else { format!("{now} leads, {before} did") };
        return Ok(output::write(&format!("{name}: {told}\n"))?);
    }
    annotate(&api, name, &namespace, None).await?;
    Err(Error::Timeout { timeout: *timeout, why })
}

/// Writes the wish, or takes it back.
async fn annotate(
    api: &Api<TaskPlatform>,
    name: &str,
    namespace: &str,
    wish: Option<&Switchover>,
) -> Result<(), Error> {
    let change = json!({"metadata": {"annotations": {SWITCHOVER: wish.map(ToString::to_string)}}});
    let patched = api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(change)).await;
    let failed =
        |source| Error::Patch { name: name.to_owned(), namespace: namespace.to_owned(), source: Box::new(source) };
    patched.map(drop).map_err(failed)
}

/// Until the wish is fulfilled.
async fn follow(api: &Api<TaskPlatform>, name: &str, why: &mut String) -> Result<(), Error> {
    let mut platforms = std::pin::pin!(Cluster::changes(api.clone(), name));
    while let Some(platform) = platforms.try_next().await.map_err(|error| Error::Watch(Box::new(error)))? {
        let procedure = platform.status.as_ref().and_then(|status| status.procedure.as_ref());
        if let Some(place) = procedure {
            why.clone_from(&place.step);
        }
        if !platform.annotations().contains_key(SWITCHOVER) {
            return Ok(());
        }
    }
    Err(Error::Ended)
}

/// Who leads, as Patroni has written it down: the status follows later.
async fn leader(cluster: &Cluster, name: &str) -> Result<String, Error> {
    let namespace = &cluster.namespace;
    let api: Api<Endpoints> = Api::namespaced(cluster.client.clone(), namespace);
    let read = api.get_metadata(&format!("{name}-database-primary")).await;
    let failed = |source| Error::Leader { namespace: namespace.clone(), source: Box::new(source) };
    let annotations = read.map_err(failed)?.metadata.annotations.unwrap_or_default();
    Ok(annotations.get("leader").cloned().unwrap_or_else(|| "nobody".to_owned()))
}
