//! The body of `POST /api/tasks/batch`.
//!
//! Its shape is judged as a whole: which operations there are, and of which tasks. What each says about its task is judged alone.

use serde::Serialize;
use serde_json::{Map, Value};
use task_api_domain::{
    id::TaskId,
    task::{NewTask, TaskPatch, Version},
    validation::{self, FieldError, Form},
};
use task_api_store::Operation;
use utoipa::ToSchema;

use crate::{error::ApiError, http::etag::ETag};

/// The most operations in a batch.
pub const MAX_OPERATIONS: usize = 100;

/// What to do.
#[derive(Debug, Serialize, ToSchema)]
pub struct Batch {
    /// One after the other.
    #[schema(min_items = 1, max_items = 100)]
    operations: Vec<BatchOperation>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum BatchOperation {
    /// Makes a task.
    Create {
        /// What the body of `POST /api/tasks` would say. What is wrong with it is told in this operation's result.
        #[schema(value_type = Object, example = json!({"title": "Buy milk"}))]
        task: Map<String, Value>,
    },
    /// Changes a task.
    Update {
        /// Which.
        #[schema(value_type = i64, minimum = 1, maximum = 9_007_199_254_740_991_i64)]
        id: TaskId,
        /// What the body of `PATCH /api/tasks/{id}` would say. What is wrong with it is told in this operation's result.
        #[schema(value_type = Object, example = json!({"status": "completed"}))]
        task: Map<String, Value>,
        /// Only in this state.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(value_type = String, required = false, pattern = r#"^(W/)?"[!#-~]*"$"#, example = "\"1\"")]
        if_match: Option<ETag>,
    },
    /// Deletes a task.
    Delete {
        /// Which.
        #[schema(value_type = i64, minimum = 1, maximum = 9_007_199_254_740_991_i64)]
        id: TaskId,
        /// Only in this state.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(value_type = String, required = false, pattern = r#"^(W/)?"[!#-~]*"$"#, example = "\"1\"")]
        if_match: Option<ETag>,
    },
}

impl Batch {
    /// Reads the body.
    pub fn from_form(mut form: Form) -> Result<Self, ApiError> {
        let list = form.required("operations", list);
        let mut operations = Vec::new();
        let mut errors = Vec::new();
        for (index, value) in form.finish(list)?.into_iter().enumerate() {
            match BatchOperation::read(place(index), value) {
                Ok(operation) => operations.push(operation),
                Err(wrong) => errors.extend(wrong),
            }
        }
        if errors.is_empty() { Ok(Self { operations }) } else { Err(ApiError::Invalid(errors)) }
    }

    /// What each operation is called in metrics.
    pub fn names(&self) -> Vec<&'static str> {
        let name = |operation: &BatchOperation| match operation {
            BatchOperation::Create { .. } => "create",
            BatchOperation::Update { .. } => "update",
            BatchOperation::Delete { .. } => "delete",
        };
        self.operations.iter().map(name).collect()
    }

    /// What the store is to do, or why it is not asked.
    pub fn operations(self) -> Vec<Result<Operation, ApiError>> {
        self.operations.into_iter().enumerate().map(|(index, operation)| operation.check(&place(index))).collect()
    }
}

fn place(index: usize) -> String {
    format!("operations[{index}]")
}

fn list(value: Value) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(list) if (1..=MAX_OPERATIONS).contains(&list.len()) => Ok(list),
        _ => Err(format!("must be a list of 1 to {MAX_OPERATIONS} operations")),
    }
}

impl BatchOperation {
    fn read(place: String, value: Value) -> Result<Self, Vec<FieldError>> {
        let mut form = Form::at(place, value).map_err(|error| vec![error])?;
        let Some(op) = form.required("op", op) else { return form.parsed(None) };
        let operation = match op {
            Op::Create => form.required("task", validation::object).map(|task| Self::Create { task }),
            Op::Update => {
                let (id, task) = (form.required("id", id), form.required("task", validation::object));
                let if_match = form.optional("if_match", tag);
                id.zip(task).map(|(id, task)| Self::Update { id, task, if_match })
            }
            Op::Delete => {
                let (id, if_match) = (form.required("id", id), form.optional("if_match", tag));
                id.map(|id| Self::Delete { id, if_match })
            }
        };
        form.parsed(operation)
    }

