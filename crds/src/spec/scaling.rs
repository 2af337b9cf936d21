//! The autoscaler.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;
use crate::{Count, Duration, Percent};

/// Bounds and rules of the autoscaler (plan 1.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.minInstances <= self.maxInstances", "minInstances must not be above maxInstances: lower the one or raise the other"),
    ("self.scaleDown.threshold < self.targetCPU && self.targetCPU < self.scaleUp.threshold", "the thresholds enclose the target: choose scaleDown.threshold < targetCPU < scaleUp.threshold"),
])))]
pub struct Scaling {
    /// The fewest instances of the API.
    pub min_instances: Count<1, 1000>,
    /// The most instances of the API.
    pub max_instances: Count<1, 1000>,
    /// The CPU use to aim at, in percent of the request.
    #[serde(rename = "targetCPU")]
    pub target_cpu: Percent,
    /// The memory use to aim at, in percent of the request.
    pub target_memory: Percent,
    /// The requests a second and instance to aim at. In force where the cluster serves custom metrics.
    #[serde(rename = "targetRPS")]
    pub target_rps: Count<1, 1_000_000>,
    /// When and how fast instances are added.
    pub scale_up: ScaleUp,
    /// When and how fast instances are removed.
    pub scale_down: ScaleDown,
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            min_instances: Count::clamped(3),
            max_instances: Count::clamped(50),
            target_cpu: Count::clamped(70),
            target_memory: Count::clamped(80),
            target_rps: Count::clamped(1000),
            scale_up: ScaleUp::default(),
            scale_down: ScaleDown::default(),
        }
    }
}

/// When and how fast instances are added (plan 1.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("duration(self.period) <= duration('1h')", "period is at most 1h, the longest stabilization window of a HorizontalPodAutoscaler"),
    ("duration(self.cooldown) >= duration('1s') && duration(self.cooldown) <= duration('30m')", "cooldown is from 1s to 30m, the range of a HorizontalPodAutoscaler's policy"),
])))]
pub struct ScaleUp {
    /// CPU use above which instances are added, in percent of the request.
    pub threshold: Percent,
    /// How long the need must last: the lowest recommendation within this time counts.
    pub period: Duration,
    /// The time within which at most `increment` instances are added.
    pub cooldown: Duration,
    /// How many instances are added at most within `cooldown`.
    pub increment: Count<1, 1000>,
}

impl Default for ScaleUp {
    fn default() -> Self {
        Self {
            threshold: Count::clamped(80),
            period: Duration::seconds(60),
            cooldown: Duration::seconds(300),
            increment: Count::clamped(2),
        }
    }
}

/// When and how fast instances are removed (plan 1.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("duration(self.period) <= duration('1h')", "period is at most 1h, the longest stabilization window of a HorizontalPodAutoscaler"),
    ("duration(self.cooldown) >= duration('1s') && duration(self.cooldown) <= duration('30m')", "cooldown is from 1s to 30m, the range of a HorizontalPodAutoscaler's policy"),
])))]
pub struct ScaleDown {
    /// CPU use below which instances are removed, in percent of the request.
    pub threshold: Percent,
    /// How long the surplus must last: the highest recommendation within this time counts.
    pub period: Duration,
    /// The time within which at most `decrement` instances are removed.
    pub cooldown: Duration,
    /// How many instances are removed at most within `cooldown`.
    pub decrement: Count<1, 1000>,
}

impl Default for ScaleDown {
    fn default() -> Self {
        Self {
            threshold: Count::clamped(30),
            period: Duration::seconds(300),
            cooldown: Duration::seconds(600),
            decrement: Count::clamped(1),
        }
    }
}
