//! Whether a document has the shape that the definition asks for. It is checked against the definition itself, as the API
//! server does, so that both refuse the same.

use std::sync::LazyLock;

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{CustomResourceExt, core::schema::StructuralSchemaRewriter};
use regex::Regex;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Number, Value};

use crate::{TaskPlatform, form, nearest};

/// Something in a document that does not fit the definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The field, such as `spec.cache.shards`.
    pub field: String,
    /// What of the field is wrong.
    pub part: Part,
    /// What is wrong, and the way out.
    pub message: String,
}

/// What of a field is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its name: there is no such field.
    Name,
    /// Its value, or that it has none.
    Value,
}

/// The definition's schema, with that of the metadata, which the API server knows by itself.
static SCHEMA: LazyLock<JSONSchemaProps> = LazyLock::new(|| {
    let version = TaskPlatform::crd().spec.versions.into_iter().next();
    let mut schema = version.and_then(|version| version.schema?.open_api_v3_schema).unwrap_or_default();
    let text = JSONSchemaProps { type_: Some("string".to_owned()), ..JSONSchemaProps::default() };
    // A status is the operator's: what a document has of it is not looked at.
    let status = JSONSchemaProps::default();
    let known = [("apiVersion", text.clone()), ("kind", text), ("metadata", metadata()), ("status", status)];
    schema.properties.get_or_insert_default().extend(known.map(|(name, schema)| (name.to_owned(), schema)));
    schema.required.get_or_insert_default().push("metadata".to_owned());
    schema
});

fn metadata() -> JSONSchemaProps {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let generator = settings.with_transform(StructuralSchemaRewriter).into_generator();
    let schema = generator.into_root_schema_for::<ObjectMeta>().to_value();
    let schema: JSONSchemaProps = serde_json::from_value(schema).unwrap_or_default();
    JSONSchemaProps { required: Some(vec!["name".to_owned()]), ..schema }
}

/// Everything in a document that does not fit.
pub(crate) fn misfits(document: &Value) -> Vec<Misfit> {
    let mut found = Vec::new();
    check("", document, &SCHEMA, &mut found);
    found
}

/// A document as the API server keeps it: without nulls, for which the defaults stand, without a status, which only the
/// operator writes, and with whole numbers as such (`3.0` is 3).
pub(crate) fn normalized(document: Value) -> Value {
    let mut document = without_nulls(document);
    if let Value::Object(fields) = &mut document {
        fields.remove("status");
    }
    document
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let given = fields.into_iter().filter(|(_, value)| !value.is_null());
            given.map(|(name, value)| (name, without_nulls(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        Value::Number(number) => whole(&number).map_or(Value::Number(number), Value::from),
        value => value,
    }
}

fn whole(number: &Number) -> Option<i64> {
    let exactly = |number: f64| (number.fract() == 0.0).then(|| format!("{number:.0}").parse().ok()).flatten();
    number.as_i64().or_else(|| exactly(number.as_f64()?))
}

/// What a schema asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Fields,
    List,
    Text,
    WholeNumber,
    /// A whole number or text.
    Quantity,
    Boolean,
    Anything,
}

fn wanted(schema: &JSONSchemaProps) -> Wanted {
    match schema.type_.as_deref() {
        _ if schema.x_kubernetes_int_or_string == Some(true) => Wanted::Quantity,
        Some("object") => Wanted::Fields,
        Some("array") => Wanted::List,
        Some("string") => Wanted::Text,
        Some("integer") => Wanted::WholeNumber,
        Some("boolean") => Wanted::Boolean,
        _ => Wanted::Anything,
    }
}

fn check(field: &str, value: &Value, schema: &JSONSchemaProps, found: &mut Vec<Misfit>) {
    let wanted = wanted(schema);
    let wrong = match (wanted, value) {
        (Wanted::Fields, Value::Object(fields)) => return check_fields(field, fields, schema, found),
        (Wanted::List, Value::Array(items)) => return check_list(field, items, schema, found),
        (Wanted::Text | Wanted::Quantity, Value::String(given)) => wrong_text(given, schema),
        (Wanted::WholeNumber | Wanted::Quantity, Value::Number(given)) if whole(given).is_some() => {
            whole(given).and_then(|given| wrong_number(given, schema))
        }
        (Wanted::Boolean, Value::Bool(_)) | (Wanted::Anything, _) => None,
        (_, given) => Some(mistyped(wanted, given, schema)),
    };
    found.extend(wrong.map(|message| Misfit { field: field.to_owned(), part: Part::Value, message }));
}

fn check_fields(field: &str, given: &Map<String, Value>, schema: &JSONSchemaProps, found: &mut Vec<Misfit>) {
    let path = |name: &str| if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
    for (name, value) in given {
        match inner(name, schema) {
            Inner::Known(schema) if !value.is_null() => check(&path(name), value, schema, found),
            // A null is dropped, and the default takes its place.
            Inner::Known(_) | Inner::Free => {}
            Inner::Unknown => {
                let known = schema.properties.iter().flatten().map(|(name, _)| name.as_str());
                found.push(Misfit { field: path(name), part: Part::Name, message: unknown(name, known) });
            }
        }
    }
    let missing = |name: &&String| given.get(*name).is_none_or(Value::is_null);
    found.extend(schema.required.iter().flatten().filter(missing).map(|name| Misfit {
        field: path(name),
        part: Part::Value,
        message: "it is missing, and there is no default: write it".to_owned(),
    }));
    found.extend(too_many(field, given.len(), schema.max_properties));
}

/// What is wrong with so many entries, if there may be `most`.
fn too_many(field: &str, count: usize, most: Option<i64>) -> Option<Misfit> {
    let most = most.filter(|most| i64::try_from(count).is_ok_and(|count| count > *most))?;
    let message = format!("{count} entries, but there may be {most}: leave some out");
    Some(Misfit { field: field.to_owned(), part: Part::Value, message })
}

enum Inner<'a> {
    Known(&'a JSONSchemaProps),
    /// What is in there is not defined.
    Free,
    Unknown,
}

fn inner<'a>(name: &str, schema: &'a JSONSchemaProps) -> Inner<'a> {
    match (schema.properties.as_ref(), &schema.additional_properties) {
        (Some(properties), _) => properties.get(name).map_or(Inner::Unknown, Inner::Known),
        (None, Some(JSONSchemaPropsOrBool::Schema(schema))) => Inner::Known(schema),
        (None, _) => Inner::Free,
    }
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(name, known.clone()) {
        Some(known) => format!("there is no such field: did you mean {known}?"),
        None => format!("there is no such field: there are {}", known.collect::<Vec<_>>().join(", ")),
    }
}