    fn check(self, place: &str) -> Result<Operation, ApiError> {
        let form = |task| {
            Form::at(format!("{place}.task"), Value::Object(task)).map_err(|error| ApiError::Invalid(vec![error]))
        };
        let expected = |tag: Option<ETag>| tag.map(|tag| tag.version().map_or(Version::OF_NONE, Version));
        Ok(match self {
            Self::Create { task } => Operation::Create(NewTask::from_form(form(task)?)?),
            Self::Update { id, task, if_match } => {
                Operation::Update { id, patch: TaskPatch::from_form(form(task)?)?, expected: expected(if_match) }
            }
            Self::Delete { id, if_match } => Operation::Delete { id, expected: expected(if_match) },
        })
    }
}

#[derive(Clone, Copy)]
enum Op {
    Create,
    Update,
    Delete,
}

#[expect(clippy::needless_pass_by_value, reason = "what a form calls with each of its values")]
fn op(value: Value) -> Result<Op, String> {
    match value.as_str() {
        Some("create") => Ok(Op::Create),
        Some("update") => Ok(Op::Update),
        Some("delete") => Ok(Op::Delete),
        _ => Err("must be one of create, update, delete".to_owned()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what a form calls with each of its values")]
fn id(value: Value) -> Result<TaskId, String> {
    // 7.0 is 7 in JSON; as text it has no point, and what is no whole number keeps it.
    let whole = || value.as_f64()?.to_string().parse().ok();
    let id = value.as_i64().or_else(whole).and_then(TaskId::new);
    id.ok_or_else(|| "must be a task's id, a whole number above zero".to_owned())
}

#[expect(clippy::needless_pass_by_value, reason = "what a form calls with each of its values")]
fn tag(value: Value) -> Result<ETag, String> {
    let wrong = || "must be an ETag as it was received, such as \"3\", quotation marks included".to_owned();
    value.as_str().and_then(ETag::parse).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use serde_json::json;

    use super::*;

    fn read(body: Value) -> Result<Batch, ApiError> {
        Batch::from_form(Form::body(body)?)
    }

    fn wrong<T>(result: Result<T, ApiError>) -> Vec<Cow<'static, str>> {
        match result {
            Err(ApiError::Invalid(errors)) => errors.into_iter().map(|error| error.field).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let id = TaskId::new(7).unwrap();
        let task = Map::from_iter([("title".to_owned(), json!("x"))]);
        let operations = vec![
            BatchOperation::Create { task: task.clone() },
            BatchOperation::Update { id, task, if_match: None },
            BatchOperation::Delete { id, if_match: Some(ETag::of_version(3)) },
        ];
        let batch = Batch { operations: operations.clone() };
        assert_eq!(read(serde_json::to_value(batch).unwrap()).unwrap().operations, operations);
    }

    #[test]
    fn ids_are_whole_numbers() {
        for seven in [json!(7), json!(7.0), serde_json::from_str("7e0").unwrap()] {
            assert_eq!(id(seven).unwrap().get(), 7);
        }
        for bad in [json!(7.5), json!(0.0), json!(-7), json!(1e300), json!("7"), json!(9_007_199_254_740_992_i64)] {
            assert!(id(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_shape_is_judged_as_a_whole() {
        for body in
            [json!({}), json!({"operations": []}), json!({"operations": {}}), json!({"operations": vec![0; 101]})]
        {
            assert_eq!(wrong(read(body)), ["operations"]);
        }
        let body = json!({"operations": [
            {"op": "create", "task": {}},
            7,
            {"op": "drop"},
            {"op": "update", "id": "7"},
            {"op": "delete", "id": 0, "if_match": "3"},
        ]});
        let fields = [
            "operations[1]",
            "operations[2].op",
            "operations[3].id",
            "operations[3].task",
            "operations[4].id",
            "operations[4].if_match",
        ];
        assert_eq!(wrong(read(body)), fields);
    }

    #[test]
    fn each_task_is_judged_alone() {
        let body = json!({"operations": [
            {"op": "create", "task": {"title": "x"}},
            {"op": "create", "task": {"status": "done"}},
            {"op": "update", "id": 7, "task": {"title": null}},
            {"op": "delete", "id": 7, "if_match": "W/\"3\""},
        ]});
        let mut operations = read(body).unwrap().operations().into_iter();
        assert!(matches!(operations.next(), Some(Ok(Operation::Create(_)))));
        assert_eq!(wrong(operations.next().unwrap()), ["operations[1].task.title", "operations[1].task.status"]);
        assert_eq!(wrong(operations.next().unwrap()), ["operations[2].task.title"]);
        let never = Operation::Delete { id: TaskId::new(7).unwrap(), expected: Some(Version::OF_NONE) };
        assert_eq!(operations.next().unwrap().unwrap(), never, "a weak tag can't be what a change expects");
    }
}
