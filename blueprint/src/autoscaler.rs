//! The HorizontalPodAutoscaler: it scales the TaskPlatform itself, through the scale subresource.

use serde_json::{Value, json};
use taskplatform_crds::Scaling;

use crate::{Component, Facts, Object, Platform, object::Kind};

pub(crate) fn objects(platform: &Platform, facts: &Facts) -> Vec<Object> {
    let scaling = &platform.spec().scaling;
    vec![Object::new(
        platform,
        Component::Api,
        Kind::HorizontalPodAutoscaler,
        &platform.names().component(Component::Api),
        json!({"spec": {
            "scaleTargetRef": {
                "apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform", "name": platform.name(),
            },
            "minReplicas": scaling.min_instances,
            "maxReplicas": scaling.max_instances,
            "metrics": metrics(scaling, facts),
            "behavior": behavior(scaling),
        }}),
    )]
}

fn metrics(scaling: &Scaling, facts: &Facts) -> Vec<Value> {
    let resource = |name: &str, utilization: i32| {
        json!({
            "type": "Resource",
            "resource": {"name": name, "target": {"type": "Utilization", "averageUtilization": utilization}},
        })
    };
    let mut metrics = vec![resource("cpu", scaling.target_cpu.get()), resource("memory", scaling.target_memory.get())];
    if facts.requests_per_second {
        metrics.push(json!({
            "type": "Pods",
            "pods": {
                "metric": {"name": "http_requests_per_second"},
                "target": {"type": "AverageValue", "averageValue": scaling.target_rps.to_string()},
            },
        }));
    }
    metrics
}

/// `period` is the stabilization window, `cooldown` with its step is the policy. The thresholds are absolute CPU use;
/// the autoscaler knows them as tolerances around the target.
fn behavior(scaling: &Scaling) -> Value {
    let target = scaling.target_cpu.get();
    let rules =
        |window: taskplatform_crds::Duration, pods: i32, cooldown: taskplatform_crds::Duration, tolerance: i32| {
            json!({
                "stabilizationWindowSeconds": window.as_secs(),
                "selectPolicy": "Max",
                "policies": [{"type": "Pods", "value": pods, "periodSeconds": cooldown.as_secs()}],
                "tolerance": format!("{tolerance}m"),
            })
        };
    let (up, down) = (&scaling.scale_up, &scaling.scale_down);
    json!({
        "scaleUp": rules(up.period, up.increment.get(), up.cooldown, thousandths(up.threshold.get() - target, target)),
        "scaleDown": rules(down.period, down.decrement.get(), down.cooldown, thousandths(target - down.threshold.get(), target)),
    })
}

/// The quotient in thousandths, rounded up: the band includes its threshold.
const fn thousandths(dividend: i32, divisor: i32) -> i32 {
    (dividend * 1000 + divisor - 1) / divisor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_thresholds_are_the_documented_tolerances() {
        let behavior = behavior(&Scaling::default());
        assert_eq!(behavior["scaleUp"]["tolerance"], "143m");
        assert_eq!(behavior["scaleDown"]["tolerance"], "572m");
    }
}
