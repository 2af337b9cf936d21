//! `taskplatform plan`: what applying a file would do, object by object.

mod text;

use std::process::ExitCode;

use kube::{ResourceExt, api::ObjectMeta};
use serde::{Deserialize, Serialize};
use taskplatform_blueprint::{
    Band, Change, Draft, FieldChange, Invalid, Platform, SettingChange, Totals, Unpriced, bands, blueprint,
    differences, estimate, findings, fixed_instances, plan, settings,
};
use taskplatform_crds::TaskPlatform;

use crate::{
    cluster::{self, Cluster},
    cost::{self, Assumptions},
    output::{self, Format},
    source::{self, Files},
};

/// What is to be applied, where, and at what prices.
#[derive(clap::Args)]
pub(crate) struct Inputs {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    cluster: cluster::Arguments,
    #[command(flatten)]
    assumptions: Assumptions,
}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    inputs: Inputs,
    /// Exit with 0 if nothing changes, with 2 if something does, and with 1 on errors.
    #[arg(long)]
    detailed_exitcode: bool,
    /// How it is written; apply --plan takes the JSON.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// There is no plan.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Source(#[from] source::Error),
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    #[error(transparent)]
    Cost(#[from] cost::Error),
    #[error("TaskPlatform {name} cannot be built: {source}")]
    Invalid { name: String, source: Invalid },
    #[error("TaskPlatform {name} would be refused: {why}")]
    Refused { name: String, why: String },
    #[error("a TaskPlatform cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Output(#[from] output::Error),
}

impl From<Unpriced> for Error {
    fn from(error: Unpriced) -> Self {
        Self::Cost(error.into())
    }
}

/// What applying a TaskPlatform would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// The TaskPlatform is made; else it is changed.
    pub(crate) new: bool,
    /// How its spec changes.
    pub(crate) spec: Vec<FieldChange>,
    /// What becomes of its objects.
    pub(crate) changes: Vec<Change>,
    /// What becomes of PostgreSQL's settings.
    pub(crate) settings: Vec<SettingChange>,
    /// Between which uses the autoscaler leaves things as they are.
    pub(crate) bands: Vec<Band>,
    pub(crate) cost: CostChange,
    /// What will disappoint, though it can be built.
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
    pub(crate) totals: Totals,
}

/// What a month costs, before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CostChange {
    pub(crate) currency: String,
    pub(crate) before: Option<Range>,
    pub(crate) after: Range,
}

/// A cost over the range of the autoscaler.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Range {
    pub(crate) minimum: f64,
    pub(crate) maximum: f64,
}

/// A plan, and what applying it takes.
pub(crate) struct Planned {
    pub(crate) cluster: Cluster,
    /// The TaskPlatform of the file.
    pub(crate) wanted: TaskPlatform,
    pub(crate) plan: Plan,
    /// What is to be written.
    pub(crate) target: TaskPlatform,
    /// What is there.
    pub(crate) live: Option<TaskPlatform>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        !self.new && self.spec.is_empty() && self.changes.is_empty()
    }
}

/// The plan as people read it.
pub(crate) fn text(plan: &Plan) -> String {
    text::of(plan)
}

pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let Arguments { inputs, detailed_exitcode, output } = arguments;
    let Planned { plan, .. } = of(inputs).await?;
    match output {
        Format::Json => output::json(&plan)?,
        Format::Text => output::write_coloured(&text(&plan))?,
    }
    Ok(if *detailed_exitcode && !plan.is_empty() { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

/// The plan for the TaskPlatform of a file.
pub(crate) async fn of(inputs: &Inputs) -> Result<Planned, Error> {
    let Inputs { files, cluster, assumptions } = inputs;
    let wanted = files.read()?.one()?;
    let cluster = cluster.connect().await?;
    let name = wanted.name_any();
    let namespace = wanted.namespace().unwrap_or_else(|| cluster.namespace.clone());
    let (live, objects) = tokio::try_join!(cluster.platform(&namespace, &name), cluster.objects(&namespace, &name))?;
    let facts = cluster.facts(&objects).await?;

    let target = merged(&wanted, live.as_ref(), &namespace);
    if let Some(live) = &live {
        target.check_change(live).map_err(|rules| Error::Refused { name: name.clone(), why: rules.to_string() })?;
    }
    let platform = Platform::new(&target).map_err(|source| Error::Invalid { name: name.clone(), source })?;
    // One that is there and cannot be built was never applied.
    let before = live.as_ref().and_then(|live| Platform::new(live).ok());
    let owner = live.as_ref().map(|live| Draft::from(live).owner_reference());
    let changes = plan(&blueprint(&platform, &facts), &objects, owner.as_ref());

    let (prices, capacity) = (assumptions.prices()?, assumptions.capacity());
    let range = |platform: &Platform| {
        let scaling = &platform.spec().scaling;
        let at = |instances| estimate(platform, instances, capacity, &prices).map(|estimate| estimate.total);
        Ok::<_, Unpriced>(Range {
            minimum: at(scaling.min_instances.get())?,
            maximum: at(scaling.max_instances.get())?,
        })
    };
    let spec = match &live {
        Some(live) => differences(&serde_json::to_value(&live.spec)?, &serde_json::to_value(&target.spec)?),
        None => Vec::new(),
    };
    let plan = Plan {
        name,
        namespace,
        new: live.is_none(),
        spec,
        totals: Totals::of(&changes),
        changes,
        settings: before.as_ref().map(|before| settings(before, &platform)).unwrap_or_default(),
        // What is an error was refused above.
        warnings: findings(&target, None).iter().chain(&fixed_instances(&wanted)).map(ToString::to_string).collect(),
        bands: bands(&platform.spec().scaling, facts.requests_per_second),
        cost: CostChange {
            currency: prices.currency.clone(),
            before: before.as_ref().map(range).transpose()?,
            after: range(&platform)?,
        },
    };
    Ok(Planned { cluster, wanted, plan, target, live })
}

/// What is written: the file's spec, whole. Only the number of instances, where the file has none, stays the autoscaler's.
fn merged(wanted: &TaskPlatform, live: Option<&TaskPlatform>, namespace: &str) -> TaskPlatform {
    let mut target = wanted.clone();
    target.status = None;
    // A file may be a copy of what was there once.
    target.metadata = ObjectMeta {
        name: wanted.metadata.name.clone(),
        namespace: Some(namespace.to_owned()),
        labels: wanted.metadata.labels.clone(),
        annotations: wanted.metadata.annotations.clone(),
        ..ObjectMeta::default()
    };
    let Some(live) = live else { return target };
    if target.spec.api.replicas.is_none() {
        target.spec.api.replicas = live.spec.api.replicas;
    }
    // Labels and annotations that others gave it stay.
    let mut metadata = live.metadata.clone();
    metadata.labels.get_or_insert_default().extend(wanted.metadata.labels.clone().unwrap_or_default());
    metadata.annotations.get_or_insert_default().extend(wanted.metadata.annotations.clone().unwrap_or_default());
    metadata.managed_fields = None;
    target.metadata = metadata;
    target
}
