//! The changes of the primary: when and to whom is Patroni's history; why, and for how long nobody led, is not.

use std::{mem, net::IpAddr, time::Duration};

use futures::future::join_all;
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::Value;
use taskplatform_blueprint::{Component, Endpoint};
use taskplatform_crds::{Failover, FailoverCause};

use super::Cluster;
use crate::{http::Http, keepers::Brief};

/// How many changes are told.
const TOLD: usize = 10;
/// For so long after a change its circumstances are looked for.
const YOUNG: Duration = Duration::from_mins(2);
/// A router answers from memory.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What is remembered of the changes.
#[derive(Default)]
pub(super) struct History {
    told: Vec<Failover>,
    /// The pods of the primary that was seen last, and of the one before: Patroni does not tell who led before the first change.
    leads: String,
    led: String,
}

/// Reads the last entries of Patroni's history, each of which is the timeline that ended, its last position, a reason, a time and the primary that
/// began the next.
pub(super) fn read(history: &Value) -> Vec<Failover> {
    let entries = history.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut former = String::new();
    let mut read = Vec::new();
    for entry in entries {
        // Those that Patroni found in PostgreSQL's own history have neither a time nor a primary.
        let (Some(ended), Some(time), Some(primary)) = (entry[0].as_i64(), entry[3].as_str(), entry[4].as_str()) else {
            former.clear();
            continue;
        };
        read.push(Failover {
            timeline: ended + 1,
            time: time.to_owned(),
            primary: primary.to_owned(),
            former: mem::replace(&mut former, primary.to_owned()),
            ..Failover::default()
        });
    }
    read.split_off(read.len().saturating_sub(TOLD))
}

impl History {
    /// The changes that Patroni tells, completed by what is remembered of them, or was seen just now; those that are remembered where it tells
    /// none.
    pub(super) async fn complete(
        &mut self,
        read: Option<Vec<Failover>>,
        cluster: &Cluster,
        http: &Http,
        brief: &Brief,
    ) -> Vec<Failover> {
        if self.told.is_empty() && self.leads.is_empty() {
            self.recall(brief);
        }
        if let Some(primary) = cluster.primary().filter(|primary| primary.pod != self.leads) {
            self.led = mem::replace(&mut self.leads, primary.pod.clone());
        }
        let now = Timestamp::now();
        let mut failovers = read.unwrap_or_else(|| self.told.clone());
        for failover in &mut failovers {
            if let Some(known) = self.told.iter().find(|known| known.timeline == failover.timeline) {
                failover.clone_from(known);
            }
            if failover.former.is_empty() && failover.primary == self.leads {
                failover.former.clone_from(&self.led);
            }
            if failover.unled_milliseconds.is_none() && is_young(failover, now) {
                look_into(failover, http, brief).await;
            }
        }
        self.told.clone_from(&failovers);
        failovers
    }

    /// Takes up what another operator has told.
    fn recall(&mut self, brief: &Brief) {
        let Some(database) = brief.platform.status().and_then(|status| status.database.as_ref()) else { return };
        self.told.clone_from(&database.failovers);
        self.leads.clone_from(&database.primary);
    }
}

fn is_young(failover: &Failover, now: Timestamp) -> bool {
    let time: Result<Timestamp, _> = failover.time.parse();
    time.is_ok_and(|time| now.duration_since(time).unsigned_abs() < YOUNG)
}

/// Finds out why, and for how long nobody led.
async fn look_into(failover: &mut Failover, http: &Http, brief: &Brief) {
    let poolers = brief.snapshot.pods(Component::POOLER).filter_map(|pod| pod.address());
    let seen = join_all(poolers.map(|address| seen_by(http, address, failover.timeline))).await;
    let seen: Vec<(i64, bool)> = seen.into_iter().flatten().collect();
    failover.unled_milliseconds = seen.iter().map(|(unled, _)| *unled).max();
    if seen.iter().any(|(_, planned)| *planned) {
        failover.cause = FailoverCause::Switchover;
    } else if failover.cause == FailoverCause::Unknown && !failover.former.is_empty() {
        failover.cause = cause(brief, &failover.former, &failover.time);
    }
}

/// For how long nobody led before this timeline, as the router of a pooler saw it, and whether the pooler was paused for it.
async fn seen_by(http: &Http, pooler: IpAddr, timeline: i64) -> Option<(i64, bool)> {
    let url = format!("http://{}/moves", Endpoint::ROUTER.at(pooler));
    let answer = http.send(Method::GET, &url, None, None, TIMEOUT).await.ok()?;
    let moves = (answer.status == StatusCode::OK).then(|| answer.json())?;
    let found = moves.as_array()?.iter().find(|found| found["timeline"] == timeline)?;
    Some((found["unledMilliseconds"].as_i64()?, found["planned"].as_bool()?))
}

/// What has happened to the former primary's pod at about this time.
fn cause(brief: &Brief, former: &str, time: &str) -> FailoverCause {
    let mut pods = brief.snapshot.pods(Component::DATABASE);
    let Some(pod) = pods.find(|pod| *pod.name == *former) else { return FailoverCause::PodReplaced };
    if brief.snapshot.loss(pod).is_some() {
        return FailoverCause::NodeLost;
    }
    if pod.is_ending() {
        return FailoverCause::PodReplaced;
    }
    let data = pod.data();
    let container = &data["status"]["containerStatuses"][0];
    let Some(began) = container["state"]["running"]["startedAt"].as_str() else { return FailoverCause::ContainerEnded };
    match (began.parse::<Timestamp>(), time.parse::<Timestamp>()) {
        (Ok(began), Ok(time)) if began + YOUNG <= time => FailoverCause::Unknown,
        (Ok(_), Ok(_)) if container["restartCount"] == 0 => FailoverCause::PodReplaced,
        (Ok(_), Ok(_)) => FailoverCause::ContainerEnded,
        _ => FailoverCause::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_entry_of_the_history_is_a_change_from_the_one_before() {
        let entry = |ended: i64, primary: &str| {
            json!([ended, 50_331_808, "no recovery target specified", "2026-01-02T03:04:05.678901+00:00", primary])
        };
        let changes = read(&json!([[1, 3, "found"], entry(2, "a-1"), entry(3, "a-0")]));
        let told: Vec<_> = changes.iter().map(|change| (change.timeline, &*change.former, &*change.primary)).collect();
        assert_eq!(told, [(3, "", "a-1"), (4, "a-1", "a-0")]);
        let many: Vec<Value> = (1..30).map(|ended| entry(ended, "a-0")).collect();
        let last = read(&Value::from(many));
        assert_eq!((last.len(), last[9].timeline), (TOLD, 30));
        assert_eq!(read(&json!([])), Vec::new());
    }
}
