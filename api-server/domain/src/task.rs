//! A task, and what may be said about one.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    position::Position,
    validation::{self, Change, Form, Invalid},
};

/// The most characters in a title.
pub const MAX_TITLE: usize = 255;

/// The most characters in a description. PostgreSQL's full-text index refuses a row whose words take more than 1 MiB; this is far
/// below that, whatever the words are.
pub const MAX_DESCRIPTION: usize = 65_536;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ToSchema)]
        pub enum $name { $($(#[$variant_doc])* #[schema(rename = $word)] $variant),+ }

        impl $name {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word that clients and databases know it by.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The one that `word` names.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == word)
            }

            /// Reads one.
            pub fn rule(value: Value) -> Result<Self, String> {
                validation::string(value).ok().and_then(|word| Self::from_word(&word)).ok_or_else(|| {
                    format!("must be one of {}", [$($word),+].join(", "))
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = String::deserialize(deserializer)?;
                Self::from_word(&word).ok_or_else(|| D::Error::unknown_variant(&word, &[$($word),+]))
            }
        }
    };
}

words!(
    /// How far a task is.
    Status,
    /// Not begun.
    #[default]
    Pending = "pending",
    /// Being worked on.
    InProgress = "in_progress",
    /// Done.
    Completed = "completed"
);

words!(
    /// How much a task matters.
    Priority,
    /// Some day.
    Low = "low",
    /// As things go.
    #[default]
    Medium = "medium",
    /// Soon.
    High = "high",
    /// Now.
    Urgent = "urgent"
);

/// How often a task was changed: 1 when it is made, one more with every change. Clients see it as the task's `ETag`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version(pub i64);

impl Version {
    /// A version that no task has: to expect it is to expect what is not there.
    pub const OF_NONE: Self = Self(0);
}

/// A task as it is kept and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Task {
    /// Its name in every request. A number that JavaScript can hold.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 460_000_000_000_001_i64)]
    pub id: i64,
    /// Whose it is.
    #[schema(minimum = 1, example = 7)]
    pub user_id: i64,
    /// Which of the task's states this is.
    #[serde(skip)]
    pub version: Version,
    /// What is to be done.
    #[schema(min_length = 1, max_length = 255, example = "Buy milk")]
    pub title: String,
    /// More about it.
    #[schema(required, max_length = 65536, example = "Two bottles")]
    pub description: Option<String>,
    /// How far it is.
    pub status: Status,
    /// How much it matters.
    pub priority: Priority,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// When it should be done.
    #[schema(required)]
    pub due_date: Option<Timestamp>,
}

impl Task {
    /// How many bytes its title and description have.
    pub fn text_bytes(&self) -> usize {
        self.title.len() + self.description.as_ref().map_or(0, String::len)
    }

    /// Where it stands in a list.
    pub fn position(&self) -> Position {
        Position { created_at: self.created_at, id: self.id }
    }
}

/// A task to be made.
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
pub struct NewTask {
    /// What is to be done. Not only blanks.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\u0000]*[^\s\u0000][^\u0000]*$", example = "Buy milk")]
    pub title: String,
    /// More about it.
    #[schema(max_length = 65536, pattern = r"^[^\u0000]*$", example = "Two bottles")]
    pub description: Option<String>,
    /// How far it is; `pending`, if absent.
    #[schema(required = false)]
    pub status: Status,
    /// How much it matters; `medium`, if absent.
    #[schema(required = false)]
    pub priority: Priority,
    /// When it should be done.
    #[schema(example = "2030-01-31T12:00:00Z")]
    pub due_date: Option<Timestamp>,
}

impl NewTask {
    /// Reads the body of `POST /api/tasks`.
    pub fn from_form(mut form: Form) -> Result<Self, Invalid> {
        let title = form.required("title", title);
        let description = form.nullable("description", description).value();
        let status = form.optional("status", Status::rule).unwrap_or_default();
        let priority = form.optional("priority", Priority::rule).unwrap_or_default();
        let due_date = form.nullable("due_date", validation::timestamp).value();
        form.finish(title.map(|title| Self { title, description, status, priority, due_date }))
    }
}

