//! The step that a rotation is at. Plain decisions, without any I/O.

use std::{fmt, time::Duration};

use jiff::Timestamp;

/// The files of a Secret reach a pod within a minute of kubelet's, and its cache's; meanwhile it knows the password before.
const FILES_ARRIVE: Duration = Duration::from_mins(3);

/// The API signs with the key before for 10 minutes; so long somebody may take from one page of a list to the next.
const PAGES_ARE_READ: Duration = Duration::from_hours(1);
const SIGNING: &str = "signing-key";

/// What is known of a rotation.
#[derive(Debug)]
pub(super) struct Sight {
    /// The keys of the passwords that have another one before.
    pub(super) rotating: Vec<&'static str>,
    /// When one was changed last.
    pub(super) since: Option<Timestamp>,
    /// What is still waited for.
    pub(super) unfinished: Option<String>,
    pub(super) now: Timestamp,
}

/// The step that a rotation is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Both passwords are taken, until everything has moved.
    Await { keys: Vec<&'static str>, until: String },
    /// The passwords before are taken no more.
    Dismiss { keys: Vec<&'static str> },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Await { keys, until } => write!(f, "{}: both passwords are taken until {until}", keys.join(", ")),
            Self::Dismiss { keys } => write!(f, "{}: the former password is taken no more", keys.join(", ")),
        }
    }
}

pub(super) fn step(sight: &Sight) -> Step {
    let Sight { rotating, since, unfinished, now } = sight;
    let wait = |until: String| Step::Await { keys: rotating.clone(), until };
    if let Some(until) = unfinished {
        return wait(until.clone());
    }
    let age = since.map_or(Duration::MAX, |since| now.duration_since(since).unsigned_abs());
    let due: Vec<&'static str> = rotating.iter().copied().filter(|key| age > stays(key)).collect();
    if !due.is_empty() {
        return Step::Dismiss { keys: due };
    }
    let soonest = rotating.iter().map(|key| stays(key)).min().unwrap_or_default();
    wait(format!("{} min after the change", soonest.as_secs() / 60))
}

/// How long the password before is taken at least.
fn stays(key: &str) -> Duration {
    if key == SIGNING { PAGES_ARE_READ } else { FILES_ARRIVE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_before_goes_when_everything_has_moved_and_not_before() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let sight = |since: &str, unfinished: Option<&str>| Sight {
            rotating: vec!["tasks-password"],
            since: since.parse().ok(),
            unfinished: unfinished.map(str::to_owned),
            now,
        };
        let is_dismissal = |sight: &Sight| matches!(step(sight), Step::Dismiss { .. });
        assert!(!is_dismissal(&sight("2026-01-01T11:59:00Z", None)), "files may not have arrived");
        assert!(!is_dismissal(&sight("2026-01-01T10:00:00Z", Some("tasks-api"))), "pods have not moved");
        assert!(is_dismissal(&sight("2026-01-01T11:56:00Z", None)));
        let both = Sight { rotating: vec!["signing-key", "tasks-password"], ..sight("2026-01-01T11:30:00Z", None) };
        assert_eq!(step(&both), Step::Dismiss { keys: vec!["tasks-password"] }, "pages may still be read");
    }
}
