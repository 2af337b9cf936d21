//! The images that a release is made of.

use std::collections::BTreeMap;

/// An image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Image {
    /// PostgreSQL and Patroni.
    Postgres,
    /// PgBouncer.
    Pgbouncer,
    /// Redis.
    Redis,
    /// nginx.
    Gateway,
    /// The task API.
    TaskApi,
}

impl Image {
    /// Every image.
    pub const ALL: [Self; 5] = [Self::Postgres, Self::Pgbouncer, Self::Redis, Self::Gateway, Self::TaskApi];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Pgbouncer => "pgbouncer",
            Self::Redis => "redis",
            Self::Gateway => "gateway",
            Self::TaskApi => "task-api",
        }
    }

    /// The variable of the operator that names another one, such as `RELATED_IMAGE_TASK_API`.
    pub fn variable(self) -> String {
        format!("RELATED_IMAGE_{}", self.name().to_uppercase().replace('-', "_"))
    }

    /// What has it tell something about itself and end.
    pub const fn trial(self) -> &'static str {
        match self {
            Self::Gateway => "-v",
            Self::TaskApi => "--help",
            Self::Postgres | Self::Pgbouncer | Self::Redis => "--version",
        }
    }
}

/// Where each image is pulled from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images([String; Image::ALL.len()]);

impl Default for Images {
    fn default() -> Self {
        Self::from_environment(&BTreeMap::new())
    }
}

impl Images {
    /// The release's images, or those that variables such as `RELATED_IMAGE_POSTGRES` name instead.
    pub fn from_environment(variables: &BTreeMap<String, String>) -> Self {
        let release = |image: Image| format!("taskplatform/{}:{}", image.name(), env!("CARGO_PKG_VERSION"));
        Self(Image::ALL.map(|image| variables.get(&image.variable()).cloned().unwrap_or_else(|| release(image))))
    }

    /// Where an image is pulled from.
    pub fn get(&self, image: Image) -> &str {
        &self.0[image as usize]
    }
}
