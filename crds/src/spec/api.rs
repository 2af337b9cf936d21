//! The API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Resources;
use crate::Count;

/// The task API's Deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Api {
    /// The number of instances now. Leave it out: the autoscaler writes it, through the scale subresource. It starts at
    /// scaling.minInstances and is kept within scaling.minInstances and scaling.maxInstances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Count<1, 1000>>,
    /// The image to run instead of the operator's own release.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// What each instance gets.
    pub resources: Resources,
}

impl Default for Api {
    fn default() -> Self {
        Self { replicas: None, image: None, resources: Resources::new(500, 256) }
    }
}
