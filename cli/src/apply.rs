//! `taskplatform apply`: shows the plan, asks, applies exactly that, and waits.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::PathBuf,
};

use kube::{ResourceExt, api::PostParams};
use taskplatform_crds::{Duration, TaskPlatform};

use crate::{
    cluster::Cluster,
    output,
    plan::{self, Plan, Planned},
    wait::{self, Goal},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    inputs: plan::Inputs,
    /// Apply only what this plan says (plan -o json); refuse if anything else would happen by now.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Do not wait until it serves.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait, such as 90s or 5m.
    #[arg(long, default_value = "10m")]
    timeout: Duration,
}

/// It was not applied, or did not come to serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Plan(#[from] plan::Error),
    #[error(transparent)]
    Wait(#[from] wait::Error),
    #[error(transparent)]
    Output(#[from] output::Error),
    #[error("the plan {file} cannot be read")]
    ReadPlan { file: String, source: io::Error },
    #[error("{file} is no plan: taskplatform plan -f FILE -o json makes one")]
    ParsePlan { file: String, source: serde_json::Error },
    #[error(
        "something else would happen by now than {file} says: {what}. Nothing was applied; plan again, look, and apply that"
    )]
    Moved { file: String, what: &'static str },
    #[error(
        "nobody can be asked, since the standard input is no terminal: give --yes to apply without asking. Nothing was applied"
    )]
    NobodyToAsk,
    #[error("not confirmed: nothing was applied")]
    Declined,
    #[error("the answer cannot be read")]
    Ask(#[source] io::Error),
    #[error("TaskPlatform {0} was changed while it was being applied: nothing was applied. Plan again")]
    Changed(String),
    #[error("namespace {0} does not exist: kubectl create namespace {0}")]
    Namespace(String),
    #[error("the API server refuses TaskPlatform {name}")]
    Refused { name: String, source: Box<kube::Error> },
    #[error("TaskPlatform {name} cannot be written")]
    Write { name: String, source: Box<kube::Error> },
}

pub(crate) async fn run(arguments: &Arguments) -> Result<(), Error> {
    let Arguments { inputs, plan: approved, yes, no_wait, timeout } = arguments;
    let Planned { cluster, wanted, plan, target, live } = plan::of(inputs).await?;
    if let Some(file) = approved {
        check(&plan, file)?;
    }
    output::write_coloured(&plan::text(&plan))?;
    if plan.is_empty() {
        return Ok(());
    }
    if !yes && approved.is_none() {
        confirm()?;
    }
    write(&cluster, &wanted, target, live.as_ref()).await?;
    if *no_wait {
        return Ok(output::write(&format!(
            "applied; taskplatform wait {} -n {} waits for it\n",
            plan.name, plan.namespace
        ))?);
    }
    Ok(wait::until(&cluster, &plan.namespace, &plan.name, Goal::Settled, *timeout).await?)
}

/// Whether the plan is still what would happen.
fn check(now: &Plan, file: &PathBuf) -> Result<(), Error> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|source| Error::ReadPlan { file: name.clone(), source })?;
    let then: Plan = serde_json::from_str(&text).map_err(|source| Error::ParsePlan { file: name.clone(), source })?;
    let same = [
        ("it is of another TaskPlatform", (&then.name, &then.namespace) == (&now.name, &now.namespace)),
        ("the TaskPlatform was made or deleted meanwhile", then.new == now.new),
        ("the file or the TaskPlatform has changed", then.spec == now.spec),
        ("objects have changed, or the operator has", then.changes == now.changes),
        ("PostgreSQL's settings have changed", then.settings == now.settings),
    ];
    match same.into_iter().find(|(_, same)| !same) {
        Some((what, _)) => Err(Error::Moved { file: name, what }),
        None => Ok(()),
    }
}

fn confirm() -> Result<(), Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::NobodyToAsk);
    }
    output::write("\nApply this? [y/N] ")?;
    io::stdout().flush().map_err(Error::Ask)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(Error::Ask)?;
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") { Ok(()) } else { Err(Error::Declined) }
}

/// What `kubectl apply` remembers of the last file that it applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Writes the TaskPlatform, if it is still the one that the plan was made for.
async fn write(
    cluster: &Cluster,
    wanted: &TaskPlatform,
    mut target: TaskPlatform,
    live: Option<&TaskPlatform>,
) -> Result<(), Error> {
    let (name, namespace) = (target.name_any(), target.namespace().unwrap_or_default());
    let platforms = cluster.platforms(&namespace);
    let parameters = PostParams { field_manager: Some("taskplatform".to_owned()), ..PostParams::default() };
    let failed = |error: kube::Error| match error {
        kube::Error::Api(ref status) if matches!(status.code, 400 | 403 | 422) => {
            Error::Refused { name: name.clone(), source: Box::new(error) }
        }
        error => Error::Write { name: name.clone(), source: Box::new(error) },
    };
    if target.metadata.resource_version.is_none() {
        return match platforms.create(&parameters, &target).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Err(Error::Changed(name)),
            Err(kube::Error::Api(status)) if status.is_not_found() => Err(Error::Namespace(namespace)),
            Err(error) => Err(failed(error)),
        };
    }
    // Else the next `kubectl apply` would take back what this one changes.
    if target.annotations().contains_key(LAST_APPLIED) {
        let text = serde_json::to_string(wanted).map_err(plan::Error::from)?;
        target.annotations_mut().insert(LAST_APPLIED.to_owned(), text);
    }
    loop {
        match platforms.replace(&name, &parameters, &target).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.is_conflict() => {
                let now = platforms.get_opt(&name).await.map_err(failed)?;
                let Some(now) = now.filter(|now| live.is_some_and(|live| is_still(now, live))) else {
                    return Err(Error::Changed(name));
                };
                if wanted.spec.api.replicas.is_none() {
                    target.spec.api.replicas = now.spec.api.replicas;
                }
                target.metadata.resource_version = now.metadata.resource_version;
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Whether nothing but the status was written, and the number of instances, which is the autoscaler's.
fn is_still(now: &TaskPlatform, before: &TaskPlatform) -> bool {
    let without_instances = |platform: &TaskPlatform| {
        let mut spec = platform.spec.clone();
        spec.api.replicas = None;
        spec
    };
    now.uid() == before.uid() && without_instances(now) == without_instances(before)
}
