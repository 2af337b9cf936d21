//! The load levels of the plan (sections 1.2 and 8.1), which `cost` prices and `size` proposes.

use taskplatform_crds::{Cpu, Size};

/// A load level, and what the plan gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Its name.
    pub name: &'static str,
    /// Up to so many users.
    pub users: u32,
    /// Instances of the API.
    pub instances: i32,
    /// The machine of each of them.
    pub instance: Machine,
    /// The machine of the database.
    pub database: Machine,
    /// The machine of the cache.
    pub cache: Machine,
    /// What the plan says that it costs a month, in USD; nothing where it does not say.
    pub plan_month: Option<f64>,
}

/// A cloud's machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Its type, as the plan names it.
    pub name: &'static str,
    /// Its cores.
    pub cores: u64,
    /// Its memory in gibibytes.
    pub gibibytes: u64,
}

impl Machine {
    const fn new(name: &'static str, cores: u64, gibibytes: u64) -> Self {
        Self { name, cores, gibibytes }
    }

    /// Its CPU that is there for pods: a tenth is the system's.
    pub const fn cpu(&self) -> Cpu {
        Cpu::millicores(self.cores * 900)
    }

    /// Its memory that is there for pods: a tenth is the system's.
    pub const fn memory(&self) -> Size {
        Size::mebibytes(self.gibibytes * 1024 / 10 * 9)
    }
}

/// Section 8.1, and the 20,000 users of section 1.2.
pub const LEVELS: [Level; 5] = [
    Level {
        name: "Low",
        users: 1_000,
        instances: 2,
        instance: Machine::new("t3.medium", 2, 4),
        database: Machine::new("db.t3.medium", 2, 4),
        cache: Machine::new("t3.small", 2, 2),
        plan_month: Some(250.0),
    },
    Level {
        name: "Medium",
        users: 5_000,
        instances: 5,
        instance: Machine::new("t3.large", 2, 8),
        database: Machine::new("db.r5.large", 2, 16),
        cache: Machine::new("t3.medium", 2, 4),
        plan_month: Some(800.0),
    },
    Level {
        name: "High",
        users: 10_000,
        instances: 10,
        instance: Machine::new("c5.xlarge", 4, 8),
        database: Machine::new("db.r5.xlarge", 4, 32),
        cache: Machine::new("r5.large", 2, 16),
        plan_month: Some(2_500.0),
    },
    Level {
        name: "Peak",
        users: 15_000,
        instances: 20,
        instance: Machine::new("c5.xlarge", 4, 8),
        database: Machine::new("db.r5.2xlarge", 8, 64),
        cache: Machine::new("r5.xlarge", 4, 32),
        plan_month: Some(5_000.0),
    },
    Level {
        name: "Peak (1.2)",
        users: 20_000,
        instances: 20,
        instance: Machine::new("c5.2xlarge", 8, 16),
        database: Machine::new("db.r6g.4xlarge", 16, 128),
        cache: Machine::new("r6g.2xlarge", 8, 64),
        plan_month: None,
    },
];
