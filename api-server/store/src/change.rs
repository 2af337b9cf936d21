//! What a user asks to be changed, and what became of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use task_api_domain::{
    id::TaskId,
    task::{NewTask, Priority, Status, Task, TaskPatch, Version},
    validation::Change,
};

/// One change a user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new task.
    Create(NewTask),
    /// Another content of a task. An empty patch changes nothing, not even the version, and is answered with the task as it is.
    Update {
        /// Which.
        id: TaskId,
        /// What of it.
        patch: TaskPatch,
        /// Only if the task still has this version.
        expected: Option<Version>,
    },
    /// An end of a task.
    Delete {
        /// Which.
        id: TaskId,
        /// Only if the task still has this version.
        expected: Option<Version>,
    },
}

impl Operation {
    /// How many bytes of titles and descriptions it brings.
    pub(crate) fn text_bytes(&self) -> i64 {
        let (title, description) = match self {
            Self::Create(task) => (Some(&task.title), task.description.as_ref()),
            Self::Update { patch: TaskPatch { title, description: Change::Set(description), .. }, .. } => {
                (title.as_ref(), Some(description))
            }
            Self::Update { patch, .. } => (patch.title.as_ref(), None),
            Self::Delete { .. } => (None, None),
        };
        let bytes = |text: Option<&String>| text.map_or(0, String::len);
        i64::try_from(bytes(title) + bytes(description)).unwrap_or(i64::MAX)
    }
}

/// What operations are called together, in metrics and traces.
pub(super) fn name(operations: &[Operation]) -> &'static str {
    match operations {
        [Operation::Create(_)] => "insert",
        [Operation::Update { .. }] => "update",
        [Operation::Delete { .. }] => "delete",
        _ => "batch",
    }
}

/// What became of an [`Operation`].
///
/// It is written to the database for requests with an [`Idempotency`], whole, so that a repeated request gets the first one's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The new task.
    Created(#[serde(with = "WholeTask")] Task),
    /// The task as it is now.
    Updated(#[serde(with = "WholeTask")] Task),
    /// The task has changed. How it is now is not told: those told of the same request have come to [`super::PIECE_BYTES`].
    Changed(TaskId, Version),
    /// It is gone.
    Deleted(TaskId),
    /// There is no such task, or it is not this user's.
    NotFound,
    /// The task has another version than the expected one.
    Conflict,
}

/// A request that may be sent again without being done again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// What the client calls the request.
    pub key: IdempotencyKey,
    /// Digest of what it asks for: another request under the same key is refused.
    pub fingerprint: [u8; 32],
}

/// A client's name for a request: 1 to 255 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// A text that can be a key.
    pub fn new(text: &str) -> Option<Self> {
        let good = (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        good.then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A [`Task`] with what its clients are not shown.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Task")]
struct WholeTask {
    id: i64,
    user_id: i64,
    version: Version,
    title: String,
    description: Option<String>,
    status: Status,
    priority: Priority,
    created_at: Timestamp,
    updated_at: Timestamp,
    due_date: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let longest = "k".repeat(255);
        for good in ["a", "8e03978e-40d5-43dd-bc93-6894a57f9324", "\"quoted\"", &longest] {
            assert_eq!(IdempotencyKey::new(good).map(|key| key.as_str().to_owned()).as_deref(), Some(good));
        }
        let long = "k".repeat(256);
        for bad in ["", " ", "a b", "ä", "a\n", &long] {
            assert_eq!(IdempotencyKey::new(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn outcomes_read_back_whole() {
        let at = Timestamp::from_microsecond(1_700_000_000_123_456).unwrap();
        let task = Task {
            id: 1 << 21,
            user_id: 7,
            version: Version(3),
            title: "ä".to_owned(),
            description: None,
            status: Status::InProgress,
            priority: Priority::Urgent,
            created_at: at,
            updated_at: at,
            due_date: Some(at),
        };
        let id = TaskId::new(task.id).unwrap();
        let outcomes = [
            Outcome::Created(task.clone()),
            Outcome::Updated(task),
            Outcome::Deleted(id),
            Outcome::Changed(id, Version(3)),
        ];
        for outcome in outcomes.into_iter().chain([Outcome::NotFound, Outcome::Conflict]) {
            let text = serde_json::to_string(&outcome).unwrap();
            assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), outcome, "{text}");
        }
    }
}
