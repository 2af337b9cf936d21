//! What a run measures.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// How a server is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// Closed loop: each connection asks again as soon as it is answered.
    Closed {
        /// How many.
        connections: u32,
    },
    /// Open loop: users think for a while, each on a connection of their own, however long answers take.
    Open {
        /// Requests a second of all of them together.
        rate: u32,
        /// How many.
        users: u32,
    },
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { connections } => write!(f, "{connections} connections"),
            Self::Open { rate, users } => write!(f, "{users} users, {rate} requests/s"),
        }
    }
}

/// What a server did under one load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// The load.
    pub load: Load,
    /// Answers within the measured time, a second.
    pub throughput: f64,
    /// Milliseconds from when a request was due to its answer.
    pub latency: Latency,
    /// Requests that were answered wrongly or not at all, by reason.
    pub errors: BTreeMap<String, u64>,
    /// The part of the requests that were.
    pub error_rate: f64,
    /// CPU microseconds an answer.
    pub cpu: Cpu,
    /// MiB that the server's process had resident at the end.
    pub memory: f64,
}

/// Quantiles, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "quantiles")]
pub struct Latency {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

/// CPU microseconds an answer.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Cpu {
    /// The server's process.
    pub server: f64,
    /// What it keeps its data in.
    pub stores: f64,
    /// The generator.
    pub generator: f64,
}

/// One server, once started, under every load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// What the server is called in the report.
    pub server: String,
    /// Processes that wanted to run when it began, averaged over a minute.
    pub load_average: f64,
    /// Milliseconds from the start of its process to its first answer.
    pub start: f64,
    /// By load.
    pub cells: Vec<Cell>,
}
