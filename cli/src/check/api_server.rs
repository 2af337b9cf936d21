//! The API server: whether it answers, and what its version means for a platform.

use std::{fmt, str::FromStr};

use super::outcome::{Group, Outcome, message};
use crate::cluster::Cluster;

const GROUP: Group = Group::Cluster;

/// Pods of the blueprint wait before they stop (`preStop.sleep`). An older API server drops that, and then refuses the pods.
const OLDEST: Version = Version { major: 1, minor: 30 };
/// Keeps the tolerance of a HorizontalPodAutoscaler unless it is told otherwise.
const THRESHOLDS: Version = Version { major: 1, minor: 35 };

/// A version of Kubernetes. Its patches change nothing that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u32,
    minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The text is no version.
#[derive(Debug, PartialEq, Eq)]
struct InvalidVersion;

impl FromStr for Version {
    type Err = InvalidVersion;

    /// Reads what API servers say of themselves, such as `v1.37.2` and `v1.33.1-eks-1a2b3c4`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut numbers = text.trim_start_matches('v').split(['.', '-', '+']);
        let mut number = || numbers.next()?.parse().ok();
        match (number(), number()) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(InvalidVersion),
        }
    }
}

/// What the rest depends on.
pub(super) async fn answers(cluster: &Cluster) -> Vec<Outcome> {
    let name = "the API server answers";
    match cluster.client.apiserver_version().await {
        Ok(version) => vec![GROUP.pass(name, ""), supported(&version.git_version)],
        Err(error) => vec![GROUP.failure(
            name,
            message(&error),
            "is it running, and is it the cluster that you mean (kubectl cluster-info; --context)?",
        )],
    }
}

fn supported(text: &str) -> Outcome {
    let name = "its version is supported";
    match text.parse::<Version>() {
        Ok(version) if version < OLDEST => GROUP.failure(
            name,
            format!("it is {text}, and refuses pods that sleep before they stop"),
            format!("upgrade it to {OLDEST} or later, best {THRESHOLDS}"),
        ),
        Ok(version) if version < THRESHOLDS => GROUP.warning(
            name,
            format!(
                "it is {text}, which knows no thresholds of the autoscaler unless HPAConfigurableTolerance is enabled"
            ),
            format!("upgrade it to {THRESHOLDS} or later"),
        ),
        Ok(_) => GROUP.pass(name, text),
        Err(InvalidVersion) => {
            GROUP.warning(name, format!("it calls itself {text:?}"), format!("make sure that it is {OLDEST} or later"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::outcome::Verdict;

    #[test]
    fn versions_are_read_as_distributions_write_them() {
        let version = |minor| Ok(Version { major: 1, minor });
        for (text, expected) in [
            ("v1.37.2", version(37)),
            ("v1.33.1-eks-1a2b3c4", version(33)),
            ("v1.30.4+k3s1", version(30)),
            ("1.9", version(9)),
            ("v1.34-rc.1", version(34)),
            ("v1", Err(InvalidVersion)),
            ("", Err(InvalidVersion)),
        ] {
            assert_eq!(text.parse::<Version>(), expected, "{text}");
        }
    }

    #[test]
    fn an_old_version_fails_and_a_younger_one_warns() {
        for (text, verdict) in [
            ("v1.29.9", Verdict::Failure),
            ("v1.30.0", Verdict::Warning),
            ("v1.34.9-gke.1", Verdict::Warning),
            ("v1.35.0", Verdict::Pass),
            ("v2.0.0", Verdict::Pass),
            ("unknown", Verdict::Warning),
        ] {
            assert_eq!(supported(text).verdict, verdict, "{text}");
        }
    }
}
