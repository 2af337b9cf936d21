//! What a plan says: the next steps, and what they mean for the cluster's health.

use std::fmt;

use super::step::Step;
use crate::keepers::redis::topology::Topology;

/// What to do next, and what it means for the cluster's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::keepers::redis) struct Plan {
    pub(in crate::keepers::redis) steps: Vec<Step>,
    pub(in crate::keepers::redis) outlook: Outlook,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::keepers::redis) enum Outlook {
    /// Everything is as the target says.
    Settled,
    /// The steps lead on, or time alone does.
    Working(String),
    /// Pods are still to come; nothing changes before Kubernetes has them.
    Incomplete(String),
    /// It takes Kubernetes or a person to go on.
    Stuck(String),
}

impl fmt::Display for Outlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settled => f.write_str("everything is as it should be"),
            Self::Working(message) | Self::Incomplete(message) | Self::Stuck(message) => f.write_str(message),
        }
    }
}

impl Plan {
    /// The plan in words: why, and then each step.
    pub(in crate::keepers::redis) fn sentence(&self, topology: &Topology) -> String {
        let steps: Vec<String> = self.steps.iter().map(|step| step.sentence(topology).to_string()).collect();
        let colon = if steps.is_empty() { "" } else { ": " };
        format!("{}{colon}{}", self.outlook, steps.join("; "))
    }
}

/// Steps, if there are any.
pub(super) fn act(steps: Vec<Step>, message: impl Into<String>) -> Option<Plan> {
    (!steps.is_empty()).then(|| Plan { steps, outlook: Outlook::Working(message.into()) })
}

pub(super) fn wait(message: impl Into<String>) -> Option<Plan> {
    stop(Outlook::Working(message.into()))
}

pub(super) fn await_pods(message: impl Into<String>) -> Option<Plan> {
    stop(Outlook::Incomplete(message.into()))
}

pub(super) fn stuck(message: impl Into<String>) -> Option<Plan> {
    stop(Outlook::Stuck(message.into()))
}

#[expect(clippy::unnecessary_wraps, reason = "as every rung answers")]
fn stop(outlook: Outlook) -> Option<Plan> {
    Some(Plan { steps: Vec::new(), outlook })
}