fn check_list(field: &str, items: &[Value], schema: &JSONSchemaProps, found: &mut Vec<Misfit>) {
    found.extend(too_many(field, items.len(), schema.max_items));
    let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items else { return };
    for (index, item) in items.iter().enumerate() {
        check(&format!("{field}.{index}"), item, schema, found);
    }
}

fn wrong_text(given: &str, schema: &JSONSchemaProps) -> Option<String> {
    let length = i64::try_from(given.chars().count()).unwrap_or(i64::MAX);
    if let Some(choices) = &schema.enum_
        && !choices.iter().any(|choice| choice.0 == given)
    {
        let choices: Vec<_> = choices.iter().filter_map(|choice| choice.0.as_str()).collect();
        return Some(format!("{given:?} is not a choice: write {}", choices.join(" or ")));
    }
    if schema.min_length.is_some_and(|least| length < least) {
        return Some("it is empty: write it, or leave it out".to_owned());
    }
    if let Some(most) = schema.max_length.filter(|most| length > *most) {
        return Some(format!("{length} characters, but there may be {most}: shorten it"));
    }
    let pattern = schema.pattern.as_deref()?;
    let fits = Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(given));
    (!fits)
        .then(|| form::refusal(pattern, &given.into()).unwrap_or_else(|| format!("{given:?} does not match {pattern}")))
}

fn wrong_number(given: i64, schema: &JSONSchemaProps) -> Option<String> {
    // Bounds are whole numbers of 32 bits, or of 15 digits, which this holds exactly.
    #[expect(clippy::cast_precision_loss, reason = "where it loses something, it is far outside of any bound")]
    let value = given as f64;
    let fits = schema.minimum.is_none_or(|least| value >= least) && schema.maximum.is_none_or(|most| value <= most);
    (!fits).then(|| format!("{given} is out of range: give a whole number{}", range(schema)))
}

fn range(schema: &JSONSchemaProps) -> String {
    match (schema.minimum, schema.maximum) {
        (Some(least), Some(most)) => format!(" from {least} to {most}"),
        _ => String::new(),
    }
}

fn mistyped(wanted: Wanted, given: &Value, schema: &JSONSchemaProps) -> String {
    let is = match given {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "fields",
    };
    match (wanted, given) {
        (Wanted::Text | Wanted::Quantity, Value::Bool(_) | Value::Number(_)) => {
            let refusal = schema.pattern.as_deref().and_then(|pattern| form::refusal(pattern, given));
            refusal.unwrap_or_else(|| format!("{is}, but text is wanted: put it into quotes{}", hint(given)))
        }
        (Wanted::WholeNumber, Value::String(text)) if text.parse::<i64>().is_ok() => {
            "text, but a whole number is wanted: leave the quotes out".to_owned()
        }
        (Wanted::WholeNumber, Value::Number(number)) => {
            format!("{number} is not a whole number: give one{}", range(schema))
        }
        (Wanted::WholeNumber, _) => format!("{is}, but a whole number is wanted: give one{}", range(schema)),
        (Wanted::Fields, _) => {
            let names: Vec<_> = schema.properties.iter().flatten().map(|(name, _)| name.as_str()).collect();
            format!("{is}, but fields are wanted: {}", names.join(", "))
        }
        (Wanted::List, _) => format!("{is}, but a list is wanted: begin each item with a dash"),
        (Wanted::Boolean, _) => format!("{is}, but a boolean is wanted: write true or false"),
        (Wanted::Text | Wanted::Quantity | Wanted::Anything, _) => {
            format!("{is}, but text is wanted: write it in one line")
        }
    }
}

