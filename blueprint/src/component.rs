//! A part's name.

use std::fmt;

use crate::parts::PARTS;

/// The name of a part of a platform; the value of the label `app.kubernetes.io/component`. Each part's file declares its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Component(&'static str);

impl Component {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// Every component, what others depend on first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator + Clone {
        PARTS.iter().map(|part| part.component())
    }

    /// The component of a name.
    pub fn find(name: &str) -> Option<Self> {
        Self::all().find(|component| component.0 == name)
    }

    /// The name as a condition's type begins with it: `Database` of `DatabaseReady`.
    pub fn title(self) -> String {
        let (first, rest) = self.0.split_at(1);
        format!("{}{rest}", first.to_uppercase())
    }

    /// The name, as labels and object names hold it.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
