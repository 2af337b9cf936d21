//! PostgreSQL's settings: they change through Patroni, which reloads or restarts the members.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::in_a_line;
use crate::{
    Platform,
    parts::postgresql::{self, Setting, parameters},
};

/// A setting of PostgreSQL, before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingChange {
    /// Its name.
    pub name: String,
    /// What it was; nothing, if it was PostgreSQL's own default.
    pub before: Option<String>,
    /// What it will be; nothing, if it will be PostgreSQL's own default.
    pub after: Option<String>,
    /// Whether the members restart for it, one after another, the replicas first.
    pub restarts: bool,
}

/// The settings of PostgreSQL that change with the spec.
pub fn settings(before: &Platform, after: &Platform) -> Vec<SettingChange> {
    let (before, after) = (parameters(before), parameters(after));
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let text = |value: Option<&Value>| value.map(in_a_line);
    names
        .into_iter()
        .map(|name| SettingChange {
            name: name.clone(),
            before: text(before.get(name)),
            after: text(after.get(name)),
            restarts: postgresql::setting(name).is_some_and(Setting::is_read_at_start),
        })
        .filter(|setting| setting.before != setting.after)
        .collect()
}
