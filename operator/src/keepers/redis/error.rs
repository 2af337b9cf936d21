//! Why a cluster could not be looked after.

use redis::RedisError;

/// Why a cluster could not be looked after.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A pod's name has no ordinal.
    #[error("pod {pod} cannot be part of a Redis cluster: its name does not end in the ordinal of a StatefulSet's pod")]
    Name {
        /// The pod's name.
        pod: String,
    },
    /// The password is not the cluster's.
    #[error("{pod} refused the password: restart the pod where the Secret has changed since it started")]
    Refused {
        /// The pod's name.
        pod: String,
        /// What it answered.
        source: RedisError,
    },
    /// A step failed, and failed again until the time was up.
    #[error("{step} failed; it is tried again")]
    Step {
        /// What was being done, on which pods.
        step: String,
        /// What the node answered.
        source: RedisError,
    },
}
