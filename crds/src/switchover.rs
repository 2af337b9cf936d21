//! The wish that another member of the database leads.

use std::{fmt, str::FromStr};

use k8s_openapi::jiff::Timestamp;

/// The annotation of a TaskPlatform that holds the wish, until the operator has fulfilled it and removes it.
pub const SWITCHOVER: &str = "taskplatform.dev/switchover";

/// Which member is to lead, as `any`, a pod's name, or either with `@` and a time: `tasks-database-1@2026-01-31T03:00:00Z`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Switchover {
    /// The member's pod; left out, the replica that has read the most.
    pub to: Option<String>,
    /// When; left out, at once.
    pub at: Option<Timestamp>,
}

/// The annotation cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "annotation {SWITCHOVER}: `{0}` is not `any`, a pod, or either with `@` and a time such as any@2026-01-31T03:00:00Z"
)]
pub struct SwitchoverError(String);

impl FromStr for Switchover {
    type Err = SwitchoverError;

    fn from_str(text: &str) -> Result<Self, SwitchoverError> {
        let wrong = || SwitchoverError(text.to_owned());
        let (to, at) = match text.split_once('@') {
            Some((to, at)) => (to, Some(at.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let is_name = |to: &str| to.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
        if to.is_empty() || !is_name(to) {
            return Err(wrong());
        }
        Ok(Self { to: (to != "any").then(|| to.to_owned()), at })
    }
}

impl fmt::Display for Switchover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to.as_deref().unwrap_or("any"))?;
        self.at.map_or(Ok(()), |at| write!(f, "@{at}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for text in ["any", "tasks-database-1", "any@2026-01-31T03:00:00Z", "tasks-database-1@2026-01-31T03:00:00Z"] {
            assert_eq!(text.parse::<Switchover>().unwrap().to_string(), text);
        }
        for text in ["", "@2026-01-31T03:00:00Z", "any@tomorrow", "two pods"] {
            assert!(text.parse::<Switchover>().unwrap_err().to_string().contains(SWITCHOVER), "{text}");
        }
    }
}
