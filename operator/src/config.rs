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
    /// The images that it runs: the release's, or those in `RELATED_IMAGE_*`.
    pub(crate) images: Images,
}

/// A setting that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("LISTEN is {value:?}, which is no address: give one such as [::]:8080")]
pub(crate) struct InvalidListen {
    value: String,
    source: std::net::AddrParseError,
}

impl Config {
    pub(crate) fn from_environment() -> Result<Self, InvalidListen> {
        let variables: BTreeMap<String, String> = env::vars().collect();
        let get = |name: &str, default: &str| variables.get(name).cloned().unwrap_or_else(|| default.to_owned());
        let listen = get("LISTEN", "[::]:8080");
        Ok(Self {
            identity: get("POD_NAME", "taskplatform-operator"),
            namespace: get("POD_NAMESPACE", "taskplatform-system"),
            listen: listen.parse().map_err(|source| InvalidListen { value: listen.clone(), source })?,
            images: Images::from_environment(&variables),
        })
    }
}
