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
    /// What each member of the database gets is changed: all are replaced, the primary last.
    MembersReplaced,
    /// The node of the primary stops for a minute.
    NodeFrozen,
}

/// What has to be undone.
#[derive(Default)]
pub(crate) struct Harm {
    /// A node.
    frozen: Option<String>,
    /// A rolling change is on its way.
    rolls: bool,
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
            Self::NodeFrozen => {
                let node = node(&target.primary().await?)?;
                command("docker", &["pause", &node]).await?;
                Ok(Harm { frozen: Some(node), rolls: false })
            }
            Self::MembersReplaced => {
                target.change_members().await?;
                Ok(Harm { frozen: None, rolls: true })
            }
        }
    }
}

impl Harm {
    /// Ends what was begun; whether there was anything to end.
    pub(crate) async fn end(&mut self, target: &Target) -> Result<bool> {
        if std::mem::take(&mut self.rolls) {
            target.settled().await?;
            return Ok(true);
        }
        let Some(node) = &self.frozen else { return Ok(false) };
        sleep(AWAY).await;
        command("docker", &["unpause", node]).await?;
        self.frozen = None;
        Ok(true)
    }
}

impl Drop for Harm {
    fn drop(&mut self) {
        if let Some(node) = &self.frozen {
            let _ = std::process::Command::new("docker").args(["unpause", node]).status();
        }
    }
}

async fn delete(target: &Target, pods: &[Pod]) -> Result<Harm> {
    let api = target.pods();
    try_join_all(pods.iter().map(async |pod| api.delete(&pod.name_any(), &DeleteParams::default()).await)).await?;
    Ok(Harm::default())
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
    Ok(Harm::default())
}
