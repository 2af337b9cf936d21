//! What a platform costs a month, by a price book.
//!
//! Pods are paid for by their share of a node: that part of its CPU or memory, whichever is more, that they ask for. The
//! node is the one of the price book on which that is cheapest. So the estimate does not depend on what else runs on the
//! nodes, and what they cannot be filled with is not in it.

mod levels;
mod prices;

use serde::{Deserialize, Serialize};
use taskplatform_crds::ServiceType;

use crate::{
    Platform, Unit,
    parts::{Part, part},
    units,
};
pub use levels::{LEVELS, Level};
pub use prices::{NodePrice, PriceBook, Unpriced};

/// How the API's instances are divided (plan 8.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capacity {
    /// The part of the instances that may run on spot nodes, from 0 to 1.
    pub spot_ratio: f64,
    /// So many instances run on demand at least.
    pub on_demand_minimum: i32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { spot_ratio: 0.7, on_demand_minimum: 3 }
    }
}

impl Capacity {
    /// How many of so many instances run on demand.
    pub fn on_demand(self, instances: i32) -> i32 {
        let share = (f64::from(instances) * (1.0 - self.spot_ratio) - 1e-9).ceil();
        #[expect(clippy::cast_possible_truncation, reason = "it is between zero and the number of instances")]
        let share = share.clamp(0.0, f64::from(instances)) as i32;
        share.max(self.on_demand_minimum).min(instances)
    }
}

/// What a component costs a month.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentCost {
    /// The component.
    pub component: String,
    /// Its pods.
    pub pods: i32,
    /// How many of them run on spot nodes.
    pub spot_pods: i32,
    /// The node of the price book that they share.
    pub node: String,
    /// What the pods that run on demand cost.
    pub on_demand: f64,
    /// What the others cost.
    pub spot: f64,
    /// What the volumes cost.
    pub volumes: f64,
}

impl ComponentCost {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.on_demand + self.spot + self.volumes
    }
}

/// What a platform costs a month with a number of API instances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// The instances of the API.
    pub instances: i32,
    /// Each component.
    pub components: Vec<ComponentCost>,
    /// The load balancer, if the gateway has one.
    pub load_balancer: f64,
    /// All together.
    pub total: f64,
}

/// What a platform costs a month with so many instances of the API.
///
/// # Errors
/// A pod is larger than every node of the price book.
pub fn estimate(
    platform: &Platform,
    instances: i32,
    capacity: Capacity,
    prices: &PriceBook,
) -> Result<Estimate, Unpriced> {
    let units = units(platform, instances);
    let components: Vec<ComponentCost> =
        units.iter().map(|unit| component(unit, capacity, prices)).collect::<Result<_, _>>()?;
    let load_balancer = if platform.spec().gateway.service.kind == ServiceType::LoadBalancer {
        prices.load_balancer_month
    } else {
        0.0
    };
    let total = components.iter().map(ComponentCost::total).sum::<f64>() + load_balancer;
    Ok(Estimate { instances, components, load_balancer, total })
}

fn component(unit: &Unit, capacity: Capacity, prices: &PriceBook) -> Result<ComponentCost, Unpriced> {
    let (node, share) = prices.cheapest(unit)?;
    let may_run_on_spot = part(unit.component.name()).is_some_and(Part::may_run_on_spot);
    let on_demand = if may_run_on_spot { capacity.on_demand(unit.pods) } else { unit.pods };
    let spot = unit.pods - on_demand;
    let month = share * prices.hours_a_month;
    let gibibytes = unit.storage.as_ref().map_or(0.0, |storage| prices::gibibytes(storage.size)) * f64::from(unit.pods);
    Ok(ComponentCost {
        component: unit.component.to_string(),
        pods: unit.pods,
        spot_pods: spot,
        node: node.name.clone(),
        on_demand: f64::from(on_demand) * month * node.on_demand,
        spot: f64::from(spot) * month * node.spot,
        volumes: gibibytes * prices.volume_gib_month,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_division_is_exact() {
        let capacity = Capacity::default();
        for (instances, on_demand) in [(1, 1), (3, 3), (4, 3), (10, 3), (11, 4), (20, 6), (50, 15)] {
            assert_eq!(capacity.on_demand(instances), on_demand, "{instances}");
        }
    }
}