fn hint(given: &Value) -> &'static str {
    if given.is_boolean() { " (without them YAML reads yes, no, on and off as booleans, too)" } else { "" }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::ParseError;

    /// Every field of a spec, as a JSON pointer.
    fn fields() -> Vec<String> {
        fn walk(path: &str, schema: &Value, fields: &mut Vec<String>) {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                let path = format!("{path}/{name}");
                fields.push(path.clone());
                walk(&path, property, fields);
            }
        }
        let mut fields = vec!["/database/parameters/jit".to_owned()];
        walk("", &schema()["properties"]["spec"], &mut fields);
        fields
    }

    fn schema() -> Value {
        serde_json::to_value(TaskPlatform::crd()).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    fn scalar() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<bool>().prop_map(Value::from),
            (-2_i64..70_000).prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-10.0..10.0).prop_map(Value::from),
            (0_i64..2000).prop_map(|whole| format!("{whole}.0").parse::<f64>().unwrap().into()),
            "[0-9]{0,16}(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi|m|h|s|ms|r/s|r/m|d)?".prop_map(Value::from),
            "([0-9]{1,10}(h|m|s|ms)){1,5}".prop_map(Value::from),
            "[0-9]{0,7}[.][0-9]{0,4}".prop_map(Value::from),
            "/?[a-z/_.~A-Z0-9 -]{0,10}".prop_map(Value::from),
            prop::sample::select(vec!["Nginx", "Delete", "retain", "session", "ClusterIP", "", "Größe"])
                .prop_map(Value::from),
            "\\PC{0,4}".prop_map(Value::from),
            Just(Value::Null),
            Just(json!({})),
            Just(json!([])),
            Just(json!([1])),
            Just(json!({"cpu": 1, "memory": "1Gi"})),
            Just(json!({"size": "1Gi"})),
            Just(json!({"rate": "1r/s", "burst": 1})),
        ]
    }

    /// Puts a value where a path leads, and what is needed on the way.
    fn put(spec: &mut Value, path: &str, value: Value) {
        let mut here = spec;
        for name in path.split('/').skip(1) {
            if !here.is_object() {
                *here = json!({});
            }
            here = &mut here[name];
        }
        *here = value;
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

        #[test]
        fn what_the_definition_admits_the_type_reads(changes in prop::collection::vec((prop::sample::select(fields()), scalar()), 1..3)) {
            let mut spec = json!({});
            for (path, value) in changes {
                put(&mut spec, &path, value);
            }
            let document = json!({"apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform", "metadata": {"name": "tasks"}, "spec": spec});
            if let Err(ParseError::Unreadable(error)) = TaskPlatform::read(document.clone()) {
                prop_assert!(false, "the definition admits {document}, but the type does not: {error}");
            }
        }
    }

    /// What the definition says of values must be known to the check of documents, or that would let through what the API server
    /// refuses.
    #[test]
    fn the_definition_says_nothing_that_is_not_checked() {
        fn keywords(schema: &Value, found: &mut BTreeSet<String>) {
            let Some(fields) = schema.as_object() else { return };
            found.extend(fields.keys().cloned());
            for property in schema["properties"].as_object().into_iter().flatten() {
                keywords(property.1, found);
            }
            keywords(&schema["additionalProperties"], found);
            keywords(&schema["items"], found);
        }
        const CHECKED: [&str; 14] = [
            "type",
            "properties",
            "additionalProperties",
            "items",
            "maxItems",
            "required",
            "enum",
            "pattern",
            "minimum",
            "maximum",
            "minLength",
            "maxLength",
            "maxProperties",
            "x-kubernetes-int-or-string",
        ];
        // Nulls are dropped; the rules are checked by themselves.
        const SAY_NOTHING: [&str; 5] = ["description", "default", "format", "nullable", "x-kubernetes-validations"];
        let mut found = BTreeSet::new();
        keywords(&schema()["properties"]["spec"], &mut found);
        found.retain(|keyword| !CHECKED.iter().chain(&SAY_NOTHING).any(|known| known == keyword));
        assert!(found.is_empty(), "{found:?}");
    }
}