/// Changes to a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, ToSchema)]
pub struct TaskPatch {
    /// A new title. Not only blanks.
    #[schema(nullable = false, min_length = 1, max_length = 255, pattern = r"^[^\u0000]*[^\s\u0000][^\u0000]*$")]
    pub title: Option<String>,
    /// A new description, or null for none.
    #[schema(value_type = Option<String>, max_length = 65536, pattern = r"^[^\u0000]*$", example = "Two bottles")]
    pub description: Change<String>,
    /// A new status.
    #[schema(value_type = Status, required = false, example = "completed")]
    pub status: Option<Status>,
    /// A new priority.
    #[schema(value_type = Priority, required = false)]
    pub priority: Option<Priority>,
    /// A new due date, or null for none.
    #[schema(value_type = Option<Timestamp>, example = "2030-01-31T12:00:00Z")]
    pub due_date: Change<Timestamp>,
}

impl TaskPatch {
    /// Reads the body of `PATCH /api/tasks/{id}`.
    pub fn from_form(mut form: Form) -> Result<Self, Invalid> {
        let patch = Self {
            title: form.optional("title", title),
            description: form.nullable("description", description),
            status: form.optional("status", Status::rule),
            priority: form.optional("priority", Priority::rule),
            due_date: form.nullable("due_date", validation::timestamp),
        };
        form.finish(Some(patch))
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Which tasks a list shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those that are so far.
    pub status: Option<Status>,
    /// Only those that matter so much.
    pub priority: Option<Priority>,
}

fn title(value: Value) -> Result<String, String> {
    let title = validation::text(value, 1, MAX_TITLE)?;
    let is_blank = title.chars().all(|c| c.is_whitespace() || BLANKS.contains(&c));
    if is_blank { Err("must not be blank".to_owned()) } else { Ok(title) }
}

/// What others count as blank and Rust does not: Python the separators, JavaScript the byte order mark.
const BLANKS: [char; 5] = ['\u{1c}', '\u{1d}', '\u{1e}', '\u{1f}', '\u{feff}'];

fn description(value: Value) -> Result<String, String> {
    validation::text(value, 0, MAX_DESCRIPTION)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn create(body: Value) -> Result<NewTask, Invalid> {
        NewTask::from_form(Form::body(body)?)
    }

    fn patch(body: Value) -> Result<TaskPatch, Invalid> {
        TaskPatch::from_form(Form::body(body)?)
    }

    fn wrong_fields<T>(result: Result<T, Invalid>) -> Vec<String> {
        match result {
            Err(Invalid(errors)) => errors.into_iter().map(|error| error.field.into_owned()).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn a_title_is_enough() {
        let task = create(json!({"title": "x"})).unwrap();
        assert_eq!((task.status, task.priority), (Status::Pending, Priority::Medium));
        assert_eq!((task.description, task.due_date), (None, None));
    }

    #[test]
    fn every_wrong_field_is_named() {
        let body = json!({"title": " ", "description": 1, "status": "done", "priority": null, "due_date": "soon"});
        let all = ["title", "description", "status", "priority", "due_date"];
        assert_eq!(wrong_fields(create(body.clone())), all);
        assert_eq!(wrong_fields(patch(body)), all);
    }

    #[test]
    fn null_clears_only_what_may_be_empty() {
        let change = patch(json!({"description": null, "due_date": null})).unwrap();
        assert_eq!((change.description, change.due_date), (Change::Clear, Change::Clear));
        assert_eq!(wrong_fields(patch(json!({"title": null, "status": null}))), ["title", "status"]);
        assert!(patch(json!({"id": 7})).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn any_json_is_read_or_refused(title in ".{0,300}", description in proptest::option::of(".{0,40}"), status in ".{0,12}") {
            let known = Status::from_word(&status).is_some();
            let length = title.chars().count();
            let blank = title.chars().all(|c| c.is_whitespace() || BLANKS.contains(&c));
            let good = known && (1..=MAX_TITLE).contains(&length) && !blank
                && !title.contains('\0') && !description.as_deref().unwrap_or_default().contains('\0');
            let body = json!({"title": title, "description": description, "status": status});
            prop_assert_eq!(create(body).is_ok(), good);
        }
    }
}
