//! What lists and searches take in their query strings.

use serde_json::Value;
use task_api_domain::{
    search::MAX_QUERY,
    task::{Filter, Priority, Status},
    validation::{self, Form, Invalid},
};
use utoipa::IntoParams;

/// The most items on a page of a list.
pub const MAX_LIMIT: u16 = 100;

/// How many items a page has where the client does not say.
pub const DEFAULT_LIMIT: u16 = 20;

/// The query string of `GET /api/tasks`; the cursor is still sealed.
#[derive(Clone, Debug, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only tasks that are so far.
    #[param(value_type = Status, required = false)]
    pub status: Option<Status>,
    /// Only tasks that matter so much.
    #[param(value_type = Priority, required = false)]
    pub priority: Option<Priority>,
    /// How many at most.
    #[param(required = false, minimum = 1, maximum = 100, default = 20)]
    pub limit: u16,
    /// Where to go on: `next_cursor` of the page before, of the same list.
    #[param(value_type = String, required = false, pattern = "^[A-Za-z0-9_-]+$")]
    pub cursor: Option<String>,
}

impl ListQuery {
    /// Reads a query string.
    pub fn from_form(mut form: Form) -> Result<Self, Invalid> {
        let query = Self {
            status: form.optional("status", Status::rule),
            priority: form.optional("priority", Priority::rule),
            limit: form.optional("limit", limit).unwrap_or(DEFAULT_LIMIT),
            cursor: form.optional("cursor", validation::string),
        };
        form.finish(Some(query))
    }

    /// Which tasks.
    pub fn filter(&self) -> Filter {
        Filter { status: self.status, priority: self.priority }
    }
}

/// The query string of `GET /api/tasks/search`; the cursor is still sealed.
#[derive(Clone, Debug, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SearchTasks {
    /// What to find: words, "words in quotes", and -words that must not be there.
    #[param(min_length = 1, max_length = 200, pattern = r"^[^\u0000]*$", example = "milk -soy")]
    pub q: String,
    /// How many at most.
    #[param(required = false, minimum = 1, maximum = 100, default = 20)]
    pub limit: u16,
    /// Where to go on: `next_cursor` of the page before, of the same search.
    #[param(value_type = String, required = false, pattern = "^[A-Za-z0-9_-]+$")]
    pub cursor: Option<String>,
}

impl SearchTasks {
    /// Reads a query string.
    pub fn from_form(mut form: Form) -> Result<Self, Invalid> {
        let q = form.required("q", |value| validation::text(value, 1, MAX_QUERY));
        let limit = form.optional("limit", limit).unwrap_or(DEFAULT_LIMIT);
        let cursor = form.optional("cursor", validation::string);
        form.finish(q.map(|q| Self { q, limit, cursor }))
    }
}

fn limit(value: Value) -> Result<u16, String> {
    let limit = validation::string(value)?.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| format!("must be a whole number from 1 to {MAX_LIMIT}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong_fields<T>(result: Result<T, Invalid>) -> Vec<String> {
        result
            .err()
            .map(|Invalid(errors)| errors.into_iter().map(|error| error.field.into_owned()).collect())
            .unwrap_or_default()
    }

    #[test]
    fn limits() {
        let list = |pairs: &[(&str, &str)]| {
            ListQuery::from_form(Form::query(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())?)
        };
        assert_eq!(list(&[]).unwrap().limit, DEFAULT_LIMIT);
        assert_eq!(list(&[("limit", "100")]).unwrap().limit, 100);
        for bad in ["0", "101", "-1", "x", "1.5"] {
            assert_eq!(wrong_fields(list(&[("limit", bad)])), ["limit"], "{bad}");
        }
        assert_eq!(wrong_fields(list(&[("status", "x"), ("priority", "")])), ["status", "priority"]);
    }
}
