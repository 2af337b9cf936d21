//! What takes several steps in order. The step follows from what is there, so that another operator goes on with it; which one it is, and
//! since when, stands in the status. Each step has a deadline, after which the status says what to do, and is undone by the spec as it was
//! before: what is of neither version and not ready goes first.

pub(crate) mod rollout;

use jiff::Timestamp;
use taskplatform_blueprint::Draft;
use taskplatform_crds::ProcedureStatus;

/// The place of a procedure, with the time since which it has been there.
pub(crate) fn place(draft: &Draft, name: &str, step: String, now: Timestamp) -> ProcedureStatus {
    let before = draft.status().and_then(|status| status.procedure.as_ref());
    let since = before.filter(|before| before.name == name && before.step == step).map(|before| before.since.clone());
    ProcedureStatus { name: name.to_owned(), step, since: since.unwrap_or_else(|| now.to_string()) }
}

/// Whether it has been at its step for longer than it should take.
pub(crate) fn is_late(place: &ProcedureStatus, deadline: std::time::Duration, now: Timestamp) -> bool {
    let since: Option<Timestamp> = place.since.parse().ok();
    since.is_some_and(|since| now.duration_since(since).unsigned_abs() > deadline)
}
