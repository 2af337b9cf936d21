//! What a plan says: the next steps, and what they mean for the cluster's health.

use super::step::Step;

/// What to do next, and what it means for the cluster's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::redis) struct Plan {
    pub(in crate::redis) steps: Vec<Step>,
    pub(in crate::redis) outlook: Outlook,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::redis) enum Outlook {
    /// Everything is as the target says.
    Settled,
    /// The steps lead on, or time alone does.
    Working(String),
    /// Pods are still to come; nothing changes before Kubernetes has them.
    Incomplete(String),
    /// It takes Kubernetes or a person to go on.
    Stuck(String),
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
