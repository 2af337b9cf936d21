//! What is done to a platform.

use std::{collections::BTreeSet, fmt, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::DeleteParams};
use tokio::time::sleep;

use crate::target::{OPERATOR, Target, command, eventually, node};

/// How long a node, or the network, is away.
const AWAY: Duration = Duration::from_mins(1);
/// How long the API server of the cluster is away.
const API_SERVER_AWAY: Duration = Duration::from_mins(2);
const UNDISTURBED: Duration = Duration::from_secs(30);
/// In the middle of a switchover.
const MIDDLE: Duration = Duration::from_millis(400);

/// What is done to a platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Nothing is done, for half a minute.
    Undisturbed,
    /// The primary's pod is deleted.
    PrimaryDeleted,
    /// All processes of the primary's container are killed.
    PrimaryKilled,
    /// PostgreSQL alone is killed on the primary.
    PostgresKilled,
    /// A replica's pod is deleted.
    ReplicaDeleted,
    /// The replicas receive no log for a minute.
    ReceiversStopped,
    /// All poolers are deleted at once.
    PoolersDeleted,
    /// All instances of the API are deleted at once.
    InstancesDeleted,
    /// All nodes of the session store are deleted at once.
    SessionsDeleted,
    /// Another member of the database is made to lead.
    SwitchedOver,
    /// Another member is made to lead, and its PostgreSQL is killed at once.
    SwitchedOverAndKilled,
    /// Another member is made to lead, and the operator is killed in the middle.
    OperatorKilled,
    /// What each member of the database gets is changed: all are replaced, the primary last.
    MembersReplaced,
    /// The operator comes with another image of PostgreSQL: all members are replaced, the primary last.
    ImageUpgraded,
    /// The node of the primary is drained.
    NodeDrained,
    /// All nodes of the platform are drained, one after another.
    EachNodeDrained,
    /// The node of the primary stops for a minute.
    NodeFrozen,
    /// The node of the primary ends, and is started a minute later.
    NodeKilled,
    /// The network of the primary's node is away for a minute.
    NodeCutOff,
    /// Nothing reaches the primary's node for a minute; what it sends arrives.
    NodeDeaf,
    /// The primary's node does not reach the API server for a minute.
    NodeWithoutApiServer,
    /// Of what reaches the primary's node, 30 % is lost for a minute.
    PacketsLost,
    /// The API server of the cluster stands still for two minutes.
    ApiServerFrozen,
    /// All containers on all nodes of the platform are killed at once.
    EverythingKilled,
}

/// What has to be undone.
#[derive(Default)]
pub(crate) enum Harm {
    #[default]
    Nothing,
    /// A rolling change is on its way.
    Rolls,
    /// It lasts for so long, and is undone by this command.
    Lasts { time: Duration, undo: Vec<String> },
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value();
        f.write_str(name.as_ref().map_or("?", |value| value.get_name()))
    }
}

impl Scenario {
    pub(crate) async fn begin(self, target: &Target) -> Result<Harm> {
        let on_node = async || node(&target.primary().await?);
        match self {
            Self::Undisturbed => {
                sleep(UNDISTURBED).await;
                Ok(Harm::Nothing)
            }
            Self::PrimaryDeleted => delete(target, &[target.primary().await?]).await,
            Self::ReplicaDeleted => {
                let primary = target.primary().await?.name_any();
                let replica = target.pods_of("database").await?.into_iter().find(|pod| pod.name_any() != primary);
                delete(target, &[replica.context("no replica")?]).await
            }
            Self::PoolersDeleted => delete(target, &target.pods_of("pooler").await?).await,
            Self::InstancesDeleted => delete(target, &target.pods_of("api").await?).await,
            Self::SessionsDeleted => delete(target, &target.pods_of("sessions").await?).await,
            Self::PrimaryKilled => kill(&target.primary().await?, "all").await,
            Self::PostgresKilled => kill(&target.primary().await?, "postgres").await,
            Self::SwitchedOver => {
                target.switch_over().await?;
                Ok(Harm::Nothing)
            }
            Self::SwitchedOverAndKilled => {
                target.switch_over().await?;
                kill(&target.primary().await?, "postgres").await
            }
            Self::OperatorKilled => {
                let (switched, killed) = tokio::join!(target.switch_over(), kill_operator(target));
                killed?;
                switched?;
                Ok(Harm::Nothing)
            }
            Self::MembersReplaced => {
                target.change_members().await?;
                Ok(Harm::Rolls)
            }
            Self::ImageUpgraded => {
                target.change_image(&nodes(target).await?).await?;
                Ok(Harm::Rolls)
            }
            Self::NodeDrained => drain(&on_node().await?).await,
            Self::EachNodeDrained => {
                for node in nodes(target).await? {
                    drain(&node).await?.end(target).await?;
                    target.settled().await?;
                }
                Ok(Harm::Nothing)
            }
            Self::NodeFrozen => {
                let node = on_node().await?;
                command("docker", &["pause", &node]).await?;
                Ok(Harm::lasting(AWAY, &["docker", "unpause", &node]))
            }
            Self::NodeKilled => {
                let node = on_node().await?;
                command("docker", &["kill", &node]).await?;
                Ok(Harm::lasting(AWAY, &["docker", "start", &node]))
            }
            Self::NodeCutOff => shut_off(&on_node().await?, NETWORK).await,
            Self::NodeDeaf => shut_off(&on_node().await?, WHAT_COMES).await,
            Self::NodeWithoutApiServer => shut_off(&on_node().await?, API_SERVER).await,
            Self::PacketsLost => shut_off(&on_node().await?, LOSS).await,
            Self::ReceiversStopped => {
                let (stop, go) = ("pkill -STOP -f [w]alreceiver || true", "pkill -CONT -f [w]alreceiver || true");
                on_nodes(&nodes(target).await?, AWAY, stop, go).await
            }
            Self::ApiServerFrozen => {
                let control_plane = control_plane(&on_node().await?);
                let (stop, go) = ("pkill -STOP kube-apiserver", "pkill -CONT kube-apiserver");
                on_nodes(&[control_plane].into(), API_SERVER_AWAY, stop, go).await
            }
            Self::EverythingKilled => {
                let script = "ctr -n k8s.io tasks ls | awk 'NR > 1 { print $2 }' | xargs kill -9; true";
                on_nodes(&nodes(target).await?, Duration::ZERO, script, "true").await
            }
        }
    }
}

