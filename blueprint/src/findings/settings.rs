//! PostgreSQL's settings: those that it does not know, and values that it cannot use.

use super::{Code, Finding};
use crate::{Draft, postgresql};

pub(super) fn errors(platform: &Draft) -> Vec<Finding> {
    let parameters = &platform.spec().database.parameters;
    parameters.iter().filter_map(|(name, value)| wrong(name, &value.0)).collect()
}

fn wrong(name: &str, value: &str) -> Option<Finding> {
    let field = format!("spec.database.parameters.{name}");
    match postgresql::setting(name) {
        Some(setting) => {
            let refusal = setting.check(value).err()?;
            Some(Finding::new(Code::SettingValue, &field, refusal.reason, refusal.remedy))
        }
        None if is_of_extension(name) => None,
        None => {
            let remedy = match postgresql::likely(name) {
                Some(likely) => format!("write {likely}, if that was meant"),
                None => "leave it out; settings of extensions have a dot, such as pg_stat_statements.max".to_owned(),
            };
            Some(Finding::new(Code::UnknownSetting, &field, "PostgreSQL 17 has no such setting".to_owned(), remedy))
        }
    }
}

fn is_of_extension(name: &str) -> bool {
    name.contains('.')
}
