//! The workers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Resources;
use crate::Count;

/// The API's work beside requests: events, summaries, partitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Worker {
    /// How many workers run; they share the work. One is enough for the documented load, another takes over at once when
    /// it is lost.
    pub replicas: Count<1, 100>,
    /// What each worker gets.
    pub resources: Resources,
}

impl Default for Worker {
    fn default() -> Self {
        Self { replicas: Count::clamped(1), resources: Resources::new(250, 128) }
    }
}