impl Harm {
    fn lasting(time: Duration, undo: &[&str]) -> Self {
        Self::Lasts { time, undo: undo.iter().map(|&word| word.to_owned()).collect() }
    }

    /// Ends what was begun; whether there was anything to end.
    pub(crate) async fn end(&mut self, target: &Target) -> Result<bool> {
        // Where that fails, it is tried again when this is dropped.
        match &*self {
            Self::Nothing => return Ok(false),
            Self::Rolls => target.settled().await?,
            Self::Lasts { time, undo } => {
                sleep(*time).await;
                let words: Vec<&str> = undo.iter().map(String::as_str).collect();
                let (program, arguments) = words.split_first().context("nothing undoes it")?;
                command(program, arguments).await?;
            }
        }
        // It is undone: what is left is not to be dropped.
        std::mem::forget(std::mem::take(self));
        Ok(true)
    }
}

impl Drop for Harm {
    /// A run that fails leaves nothing behind that the next one would fall over.
    fn drop(&mut self) {
        if let Self::Lasts { undo, .. } = self
            && let Some((program, arguments)) = undo.split_first()
        {
            let _ = std::process::Command::new(program).args(arguments).status();
        }
    }
}

/// Takes the node's network away with -I, or gives it back with -D.
const NETWORK: &str = r#"for chain in INPUT OUTPUT FORWARD; do iptables "$1" $chain ! -i lo -j DROP 2>/dev/null || iptables "$1" $chain ! -o lo -j DROP; done"#;
/// The same for what comes from other nodes.
const WHAT_COMES: &str = r#"for chain in INPUT FORWARD; do iptables "$1" $chain -i eth0 -j DROP; done"#;
/// The same for what goes to the API server.
const API_SERVER: &str = r#"for chain in OUTPUT FORWARD; do iptables "$1" $chain -p tcp --dport 6443 -j DROP; done"#;
/// Three in ten of the packets that come.
const LOSS: &str = r#"for chain in INPUT FORWARD; do iptables "$1" $chain ! -i lo -m statistic --mode random --probability 0.3 -j DROP; done"#;

async fn shut_off(node: &str, script: &str) -> Result<Harm> {
    let harm = Harm::lasting(AWAY, &["docker", "exec", node, "bash", "-c", script, "network", "-D"]);
    command("docker", &["exec", node, "bash", "-euc", script, "network", "-I"]).await?;
    Ok(harm)
}

async fn drain(node: &str) -> Result<Harm> {
    let harm = Harm::lasting(Duration::ZERO, &["kubectl", "uncordon", node]);
    let drain = ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=110s"];
    command("kubectl", &drain).await?;
    Ok(harm)
}

/// Runs a script on all of these nodes at once, and another one after some time.
async fn on_nodes(nodes: &BTreeSet<String>, time: Duration, script: &str, undo: &str) -> Result<Harm> {
    let all: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let undo = format!("for node in {}; do docker exec \"$node\" bash -c '{undo}'; done", all.join(" "));
    let harm = Harm::lasting(time, &["bash", "-c", &undo]);
    try_join_all(
        nodes.iter().map(|node| async move { command("docker", &["exec", node, "bash", "-uc", script]).await }),
    )
    .await?;
    Ok(harm)
}

/// The nodes that the platform runs on.
async fn nodes(target: &Target) -> Result<BTreeSet<String>> {
    target.pods_of("").await?.iter().map(node).collect()
}

/// The node of the API server of the kind cluster that a node belongs to.
fn control_plane(node: &str) -> String {
    format!(
        "{}-control-plane",
        node.trim_end_matches(|letter: char| letter.is_ascii_digit()).trim_end_matches("-worker")
    )
}

async fn kill_operator(target: &Target) -> Result<()> {
    sleep(MIDDLE).await;
    let pods: Api<Pod> = Api::namespaced(target.client.clone(), OPERATOR);
    let at_once = DeleteParams::default().grace_period(0);
    let replicas = target.operator().await?;
    try_join_all(replicas.iter().map(async |pod| pods.delete(&pod.name_any(), &at_once).await)).await?;
    Ok(())
}

/// Deletes pods, and waits until they are gone.
async fn delete(target: &Target, pods: &[Pod]) -> Result<Harm> {
    let api = target.pods();
    try_join_all(pods.iter().map(async |pod| api.delete(&pod.name_any(), &DeleteParams::default()).await)).await?;
    let deleted: BTreeSet<_> = pods.iter().filter_map(ResourceExt::uid).collect();
    eventually("the pods that were deleted are gone", 90, async || {
        let left = target.pods_of("").await?.iter().filter_map(ResourceExt::uid).find(|uid| deleted.contains(uid));
        ensure!(left.is_none(), "{left:?} is there");
        Ok(())
    })
    .await?;
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
