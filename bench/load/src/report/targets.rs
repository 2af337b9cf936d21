//! What the task API is to reach on a machine of two cores that server, stores and generator share.

use serde::Serialize;

use super::Summary;
use crate::measurement::{Cell, Load};

/// The servers, as `bench/api.sh` calls them.
const BASELINE: &str = "baseline";
const ALONE: &str = "alone";
const PLATFORM: &str = "platform";

/// Where throughput and latency are compared.
const COMPARED: Load = Load::Closed { connections: 500 };
const MOST: Load = Load::Closed { connections: 10_000 };

/// A target and what was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) wanted: String,
    /// None where it was not measured.
    pub(crate) measured: Option<f64>,
    /// None where it was not measured.
    pub(crate) reached: Option<bool>,
}

/// Every target.
pub(crate) fn check(servers: &[Summary]) -> Vec<Target> {
    let server = |name: &str| servers.iter().find(|server| server.server == name);
    let cell = |name: &str, load| server(name).and_then(|server| server.cell(load));
    let ratio = |name: &str, of: fn(&Cell) -> f64| Some(of(cell(name, COMPARED)?) / of(cell(BASELINE, COMPARED)?));
    let throughput = |name| ratio(name, |cell| cell.throughput);
    let p95 = |name| ratio(name, |cell| cell.latency.p95);
    let memory = |name, load| cell(name, load).map(|cell| cell.memory);
    let open = |name, rate| cell(name, Load::Open { rate, users: 10_000 });
    let open_p95 = |name, rate| open(name, rate).map(|cell| held(cell, rate));
    vec![
        at_least("throughput at 500 connections, alone ÷ baseline", 4.0, throughput(ALONE)),
        at_least("throughput at 500 connections, platform ÷ baseline", 2.5, throughput(PLATFORM)),
        at_most("p95 at 500 connections, alone ÷ baseline", 0.4, "", p95(ALONE)),
        at_most("p95 at 500 connections, platform ÷ baseline", 0.7, "", p95(PLATFORM)),
        at_most("10,000 users at 12,000 requests/s, alone: p95", 100.0, " ms", open_p95(ALONE, 12_000)),
        at_most("10,000 users at 8,000 requests/s, platform: p95", 100.0, " ms", open_p95(PLATFORM, 8_000)),
        at_most("10,000 users at 4,000 requests/s, alone: p95", 2.0, " ms", open_p95(ALONE, 4_000)),
        at_most("memory at 500 connections, alone", 50.0, " MiB", memory(ALONE, COMPARED)),
        at_most("memory at 500 connections, platform", 50.0, " MiB", memory(PLATFORM, COMPARED)),
        at_most("memory at 10,000 connections, alone", 135.0, " MiB", memory(ALONE, MOST)),
        at_most("memory at 10,000 connections, platform", 135.0, " MiB", memory(PLATFORM, MOST)),
        at_most("start to first answer, alone", 100.0, " ms", server(ALONE).map(|server| server.start)),
    ]
}

/// The p95 at a rate; without end where the rate was not held, or more than 0.1 % of the requests failed.
fn held(cell: &Cell, rate: u32) -> f64 {
    let held = cell.throughput >= 0.98 * f64::from(rate) && cell.error_rate < 0.001;
    if held { cell.latency.p95 } else { f64::INFINITY }
}

fn at_least(what: &str, wanted: f64, measured: Option<f64>) -> Target {
    let reached = measured.map(|measured| measured >= wanted);
    Target { what: what.to_owned(), wanted: format!("≥ {wanted}"), measured, reached }
}

fn at_most(what: &str, wanted: f64, unit: &str, measured: Option<f64>) -> Target {
    let reached = measured.map(|measured| measured <= wanted);
    Target { what: what.to_owned(), wanted: format!("≤ {wanted}{unit}"), measured, reached }
}
