//! PostgreSQL as Patroni sees it.

use std::fmt;

use serde_json::Value;
use taskplatform_crds::Failover;

use crate::world::ordinal;

/// PostgreSQL as Patroni sees it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    /// The last changes of the primary, the last of all at the end.
    pub(crate) failovers: Vec<Failover>,
    /// What is being done about it.
    pub(crate) doing: Vec<String>,
    /// Only a member that has everything up to the last known position may lead.
    pub(crate) only_the_most_advanced: bool,
    /// Commits may wait for a replica that is not there.
    pub(crate) waited_for_in_vain: bool,
}

/// A member, as Patroni sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Member {
    pub(crate) pod: String,
    pub(crate) leads: bool,
    /// A commit may be waiting for it.
    pub(crate) synchronous: bool,
    /// The node that it is on, as far as it tells.
    pub(crate) node: Option<String>,
    pub(crate) state: String,
    pub(crate) timeline: Option<i64>,
    /// Bytes of WAL that it is behind.
    pub(crate) lag: Option<i64>,
    /// How full its volume is.
    pub(crate) volume: Option<Volume>,
    /// Settings that wait for a restart; an unnamed one where Patroni does not tell which.
    pub(crate) pending: Vec<Pending>,
}

/// How full the volume of a member is, as it says itself (see `patroni-awake`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Volume {
    /// The size of the file system, in MiB.
    pub(crate) size: u64,
    /// How much of it is used, in thousandths.
    pub(crate) used: u16,
    /// The member takes no writes until there is more room.
    pub(crate) is_full: bool,
    /// In how many days it is full at its rate.
    pub(crate) full_in_days: Option<u32>,
}

/// A setting of a member that a restart would change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) name: String,
    pub(crate) before: String,
    pub(crate) after: String,
}

impl Cluster {
    /// Reads the answer to `GET /cluster`.
    pub(crate) fn read(cluster: &Value) -> Self {
        let members = cluster["members"].as_array().into_iter().flatten().filter_map(Member::read).collect();
        Self { members, ..Self::default() }
    }

    /// The primary, if there is one that runs.
    pub(crate) fn primary(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.leads && member.state == "running")
    }

    /// Whether the members beyond so many may go: none of them leads.
    pub(crate) fn may_shrink_to(&self, members: i32) -> bool {
        self.primary().is_some_and(|primary| ordinal(&primary.pod).is_some_and(|ordinal| ordinal < members))
    }

    /// Replicas that stream from the primary and are at most so many bytes behind.
    pub(crate) fn streaming(&self, most: i64) -> usize {
        self.members.iter().filter(|member| member.streams() && member.lag.is_none_or(|lag| lag <= most)).count()
    }

    /// Replicas one of which has each commit before it is acknowledged.
    pub(crate) fn synchronous(&self) -> usize {
        self.members.iter().filter(|member| member.synchronous).count()
    }

    /// Whether commits wait for replicas on the primary's own node alone.
    pub(crate) fn commits_on_one_node(&self) -> bool {
        let mut synchronous = self.members.iter().filter(|member| member.synchronous).peekable();
        let primary = self.primary();
        synchronous.peek().is_some()
            && primary.is_some_and(|primary| synchronous.all(|member| member.is_beside(primary)))
    }

    /// Replicas that do not run as they should, with their state.
    pub(crate) fn lagging(&self, most: i64) -> Vec<String> {
        let replicas = self.members.iter().filter(|member| !member.leads);
        replicas
            .filter_map(|member| match member.lag {
                _ if !member.streams() => Some(format!("{} is {}", member.pod, member.state)),
                Some(lag) if lag > most => Some(format!("{} streams {} MiB behind", member.pod, lag >> 20)),
                _ => None,
            })
            .collect()
    }
}

impl Member {
    fn read(member: &Value) -> Option<Self> {
        let pending = member["pending_restart"].as_bool().unwrap_or(false);
        Some(Self {
            pod: member["name"].as_str()?.to_owned(),
            leads: member["role"] == "leader",
            synchronous: matches!(member["role"].as_str(), Some("quorum_standby" | "sync_standby")),
            node: member["tags"]["node"].as_str().map(str::to_owned),
            // One that has not reported yet has none.
            state: member["state"].as_str().filter(|state| !state.is_empty()).unwrap_or("unknown").to_owned(),
            timeline: member["timeline"].as_i64(),
            // A word where it is not known.
            lag: member["lag"].as_i64(),
            volume: Volume::read(&member["tags"]),
            pending: if pending { Pending::read(&member["pending_restart_reason"]) } else { Vec::new() },
        })
    }

    /// Whether both would be lost with one node.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        self.node.is_some() && self.node == other.node
    }

    pub(super) fn streams(&self) -> bool {
        !self.leads && self.state == "streaming"
    }
}

impl Volume {
    fn read(tags: &Value) -> Option<Self> {
        Some(Self {
            size: tags["volume_size"].as_u64()?,
            used: u16::try_from(tags["volume_used"].as_u64()?).ok()?,
            is_full: tags["volume_full"].as_bool().unwrap_or_default(),
            full_in_days: None,
        })
    }

    /// How much of it is used, in percent.
    pub(crate) const fn used_percent(&self) -> u16 {
        self.used / 10
    }
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, before, after } = self;
        if name.is_empty() { f.write_str("a setting") } else { write!(f, "{name} ({before} -> {after})") }
    }
}

impl Pending {
    /// Reads `pending_restart_reason`.
    pub(super) fn read(reasons: &Value) -> Vec<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let reasons = reasons.as_object().into_iter().flatten();
        let read: Vec<Self> = reasons
            .map(|(name, diff)| Self {
                name: name.clone(),
                before: text(&diff["old_value"]),
                after: text(&diff["new_value"]),
            })
            .collect();
        if read.is_empty() { vec![Self::default()] } else { read }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_replica_that_streams_far_behind_is_none_to_rely_on() {
        let member =
            |name: &str, lag: Value| json!({"name": name, "role": "replica", "state": "streaming", "lag": lag});
        let cluster = Cluster::read(
            &json!({"members": [member("a-0", json!(0)), member("a-1", json!(500_i64 << 30)), member("a-2", json!("unknown"))]}),
        );
        assert_eq!(cluster.streaming(64 << 20), 2);
        assert_eq!(cluster.lagging(64 << 20), ["a-1 streams 512000 MiB behind"]);
    }
}
