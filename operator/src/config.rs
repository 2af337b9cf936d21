//! What the operator is told when it starts.

use std::{collections::BTreeMap, env, net::SocketAddr};

use taskplatform_blueprint::Images;

/// The operator's own settings, from the environment.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The name of this replica: the holder of the lease.
    pub(crate) identity: String,
    /// The namespace of the operator.
    pub(crate) namespace: String,
    /// Where `/healthz`, `/readyz` and `/metrics` answer.
    pub(crate) listen: SocketAddr,
    /// Where the admission webhook answers.
    pub(crate) admission_listen: SocketAddr,
    /// How many platforms follow an upgrade of the operator at once.
    pub(crate) upgrades_at_once: usize,
    /// The images that it runs: the release's, or those in `RELATED_IMAGE_*`.
    pub(crate) images: Images,
}

/// A setting that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{variable} is {value:?}, which is no address: give one such as [::]:8080")]
    Listen { variable: &'static str, value: String, source: std::net::AddrParseError },
    #[error("UPGRADES_AT_ONCE is {value:?}, which is no number of platforms: give one from 1 on")]
    Upgrades { value: String },
}

impl Config {
    pub(crate) fn from_environment() -> Result<Self, Error> {
        let variables: BTreeMap<String, String> = env::vars().collect();
        let get = |name: &str, default: &str| variables.get(name).cloned().unwrap_or_else(|| default.to_owned());
        let address = |variable, default| {
            let value = get(variable, default);
            value.parse().map_err(|source| Error::Listen { variable, value, source })
        };
        let upgrades = get("UPGRADES_AT_ONCE", "5");
        let upgrades_at_once = upgrades.parse().ok().filter(|number| *number > 0);
        Ok(Self {
            upgrades_at_once: upgrades_at_once.ok_or(Error::Upgrades { value: upgrades })?,
            identity: get("POD_NAME", "taskplatform-operator"),
            namespace: get("POD_NAMESPACE", "taskplatform-system"),
            listen: address("LISTEN", "[::]:8080")?,
            admission_listen: address("ADMISSION_LISTEN", "[::]:9443")?,
            images: Images::from_environment(&variables),
        })
    }
}
