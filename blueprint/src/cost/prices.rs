//! A price book: what nodes, volumes and load balancers cost. People replace it with their own.

use serde::{Deserialize, Serialize};
use taskplatform_crds::{Cpu, Size};

use crate::Unit;

/// Prices, and where they are from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PriceBook {
    /// What the prices are in, such as USD.
    pub currency: String,
    /// Where they hold, such as a region of a cloud.
    pub region: String,
    /// When they held.
    pub as_of: String,
    /// Where they are from.
    pub source: String,
    /// The hours of a month.
    pub hours_a_month: f64,
    /// The part of a node that is there for pods; the rest is the system's.
    pub usable: f64,
    /// What a gibibyte of a volume costs a month.
    pub volume_gib_month: f64,
    /// What a load balancer costs a month, without its traffic.
    pub load_balancer_month: f64,
    /// The nodes that pods may share.
    pub nodes: Vec<NodePrice>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NodePrice {
    /// Its type.
    pub name: String,
    /// Its CPU.
    pub cpu: Cpu,
    /// Its memory.
    pub memory: Size,
    /// What it costs an hour.
    pub on_demand: f64,
    /// What it costs an hour while it may be taken away at any time.
    pub spot: f64,
}

/// No node of the price book has room for a pod.
#[derive(Debug, thiserror::Error)]
#[error(
    "no node of the price book has the {cpu} CPU and {memory} memory of a pod of the {component}: add a larger one to the price book, or ask for less"
)]
pub struct Unpriced {
    component: crate::Component,
    cpu: Cpu,
    memory: Size,
}

impl PriceBook {
    /// The node on which a pod costs least, and its share of it.
    pub(super) fn cheapest(&self, unit: &Unit) -> Result<(&NodePrice, f64), Unpriced> {
        let shares = self.nodes.iter().map(|node| (node, self.share(node, unit)));
        let fitting = shares.filter(|(_, share)| *share <= 1.0);
        let cost = |(node, share): &(&NodePrice, f64)| share * node.on_demand;
        fitting.min_by(|one, other| cost(one).total_cmp(&cost(other))).ok_or(Unpriced {
            component: unit.component,
            cpu: unit.resources.cpu,
            memory: unit.resources.memory,
        })
    }

    fn share(&self, node: &NodePrice, unit: &Unit) -> f64 {
        let cpu = cores(unit.resources.cpu) / (cores(node.cpu) * self.usable);
        let memory = gibibytes(unit.resources.memory) / (gibibytes(node.memory) * self.usable);
        cpu.max(memory)
    }
}

fn cores(cpu: Cpu) -> f64 {
    to_f64(cpu.as_millicores()) / 1000.0
}

pub(super) fn gibibytes(size: Size) -> f64 {
    to_f64(size.as_mebibytes()) / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "an estimate does not need the sixteenth digit")]
const fn to_f64(value: u64) -> f64 {
    value as f64
}
