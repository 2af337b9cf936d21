//! Forms, heals, grows and shrinks a Redis Cluster over the Redis protocol.
//!
//! Kubernetes keeps the pods running; what it cannot do is tell Redis nodes of each other. [`reconcile`] observes every member,
//! decides the next steps ([`plan`]) and carries them out, again and again until the cluster is as its target says or the time
//! is up. It remembers nothing: whatever state a crash or an outage left is where it goes on from.

mod connection;
mod error;
mod execute;
mod health;
pub(crate) mod passwords;
mod placement;
mod plan;
mod slots;
mod target;
#[cfg(test)]
mod tests;
mod topology;

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::debug;

use crate::world::ordinal;

pub(crate) use connection::{Connections, Passwords};
pub(crate) use error::Error;
use execute::POLL;
pub(crate) use health::{Health, Shard, State};
use plan::{Outlook, Plan, Step};
pub(crate) use slots::SLOTS;
pub(crate) use target::{Member, Pods, Target};

/// How long one [`reconcile`] goes on. A cluster of fresh pods is formed in less; a long copy or migration goes on in the next.
const BUDGET: Duration = Duration::from_secs(10);

/// How long it waits for what others bring about. Meanwhile the pods may have changed, which only the caller sees.
const PATIENCE: Duration = Duration::from_secs(4);

/// Brings the cluster of these pods closer to the target, in a bounded time, and says how it is then. While it answers
/// [`State::Working`], call it again soon.
pub(crate) async fn reconcile(connections: &mut Connections, pods: &Pods, target: &Target) -> Result<Health, Error> {
    reconcile_within(connections, pods, target, BUDGET).await
}

/// How the cluster of these pods is; nothing is changed.
pub(crate) async fn look(connections: &mut Connections, pods: &Pods, target: &Target) -> Result<Health, Error> {
    let topology = connections.observe(pods.count, &in_order(&pods.members)?).await?;
    let plan = plan::plan(&topology, target);
    Ok(Health::new(&topology, target, plan.outlook))
}

async fn reconcile_within(
    connections: &mut Connections,
    pods: &Pods,
    target: &Target,
    budget: Duration,
) -> Result<Health, Error> {
    let members = in_order(&pods.members)?;
    let deadline = Instant::now() + budget;
    let mut previous = Vec::new();
    let mut last_step = Instant::now();
    loop {
        let topology = connections.observe(pods.count, &members).await?;
        let plan = plan::plan(&topology, target);
        if plan.steps != previous {
            debug!(plan = plan.sentence(&topology), "the plan has changed");
        }
        let Plan { steps, outlook } = plan;
        if !steps.is_empty() {
            last_step = Instant::now();
        }
        let over = Instant::now() >= deadline || last_step.elapsed() >= PATIENCE;
        if over || !matches!(outlook, Outlook::Working(_)) {
            return Ok(Health::new(&topology, target, outlook));
        }
        // Members are not observed at one instant, and one may be in the middle of a failover. What two looks in a row lead to holds.
        if (steps == previous || steps.iter().all(Step::is_harmless))
            && let Err(error) = execute::execute(&steps, &topology, connections, deadline).await
        {
            // Often the cluster has changed since it was observed, and the next plan is another.
            if Instant::now() >= deadline {
                return Err(error);
            }
            debug!(%error, "a step failed");
        }
        previous = steps;
        sleep(POLL).await;
    }
}

fn in_order(members: &[Member]) -> Result<Vec<(u32, Member)>, Error> {
    let ordinal = |member: &Member| ordinal(&member.pod).and_then(|ordinal| u32::try_from(ordinal).ok());
    let mut ordered = members
        .iter()
        .map(|member| match ordinal(member) {
            Some(ordinal) => Ok((ordinal, member.clone())),
            None => Err(Error::Name { pod: member.pod.clone() }),
        })
        .collect::<Result<Vec<_>, _>>()?;
    ordered.sort_by_key(|(ordinal, _)| *ordinal);
    Ok(ordered)
}
