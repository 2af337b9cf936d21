//! Checks a JSON body or a query string field by field and tells everything that is wrong with it at once.
//!
//! Fields that nobody asks for are ignored: a client may send back a whole task that it got.

use std::borrow::Cow;

use jiff::{Timestamp, Unit};
use serde::Serialize;
use serde_json::{Map, Value};
use thiserror::Error;
use utoipa::ToSchema;

/// One thing wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The field, as the client calls it, such as `operations[3].task.title`; empty for the body as a whole.
    #[schema(value_type = String, example = "title")]
    pub field: Cow<'static, str>,
    /// What it should be.
    #[schema(example = "must have 1 to 255 characters")]
    pub message: String,
}

/// What is wrong with a request that can be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the request does not pass validation; see errors")]
pub struct Invalid(pub Vec<FieldError>);

/// What a request says about a field that may also stay as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// Not mentioned.
    #[default]
    Keep,
    /// Null.
    Clear,
    /// A new value.
    Set(T),
}

impl<T> Change<T> {
    /// The new value, if there is one.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Keep | Self::Clear => None,
        }
    }
}

/// Reads one value, or says what it should have been.
pub type Rule<T> = fn(Value) -> Result<T, String>;

/// The fields of a request, and what is wrong with them so far.
#[derive(Debug, Default)]
pub struct Form {
    /// Where the fields are, as in `operations[3].task`; empty for the body itself.
    place: String,
    fields: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Form {
    /// A JSON body.
    pub fn body(body: Value) -> Result<Self, Invalid> {
        Self::at(String::new(), body).map_err(|error| Invalid(vec![error]))
    }

    /// An object inside a body.
    pub fn at(place: String, value: Value) -> Result<Self, FieldError> {
        match object(value) {
            Ok(fields) => Ok(Self { place, fields, errors: Vec::new() }),
            Err(message) => Err(FieldError { field: Cow::Owned(place), message }),
        }
    }

    /// A query string's pairs.
    pub fn query(pairs: Vec<(String, String)>) -> Result<Self, Invalid> {
        let mut form = Self::default();
        for (name, value) in pairs {
            if form.fields.contains_key(&name) {
                form.errors.push(FieldError { field: Cow::Owned(name), message: "is there twice".to_owned() });
            } else {
                form.fields.insert(name, Value::String(value));
            }
        }
        if form.errors.is_empty() { Ok(form) } else { Err(Invalid(form.errors)) }
    }

    /// Remembers that `field` is wrong.
    pub fn reject(&mut self, field: &'static str, message: impl Into<String>) {
        let field = match self.place.as_str() {
            "" => Cow::Borrowed(field),
            place => Cow::Owned(format!("{place}.{field}")),
        };
        self.errors.push(FieldError { field, message: message.into() });
    }

    /// A field that must be there.
    pub fn required<T>(&mut self, field: &'static str, rule: Rule<T>) -> Option<T> {
        match self.fields.remove(field) {
            None | Some(Value::Null) => {
                self.reject(field, "is required");
                None
            }
            Some(value) => self.check(field, rule, value),
        }
    }

    /// A field that may be absent, but not null.
    pub fn optional<T>(&mut self, field: &'static str, rule: Rule<T>) -> Option<T> {
        match self.fields.remove(field)? {
            Value::Null => {
                self.reject(field, "must not be null; leave it out to keep what is there");
                None
            }
            value => self.check(field, rule, value),
        }
    }

    /// A field that may be absent or null.
    pub fn nullable<T>(&mut self, field: &'static str, rule: Rule<T>) -> Change<T> {
        match self.fields.remove(field) {
            None => Change::Keep,
            Some(Value::Null) => Change::Clear,
            Some(value) => self.check(field, rule, value).map_or(Change::Keep, Change::Set),
        }
    }

    fn check<T>(&mut self, field: &'static str, rule: Rule<T>, value: Value) -> Option<T> {
        rule(value).map_err(|message| self.reject(field, message)).ok()
    }

    /// `value`, unless something was wrong. A required field that is missing was rejected, so `value` is `Some` otherwise.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Invalid> {
        self.parsed(value).map_err(Invalid)
    }

