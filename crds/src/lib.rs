//! The TaskPlatform custom resource: its type, defaults and validation.
//!
//! The Rust type is the one source: its documentation is what `kubectl explain` prints, its defaults and CEL rules are
//! what the API server applies, and `taskplatform.yaml` beside this crate is generated from it (`make crds`).

mod duration;
mod form;
mod nearest;
mod network;
mod newer;
mod number;
mod parse;
mod quantity;
mod rate;
mod shape;
mod spec;
mod status;
mod switchover;

pub use duration::Duration;
pub use nearest::nearest;
pub use network::Network;
pub use number::{Count, Percent};
pub use parse::{BrokenRule, BrokenRules, Misfits, ParseError};
pub use quantity::{Cpu, Size};
pub use rate::Rate;
pub use shape::{Misfit, Part};
pub use spec::*;
pub use status::*;
pub use switchover::{SWITCHOVER, Switchover, SwitchoverError};

use kube::CustomResourceExt;

/// The CustomResourceDefinition, as `crds/taskplatform.yaml` holds it.
///
/// # Errors
/// When the definition cannot be written as YAML.
pub fn definition_yaml() -> Result<String, serde_saphyr::SerializeError> {
    let mut yaml = String::from("# Generated from crds/src by `make crds`: edit the Rust type instead.\n");
    yaml.push_str(&serde_saphyr::to_string(&TaskPlatform::crd())?);
    Ok(yaml)
}
