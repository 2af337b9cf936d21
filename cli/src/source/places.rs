//! Where the fields of a YAML document are.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

/// A line and a column, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

/// A document's fields, with their places.
#[derive(Debug)]
pub(crate) struct Places(Spanned<Tree>);

#[derive(Debug)]
enum Tree {
    Scalar(String),
    List(Vec<Spanned<Tree>>),
    Map(Vec<(String, Spanned<Tree>)>),
}

impl Places {
    /// Those of a document.
    pub(crate) fn of(document: &str) -> Result<Self, serde_saphyr::Error> {
        serde_saphyr::from_str(document).map(Self)
    }

    /// The text of a field at the top of the document.
    pub(crate) fn text(&self, field: &str) -> Option<&str> {
        match &self.0.value.get(field)?.value {
            Tree::Scalar(text) => Some(text),
            Tree::List(_) | Tree::Map(_) => None,
        }
    }

    /// The place of a field such as `spec.scaling.minInstances`, or of that around it which is there.
    pub(crate) fn find(&self, path: &str) -> Place {
        let mut here = &self.0;
        for name in path.split('.') {
            match here.value.get(name) {
                Some(inner) => here = inner,
                None => break,
            }
        }
        Place { line: here.referenced.line(), column: here.referenced.column() }
    }
}

impl Tree {
    fn get(&self, name: &str) -> Option<&Spanned<Self>> {
        match self {
            Self::Map(fields) => fields.iter().find(|(field, _)| field == name).map(|(_, value)| value),
            Self::List(items) => items.get(name.parse::<usize>().ok()?),
            Self::Scalar(_) => None,
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
                Ok(Tree::Scalar(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
                Ok(Tree::Scalar(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
                Ok(Tree::Scalar(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
                Ok(Tree::Scalar(value.to_string()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
                Ok(Tree::Scalar(value.to_owned()))
            }

            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Scalar(String::new()))
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
    use super::*;

    const DOCUMENT: &str = "kind: TaskPlatform\nspec:\n  scaling: {minInstances: 3, maxInstances: 2}\n  database:\n    parameters:\n      max_connections: '10'\n";

    #[test]
    fn a_field_has_a_place() {
        let places = Places::of(DOCUMENT).unwrap();
        for (path, line, column) in [
            ("kind", 1, 7),
            ("spec.scaling", 3, 12),
            ("spec.scaling.maxInstances", 3, 44),
            ("spec.database.parameters.max_connections", 6, 24),
            ("spec.database.readReplicas", 5, 5),
            ("elsewhere", 1, 1),
        ] {
            assert_eq!(places.find(path), Place { line, column }, "{path}");
        }
        assert_eq!((places.text("kind"), places.text("spec")), (Some("TaskPlatform"), None));
    }

    #[test]
    fn what_is_no_yaml_has_none() {
        assert!(Places::of("a: [").is_err());
    }
}
