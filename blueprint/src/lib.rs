//! The pure function from a TaskPlatform to Kubernetes objects.
//!
//! `blueprint(platform, facts)` has no client, clock, randomness or I/O: the operator and the command line call the same
//! one, so that what is rendered is what is applied. `parts` has a file for each part of a platform, which says what it is made of.

pub mod applied;
mod component;
mod cost;
mod credentials;
mod endpoints;
mod findings;
mod fingerprint;
mod images;
mod network;
mod object;
mod parts;
mod plan;
mod platform;
mod pod;
mod trouble;
mod unit;

pub use component::Component;
pub use cost::{Capacity, ComponentCost, Estimate, LEVELS, Level, NodePrice, PriceBook, Unpriced, estimate};
pub use credentials::{Credentials, Versions, keys as credential_keys, owner as credential_owner};
pub use endpoints::{Endpoint, Login, Outsider};
pub use findings::{Code, Finding, InvalidNodes, Node, Nodes, Severity, UnknownCode, findings, fixed_instances};
pub use fingerprint::Fingerprint;
pub use images::{Image, Images};
pub use object::{Kind, MANAGED_BY, Object, labels, selector};
pub use parts::{
    Band, CredentialFile, MOST_LAG_TO_LEAD, PARTS, Part, Proposal, REDIS_NODE_TIMEOUT_MILLISECONDS, RedisCluster,
    Share, bands, dynamic_configuration,
};
pub use plan::{Action, Change, Effect, FieldChange, SettingChange, Totals, differences, in_a_line, plan, settings};
pub use platform::{CustomMetric, Draft, Facts, Invalid, Names, Platform, REQUESTS_PER_SECOND};
pub use pod::{pod_security_context, security_context};
pub use trouble::{Trouble, is_taken_by_no_node, trouble};
pub use unit::{Unit, Workload, units};

/// The objects that make up a platform, in the order in which they are applied: what others refer to comes first, and
/// workloads come after their configuration, so that none starts with an old one.
pub fn blueprint(platform: &Platform, facts: &Facts) -> Vec<Object> {
    let mut objects: Vec<Object> = PARTS.iter().flat_map(|part| parts::objects(*part, platform, facts)).collect();
    objects.sort_by_key(Object::kind);
    objects
}
