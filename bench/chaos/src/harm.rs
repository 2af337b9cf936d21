//! What is done to a platform.

use std::{fmt, time::Duration};

use anyhow::{Context, Result};
use clap::ValueEnum;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::DeleteParams};
use tokio::time::sleep;

use crate::target::{Target, command, node};

/// How long a node is away.
const AWAY: Duration = Duration::from_mins(1);

/// What is done to a platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// The primary's pod is deleted.
    PrimaryDeleted,
    /// All processes of the primary's container are killed.
    PrimaryKilled,
    /// PostgreSQL alone is killed on the primary.
    PostgresKilled,
    /// A replica's pod is deleted.
    ReplicaDeleted,
    /// All poolers are deleted at once.
    PoolersDeleted,
    /// All instances of the API are deleted at once.
    InstancesDeleted,
    /// Another member of the database is made to lead.
    SwitchedOver,
    /// What each member of the database gets is changed: all are replaced, the primary last.
    MembersReplaced,
    /// The node of the primary is drained.
    NodeDrained,
    /// The node of the primary stops for a minute.
    NodeFrozen,
    /// The node of the primary ends, and is started a minute later.
    NodeKilled,
    /// The network of the primary's node is away for a minute.
    NodeCutOff,
}

/// What has to be undone.
#[derive(Default)]
pub(crate) enum Harm {
    #[default]
    Nothing,
    /// A rolling change is on its way.
    Rolls,
    /// A node takes no pods.
    Drained(String),
    /// A node stands still.
    Frozen(String),
    /// A node has ended.
    Killed(String),
    /// A node reaches nobody.
    CutOff(String),
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value();
        f.write_str(name.as_ref().map_or("?", |value| value.get_name()))
    }
}

impl Scenario {
    pub(crate) async fn begin(self, target: &Target) -> Result<Harm> {
        match self {
            Self::PrimaryDeleted => delete(target, &[target.primary().await?]).await,
            Self::ReplicaDeleted => {
                let primary = target.primary().await?.name_any();
                let replica = target.pods_of("database").await?.into_iter().find(|pod| pod.name_any() != primary);
                delete(target, &[replica.context("no replica")?]).await
            }
            Self::PoolersDeleted => delete(target, &target.pods_of("pooler").await?).await,
            Self::InstancesDeleted => delete(target, &target.pods_of("api").await?).await,
            Self::PrimaryKilled => kill(&target.primary().await?, "all").await,
            Self::PostgresKilled => kill(&target.primary().await?, "postgres").await,
            Self::SwitchedOver => {
                target.switch_over().await?;
                Ok(Harm::Nothing)
            }
            Self::MembersReplaced => {
                target.change_members().await?;
                Ok(Harm::Rolls)
            }
            Self::NodeDrained => {
                let harm = Harm::Drained(node(&target.primary().await?)?);
                let Harm::Drained(node) = &harm else { return Ok(harm) };
                let drain = ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=110s"];
                command("kubectl", &drain).await?;
                Ok(harm)
            }
            Self::NodeFrozen => {
                let node = node(&target.primary().await?)?;
                command("docker", &["pause", &node]).await?;
                Ok(Harm::Frozen(node))
            }
            Self::NodeKilled => {
                let node = node(&target.primary().await?)?;
                command("docker", &["kill", &node]).await?;
                Ok(Harm::Killed(node))
            }
            Self::NodeCutOff => {
                let node = node(&target.primary().await?)?;
                network(&node, "-I").await?;
                Ok(Harm::CutOff(node))
            }
        }
    }
}

impl Harm {
    /// Ends what was begun; whether there was anything to end.
    pub(crate) async fn end(&mut self, target: &Target) -> Result<bool> {
        if matches!(self, Self::Frozen(_) | Self::Killed(_) | Self::CutOff(_)) {
            sleep(AWAY).await;
        }
        // Where that fails, it is tried again when this is dropped.
        match &*self {
            Self::Nothing => return Ok(false),
            Self::Rolls => target.settled().await?,
            Self::Drained(node) => {
                command("kubectl", &["uncordon", node]).await?;
            }
            Self::Frozen(node) => {
                command("docker", &["unpause", node]).await?;
            }
            Self::Killed(node) => {
                command("docker", &["start", node]).await?;
            }
            Self::CutOff(node) => network(node, "-D").await?,
        }
        // It is undone: what is left is not to be dropped.
        std::mem::forget(std::mem::take(self));
        Ok(true)
    }
}

impl Drop for Harm {
    /// A run that fails leaves nothing behind that the next one would fall over.
    fn drop(&mut self) {
        let (program, arguments) = match self {
            Self::Nothing | Self::Rolls => return,
            Self::Drained(node) => ("kubectl", vec!["uncordon", node]),
            Self::Frozen(node) => ("docker", vec!["unpause", node]),
            Self::Killed(node) => ("docker", vec!["start", node]),
            Self::CutOff(node) => ("docker", vec!["exec", node, "bash", "-c", NETWORK, "network", "-D"]),
        };
        let _ = std::process::Command::new(program).args(arguments).status();
    }
}

/// Takes the node's network away, or gives it back.
const NETWORK: &str = r#"for chain in INPUT OUTPUT FORWARD; do iptables "$1" $chain ! -i lo -j DROP 2>/dev/null || iptables "$1" $chain ! -o lo -j DROP; done"#;

async fn network(node: &str, change: &str) -> Result<()> {
    command("docker", &["exec", node, "bash", "-euc", NETWORK, "network", change]).await.map(drop)
}

async fn delete(target: &Target, pods: &[Pod]) -> Result<Harm> {
    let api = target.pods();
    try_join_all(pods.iter().map(async |pod| api.delete(&pod.name_any(), &DeleteParams::default()).await)).await?;
    Ok(Harm::Nothing)
}

/// Kills PostgreSQL's first process, or all processes of the container.
async fn kill(pod: &Pod, what: &str) -> Result<Harm> {
    let mut statuses = pod.status.iter().filter_map(|status| status.container_statuses.as_ref()).flatten();
    let id = statuses.find_map(|status| status.container_id.as_deref()).context("no container")?;
    let id = id.rsplit('/').next().unwrap_or(id);
    let script = r#"
        first=$(ctr -n k8s.io tasks ls | awk -v id="$1" '$1 == id { print $2 }')
        if [ "$2" = postgres ]; then first=$(pgrep -P "$first" -x postgres | head -1); fi
        kill -9 "$first"
    "#;
    command("docker", &["exec", &node(pod)?, "bash", "-euc", script, "kill", id, what]).await?;
    Ok(Harm::Nothing)
}