    /// The same, for a part of a body whose other parts are still to be read.
    pub fn parsed<T>(self, value: Option<T>) -> Result<T, Vec<FieldError>> {
        value.filter(|_| self.errors.is_empty()).ok_or(self.errors)
    }
}

/// A string.
pub fn string(value: Value) -> Result<String, String> {
    match value {
        // PostgreSQL can't keep this one character.
        Value::String(text) if text.contains('\0') => Err("must not contain the character U+0000".to_owned()),
        Value::String(text) => Ok(text),
        _ => Err("must be a string".to_owned()),
    }
}

/// An object.
pub fn object(value: Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err("must be a JSON object".to_owned()),
    }
}

/// A string of `min` to `max` characters.
pub fn text(value: Value, min: usize, max: usize) -> Result<String, String> {
    let text = string(value)?;
    let length = text.chars().count();
    if length < min || length > max {
        return Err(match min {
            0 => format!("must have at most {max} characters"),
            _ => format!("must have {min} to {max} characters"),
        });
    }
    Ok(text)
}

/// A point in time, as RFC 3339 writes it. What is finer than a microsecond is cut off, since no database here keeps it.
pub fn timestamp(value: Value) -> Result<Timestamp, String> {
    let wrong = || "must be a time like 2030-01-31T12:00:00Z (RFC 3339), of the years 0 to 9999".to_owned();
    let at: Timestamp = string(value)?.parse().map_err(|_| wrong())?;
    let rounding = jiff::TimestampRound::new().smallest(Unit::Microsecond).mode(jiff::RoundMode::Floor);
    let at = at.round(rounding).map_err(|_| wrong())?;
    let year = jiff::tz::Offset::UTC.to_datetime(at).year();
    (0..=9999).contains(&year).then_some(at).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors<T: std::fmt::Debug>(result: Result<T, Invalid>) -> Vec<(String, String)> {
        match result {
            Err(Invalid(errors)) => errors.into_iter().map(|error| (error.field.into_owned(), error.message)).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let mut form = Form::body(json!({"b": 7, "c": null, "d": "fine", "unknown": 1})).unwrap();
        let a = form.required("a", string);
        let _ = form.optional("b", string);
        let _ = form.optional("c", string);
        assert_eq!(form.nullable("d", string), Change::Set("fine".to_owned()));
        let fields: Vec<_> = errors(form.finish(a)).into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["a", "b", "c"]);
    }

    #[test]
    fn only_objects_are_bodies() {
        for body in [json!([]), json!("x"), json!(null), json!(1)] {
            assert_eq!(errors(Form::body(body))[0].0, "");
        }
    }

    #[test]
    fn lengths_count_characters() {
        assert!(text(json!("é".repeat(255)), 1, 255).is_ok());
        assert!(text(json!("é".repeat(256)), 1, 255).is_err());
        assert!(text(json!(""), 1, 255).is_err());
        assert!(text(json!("a\0b"), 1, 255).is_err());
    }

    #[test]
    fn times() {
        let at = |text: &str| timestamp(json!(text)).map(|at| at.to_string());
        assert_eq!(at("2030-01-31T12:00:00Z").unwrap(), "2030-01-31T12:00:00Z");
        assert_eq!(at("2030-01-31T12:00:00.1234567+02:00").unwrap(), "2030-01-31T10:00:00.123456Z");
        for bad in ["2030-01-31", "tomorrow", "", "-000001-01-01T00:00:00Z", "2030-02-30T00:00:00Z"] {
            assert!(at(bad).is_err(), "{bad}");
        }
        assert!(timestamp(json!(1_900_000_000)).is_err());
    }
}
