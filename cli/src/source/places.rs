//! A YAML document, with the places of its fields.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Number, Value};
use serde_saphyr::Spanned;

/// A line and a column, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

/// A document's fields, with their places.
#[derive(Debug)]
pub(crate) struct Places(Spanned<Tree>);

#[derive(Debug)]
enum Tree {
    Scalar(Value),
    List(Vec<Spanned<Tree>>),
    Map(Vec<(Spanned<String>, Spanned<Tree>)>),
}

impl Places {
    /// Those of a document, whose values are what kubectl takes them for: YAML 1.1 has more booleans and octal numbers than 1.2.
    pub(crate) fn of(document: &str) -> Result<Self, serde_saphyr::Error> {
        let options = serde_saphyr::options! { strict_booleans: false, legacy_octal_numbers: true };
        serde_saphyr::from_str_with_options(document, options).map(Self)
    }

    /// The document itself.
    pub(crate) fn value(&self) -> Value {
        self.0.value.value()
    }

    /// The text of a field at the top of the document.
    pub(crate) fn text(&self, field: &str) -> Option<&str> {
        match self.0.value.get(field)? {
            Tree::Scalar(value) => value.as_str(),
            Tree::List(_) | Tree::Map(_) => None,
        }
    }

    /// The documents in a list of them, such as `kubectl get -o yaml` writes.
    pub(crate) fn items(self) -> Vec<Self> {
        let Tree::Map(fields) = self.0.value else { return Vec::new() };
        let items = fields.into_iter().find(|(field, _)| field.value == "items");
        match items.map(|(_, items)| items.value) {
            Some(Tree::List(items)) => items.into_iter().map(Self).collect(),
            _ => Vec::new(),
        }
    }

    /// The place of a field such as `spec.scaling.minInstances`, or of that around it which is there.
    pub(crate) fn find(&self, path: &str) -> Place {
        self.follow(path).value
    }

    /// The place of a field's name.
    pub(crate) fn find_name(&self, path: &str) -> Place {
        self.follow(path).name
    }

    fn follow(&self, path: &str) -> Step<'_> {
        let mut here = Step { name: place(&self.0), value: place(&self.0), tree: &self.0.value };
        let mut rest = path;
        while let Some((step, after)) = here.tree.step(rest) {
            (here, rest) = (step, after);
        }
        here
    }
}

/// A field on the way.
struct Step<'a> {
    name: Place,
    value: Place,
    tree: &'a Tree,
}

fn place<T>(spanned: &Spanned<T>) -> Place {
    Place { line: spanned.referenced.line(), column: spanned.referenced.column() }
}

/// What follows the name at the beginning of a path; a name may have dots itself.
fn after<'p>(name: &str, path: &'p str) -> Option<&'p str> {
    let rest = path.strip_prefix(name)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.') }
}

impl Tree {
    fn value(&self) -> Value {
        match self {
            Self::Scalar(value) => value.clone(),
            Self::List(items) => items.iter().map(|item| item.value.value()).collect(),
            Self::Map(fields) => fields.iter().map(|(name, inner)| (name.value.clone(), inner.value.value())).collect(),
        }
    }

    fn get(&self, name: &str) -> Option<&Self> {
        let Self::Map(fields) = self else { return None };
        fields.iter().find(|(field, _)| field.value == name).map(|(_, inner)| &inner.value)
    }

    /// The field that a path begins with, and the rest of the path.
    fn step<'p>(&self, path: &'p str) -> Option<(Step<'_>, &'p str)> {
        match self {
            Self::Scalar(_) => None,
            Self::List(items) => {
                let (index, rest) = path.split_once('.').unwrap_or((path, ""));
                let item = items.get(index.parse::<usize>().ok()?)?;
                Some((Step { name: place(item), value: place(item), tree: &item.value }, rest))
            }
            Self::Map(fields) => {
                let begun = fields.iter().filter_map(|field| Some((field, after(&field.0.value, path)?)));
                let ((name, inner), rest) = begun.min_by_key(|(_, rest)| rest.len())?;
                Some((Step { name: place(name), value: place(inner), tree: &inner.value }, rest))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Tree;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("YAML")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
                Ok(Tree::Scalar(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
                Ok(Tree::Scalar(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
                Ok(Tree::Scalar(value.into()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
                let number = Number::from_f64(value).ok_or_else(|| E::custom("this is no finite number: write one"))?;
                Ok(Tree::Scalar(number.into()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
                Ok(Tree::Scalar(value.into()))
            }

            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Scalar(Value::Null))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Tree::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Tree, A::Error> {
                let mut map = Vec::new();
                while let Some(field) = fields.next_entry()? {
                    map.push(field);
                }
                Ok(Tree::Map(map))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DOCUMENT: &str = "\
kind: TaskPlatform
metadata: {labels: {a.b/c: d}}
spec:
  scaling: {minInstances: 3, maxInstances: 2}
  database:
    parameters:
      max_connections: '10'
      pg_stat_statements.max: '5'
  list:
  - a: 1
";

    #[test]
    fn a_field_has_a_place() {
        let places = Places::of(DOCUMENT).unwrap();
        for (path, name, value) in [
            ("kind", (1, 1), (1, 7)),
            ("metadata.labels.a.b/c", (2, 21), (2, 28)),
            ("spec.scaling", (4, 3), (4, 12)),
            ("spec.scaling.maxInstances", (4, 30), (4, 44)),
            ("spec.database.parameters.max_connections", (7, 7), (7, 24)),
            ("spec.database.parameters.pg_stat_statements.max", (8, 7), (8, 31)),
            ("spec.database.readReplicas", (5, 3), (6, 5)),
            ("spec.list.0.a", (10, 5), (10, 8)),
            ("elsewhere", (1, 1), (1, 1)),
        ] {
            let place = |(line, column)| Place { line, column };
            assert_eq!((places.find_name(path), places.find(path)), (place(name), place(value)), "{path}");
        }
        assert_eq!((places.text("kind"), places.text("spec")), (Some("TaskPlatform"), None));
    }

    #[test]
    fn values_are_what_kubectl_takes_them_for() {
        let document =
            "[on, No, y, true, 'on', 1.10, .25, 3.0, 010, 0x1F, 1e3, ~, null, '', 2026-01-02, 12:30:45, 500m]";
        let expected = json!([
            true,
            false,
            true,
            true,
            "on",
            1.1,
            0.25,
            3.0,
            8,
            31,
            1000.0,
            null,
            null,
            "",
            "2026-01-02",
            "12:30:45",
            "500m",
        ]);
        assert_eq!(Places::of(document).unwrap().value(), expected);
        assert!(Places::of(".inf").is_err());
    }

    #[test]
    fn what_is_no_yaml_has_none() {
        assert!(Places::of("a: [").is_err());
        assert!(Places::of("a: 1\na: 2").is_err());
    }
}
