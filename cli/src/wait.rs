//! `taskplatform wait`: until a platform serves requests, and what it waits for until then.

use std::{collections::BTreeMap, time::Duration};

use clap::ValueEnum;
use futures::TryStreamExt;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle, style::TemplateError};
use kube::{Api, runtime::watcher};
use taskplatform_blueprint::Component;
use taskplatform_crds::TaskPlatform;

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
    /// What to wait for.
    #[arg(long = "for", value_enum, default_value_t = Goal::Ready)]
    goal: Goal,
    /// How long to wait, such as 90s or 5m.
    #[arg(long, default_value = "5m")]
    timeout: taskplatform_crds::Duration,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Goal {
    /// It serves requests.
    Ready,
    /// It serves, and nothing of its spec is still on its way.
    Settled,
}

/// Why the platform does not serve, or cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    #[error("the TaskPlatform cannot be watched: is its definition installed (kubectl get crd), and may you list it?")]
    Watch(#[source] Box<watcher::Error>),
    #[error(
        "{name} does not serve as its spec says after {timeout}: {why}\n  taskplatform status {name} -n {namespace} tells more"
    )]
    Timeout { name: String, namespace: String, timeout: taskplatform_crds::Duration, why: String },
    #[error("the watch of the TaskPlatform has ended: run the command again")]
    Ended,
    #[error(transparent)]
    Output(#[from] output::Error),
    #[error("{name} cannot be built: {why}")]
    Stalled { name: String, why: String },
    #[error("there is no TaskPlatform {name} in namespace {namespace}: kubectl get tp -A lists them")]
    Missing { name: String, namespace: String },
    #[error("the view cannot be drawn")]
    View(#[from] TemplateError),
}

pub(crate) async fn run(arguments: &Arguments) -> Result<(), Error> {
    let Arguments { name, cluster, goal, timeout } = arguments;
    let cluster = cluster.connect().await?;
    let namespace = cluster.namespace.clone();
    until(&cluster, &namespace, name, *goal, *timeout).await
}

/// Waits, and shows what for.
pub(crate) async fn until(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    goal: Goal,
    timeout: taskplatform_crds::Duration,
) -> Result<(), Error> {
    if cluster.platform(namespace, name).await?.is_none() {
        return Err(Error::Missing { name: name.to_owned(), namespace: namespace.to_owned() });
    }
    let api = cluster.platforms(namespace);
    let mut view = View::new(name)?;
    let mut why =
        "the operator has not reported yet: is it running (kubectl -n taskplatform-system get pods)?".to_owned();
    let watching = follow(&api, name, goal, &mut view, &mut why);
    let result = tokio::time::timeout(Duration::from(timeout), watching).await;
    view.end();
    let timed_out = |_| Err(Error::Timeout { name: name.to_owned(), namespace: namespace.to_owned(), timeout, why });
    Ok(output::write(&closing(&result.unwrap_or_else(timed_out)?, namespace, name))?)
}

/// Where it answers, how to get there from here, and where to look next.
fn closing(platform: &TaskPlatform, namespace: &str, name: &str) -> String {
    let gateway = platform.status.as_ref().and_then(|status| status.gateway.as_ref());
    let address = gateway.map_or("the gateway", |gateway| &gateway.address);
    format!(
        "{name} serves at {address}
From here: kubectl -n {namespace} port-forward service/{name}-gateway 8080:80, then http://127.0.0.1:8080
How it is: taskplatform status {name} -n {namespace}
"
    )
}

async fn follow(
    api: &Api<TaskPlatform>,
    name: &str,
    goal: Goal,
    view: &mut View,
    why: &mut String,
) -> Result<TaskPlatform, Error> {
    let mut platforms = std::pin::pin!(Cluster::changes(api.clone(), name));
    while let Some(platform) = platforms.try_next().await.map_err(|error| Error::Watch(Box::new(error)))? {
        let conditions = conditions(&platform);
        view.show(&conditions);
        let Some(ready) = conditions.get("Ready") else { continue };
        if let Some(stalled) = conditions.get("Stalled").filter(|stalled| stalled.holds) {
            return Err(Error::Stalled { name: name.to_owned(), why: stalled.message.clone() });
        }
        let moving = conditions.get("Reconciling").filter(|moving| moving.holds);
        match (ready.holds, goal, moving) {
            (true, Goal::Ready, _) | (true, Goal::Settled, None) => return Ok(platform),
            (true, Goal::Settled, Some(moving)) => why.clone_from(&moving.message),
            (false, _, _) => why.clone_from(&ready.message),
        }
    }
    Err(Error::Ended)
}

struct State {
    holds: bool,
    message: String,
}

/// The conditions that speak of the spec as it is now.
fn conditions(platform: &TaskPlatform) -> BTreeMap<String, State> {
    let current = platform.metadata.generation;
    let conditions = platform.status.iter().flat_map(|status| &status.conditions);
    conditions
        .filter(|condition| condition.observed_generation == current)
        .map(|condition| {
            let state = State { holds: condition.status == "True", message: condition.message.clone() };
            (condition.type_.clone(), state)
        })
        .collect()
}

/// A line a component: drawn anew on a terminal, written when it changes elsewhere.
struct View {
    bars: MultiProgress,
    lines: BTreeMap<String, ProgressBar>,
    shown: BTreeMap<String, String>,
    title: ProgressBar,
    drawn: bool,
}

impl View {
    fn new(name: &str) -> Result<Self, Error> {
        let bars = MultiProgress::new();
        let title = bars
            .add(ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg} ({elapsed})")?));
        title.set_message(format!("waiting for {name}"));
        title.enable_steady_tick(Duration::from_millis(200));
        let mut lines = BTreeMap::new();
        for component in Component::all().map(Component::title) {
            let line = bars
                .add(ProgressBar::new_spinner().with_style(ProgressStyle::with_template("  {prefix:10} {wide_msg}")?));
            line.set_prefix(component.clone());
            lines.insert(component, line);
        }
        let drawn = !bars.is_hidden();
        Ok(Self { bars, lines, shown: BTreeMap::new(), title, drawn })
    }

    fn show(&mut self, conditions: &BTreeMap<String, State>) {
        for component in Component::all().map(Component::title) {
            let Some(state) = conditions.get(&format!("{component}Ready")) else { continue };
            let message = format!("{} {}", if state.holds { "✓" } else { "…" }, state.message);
            if self.shown.get(&component) == Some(&message) {
                continue;
            }
            if self.drawn {
                self.lines[&component].set_message(message.clone());
            } else {
                println!("  {component:10} {message}");
            }
            self.shown.insert(component, message);
        }
    }

    fn end(&self) {
        self.title.finish_and_clear();
        for line in self.lines.values() {
            line.finish();
        }
        let _ = self.bars.println("");
    }
}
