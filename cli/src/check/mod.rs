//! `taskplatform check`: whether a cluster has what a platform needs, told before anything is installed there.

mod api_server;
mod autoscaling;
mod limits;
mod nodes;
mod operator;
mod outcome;
mod permissions;
mod progress;
mod room;
mod storage;
mod trial;

use std::{path::PathBuf, process::ExitCode, time};

use futures::{FutureExt, future::BoxFuture};
use kube::ResourceExt;
use serde::Serialize;
use serde_json::json;
use taskplatform_blueprint::{Invalid, Platform};
use taskplatform_crds::{Duration, TaskPlatform};

use crate::{
    cluster::{self, Cluster},
    output::{self, Format},
    source::{self, Files},
};
use outcome::{Counts, Group, Outcome, Verdict};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A file with the TaskPlatform that is to run there; left out, one with the defaults. - is the standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    cluster: cluster::Arguments,
    /// The operator is yet to be installed: do not look for it.
    #[arg(long)]
    pre: bool,
    /// Only read. Else pods, network policies and volumes are tried in a namespace that is deleted at the end.
    #[arg(long)]
    no_trial: bool,
    /// How long the trial may take, such as 90s or 2m.
    #[arg(long, default_value = "2m")]
    timeout: Duration,
    /// How it is written.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Nothing can be checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Source(#[from] source::Error),
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    #[error("TaskPlatform {name} cannot be built: {source}")]
    Invalid { name: String, source: Invalid },
    #[error("a TaskPlatform with the defaults cannot be made")]
    Defaults(#[from] serde_json::Error),
    #[error(transparent)]
    Output(#[from] output::Error),
}

/// How long a group that only reads may take. An API behind the API server that does not answer is asked again for longer.
const PATIENCE: time::Duration = time::Duration::from_secs(20);

/// The platform that is to run in the cluster.
struct Target {
    manifest: TaskPlatform,
    platform: Platform,
}

impl Target {
    fn new(mut manifest: TaskPlatform, cluster: &Cluster) -> Result<Self, Error> {
        let namespace = manifest.namespace().unwrap_or_else(|| cluster.namespace.clone());
        manifest.metadata.namespace = Some(namespace);
        let platform =
            Platform::new(&manifest).map_err(|source| Error::Invalid { name: manifest.name_any(), source })?;
        Ok(Self { manifest, platform })
    }
}

/// What was found so far.
struct Report {
    format: Format,
    outcomes: Vec<Outcome>,
}

/// All that was found, for programs.
#[derive(Serialize)]
struct Document<'a> {
    outcomes: &'a [Outcome],
    counts: Counts,
}

impl Report {
    /// Takes in a group, and tells it at once: the next may take its time.
    fn add(&mut self, group: Group, outcomes: Vec<Outcome>) -> Result<(), Error> {
        if self.format == Format::Text {
            output::write_coloured(&outcome::text(group, &outcomes))?;
        }
        self.outcomes.extend(outcomes);
        Ok(())
    }

    /// A group that only reads.
    async fn look(&mut self, group: Group, looking: BoxFuture<'_, Vec<Outcome>>) -> Result<(), Error> {
        let looking = tokio::time::timeout(PATIENCE, looking);
        let outcomes = progress::shown(&format!("looking at {}", group.name().to_lowercase()), looking).await;
        let outcomes = outcomes.unwrap_or_else(|_| {
            vec![group.failure(
                "it can be looked at",
                format!("the API server has not answered for {} s", PATIENCE.as_secs()),
                "look how it is (kubectl get --raw '/readyz?verbose'; kubectl get apiservices)",
            )]
        });
        self.add(group, outcomes)
    }

    fn end(&self) -> Result<ExitCode, Error> {
        let counts = Counts::of(&self.outcomes);
        match self.format {
            Format::Text => output::write_coloured(&counts.text())?,
            Format::Json => output::json(&Document { outcomes: &self.outcomes, counts })?,
        }
        Ok(if counts.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn failed(&self) -> bool {
        self.outcomes.iter().any(|outcome| outcome.verdict == Verdict::Failure)
    }
}

pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let Arguments { files, cluster, pre, no_trial, timeout, output } = arguments;
    let manifest = if files.is_empty() { defaults()? } else { Files::of(files.clone()).read()?.one()? };
    let cluster = cluster.connect().await?;
    let target = Target::new(manifest, &cluster)?;
    let mut report = Report { format: *output, outcomes: Vec::new() };

    report.look(Group::Cluster, api_server::answers(&cluster).boxed()).await?;
    if report.failed() {
        return report.end();
    }
    report.look(Group::Operator, operator::check(&cluster, *pre).boxed()).await?;
    report.look(Group::Permissions, permissions::check(&cluster, &target).boxed()).await?;
    report.look(Group::Storage, storage::check(&cluster, &target).boxed()).await?;
    report.look(Group::Autoscaling, autoscaling::check(&cluster, &target).boxed()).await?;
    report.look(Group::Nodes, nodes::check(&cluster, &target).boxed()).await?;
    report.look(Group::Limits, limits::check(&cluster, &target).boxed()).await?;
    let tried =
        if *no_trial { trial::skipped() } else { trial::run(&cluster, &target, (*timeout).into()).boxed_local().await };
    report.add(Group::Trial, tried)?;
    report.end()
}

/// The platform that somebody gets who sets nothing.
fn defaults() -> Result<TaskPlatform, serde_json::Error> {
    serde_json::from_value(json!({
        "apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform", "metadata": {"name": "tasks"}, "spec": {},
    }))
}
