//! The changes of the primary: when and to whom is Patroni's history; why, and for how long nobody led, is not.

use std::{mem, net::IpAddr, time::Duration};

use futures::future::join_all;
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
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

/// The clocks of two nodes differ by no more.
const CLOCKS_MILLISECONDS: i64 = 1000;

/// A change of the primary, by Patroni's history.
#[derive(Debug, PartialEq)]
pub(super) struct Change {
    failover: Failover,
    /// The last byte of WAL of the timeline that ended.
    ended_at: Option<i64>,
}

/// A change of the primary, as the router beside a pooler saw it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Move {
    timeline: i64,
    unled_milliseconds: i64,
    /// An older release does not tell.
    detect_milliseconds: Option<i64>,
    /// The last byte of WAL that the former primary told of. An older release does not tell.
    former_position: Option<i64>,
    planned: bool,
}

/// From when to when users waited for a change of a task and got none, as a gateway saw it, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Pause {
    from: i64,
    to: i64,
}

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
pub(super) fn read(history: &Value) -> Vec<Change> {
    let entries = history.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut former = String::new();
    let mut read = Vec::new();
    for entry in entries {
        // Those that Patroni found in PostgreSQL's own history have neither a time nor a primary.
        let (Some(ended), Some(time), Some(primary)) = (entry[0].as_i64(), entry[3].as_str(), entry[4].as_str()) else {
            former.clear();
            continue;
        };
        let failover = Failover {
            timeline: ended + 1,
            time: time.to_owned(),
            primary: primary.to_owned(),
            former: mem::replace(&mut former, primary.to_owned()),
            ..Failover::default()
        };
        read.push(Change { failover, ended_at: entry[1].as_i64() });
    }
    read.split_off(read.len().saturating_sub(TOLD))
}

impl History {
    /// The changes that Patroni tells, completed by what is remembered of them, or was seen just now; those that are remembered where it tells
    /// none.
    pub(super) async fn complete(
        &mut self,
        read: Option<Vec<Change>>,
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
        let told = || self.told.iter().map(|told| Change { failover: told.clone(), ended_at: None }).collect();
        let mut changes = read.unwrap_or_else(told);
        for Change { failover, ended_at } in &mut changes {
            if let Some(known) = self.told.iter().find(|known| known.timeline == failover.timeline) {
                failover.clone_from(known);
            }
            if failover.former.is_empty() && failover.primary == self.leads {
                failover.former.clone_from(&self.led);
            }
            if failover.unled_milliseconds.is_none() && is_young(failover, now) {
                look_into(failover, *ended_at, http, brief).await;
            }
            if failover.unwritten_milliseconds.is_none() && is_young(failover, now) {
                failover.unwritten_milliseconds = unwritten(&failover.time, http, brief).await;
            }
        }
        self.told = changes.into_iter().map(|change| change.failover).collect();
        self.told.clone()
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

/// Finds out why, for how long nobody led, and what was lost.
async fn look_into(failover: &mut Failover, ended_at: Option<i64>, http: &Http, brief: &Brief) {
    let seen = ask_all(http, brief, Component::POOLER, Endpoint::ROUTER, "moves").await;
    let seen: Vec<Move> = seen.into_iter().flatten().filter(|seen: &Move| seen.timeline == failover.timeline).collect();
    let longest = seen.iter().max_by_key(|seen| seen.unled_milliseconds);
    failover.unled_milliseconds = longest.map(|seen| seen.unled_milliseconds);
    failover.detect_milliseconds = longest.and_then(|seen| seen.detect_milliseconds);
    let position = seen.iter().filter_map(|seen| seen.former_position).max();
    failover.lost_bytes = ended_at.zip(position).map(|(ended, position)| (position - ended).max(0));
    if seen.iter().any(|seen| seen.planned) && !was_deleted_before(failover, brief) {
        failover.cause = FailoverCause::Switchover;
    } else if failover.cause == FailoverCause::Unknown && !failover.former.is_empty() {
        failover.cause = cause(brief, &failover.former, &failover.time);
    }
}

/// Whether the former primary's pod was deleted first: it hands over as wanted then, but nobody wanted that.
fn was_deleted_before(failover: &Failover, brief: &Brief) -> bool {
    let mut pods = brief.snapshot.pods(Component::DATABASE);
    let deleted_at = pods.find(|pod| *pod.name == *failover.former).and_then(|pod| pod.deleted_at);
    let time: Result<Timestamp, _> = failover.time.parse();
    deleted_at.zip(time.ok()).is_some_and(|(deleted_at, time)| deleted_at < time)
}

/// For how long users waited for a change around this time: from the last that a gateway saw acknowledged to the first that one saw afterwards.
async fn unwritten(time: &str, http: &Http, brief: &Brief) -> Option<i64> {
    let time: Timestamp = time.parse().ok()?;
    let pauses = ask_all(http, brief, Component::GATEWAY, Endpoint::GATEWAY_STATUS, "writes").await;
    around(time.as_millisecond(), &pauses)
}

/// What the longest pauses of each gateway around a time have in common.
fn around(time: i64, gateways: &[Vec<Pause>]) -> Option<i64> {
    let is_around = |pause: &&Pause| pause.from - CLOCKS_MILLISECONDS < time && time < pause.to + CLOCKS_MILLISECONDS;
    let longest = gateways
        .iter()
        .filter_map(|pauses| pauses.iter().filter(is_around).copied().max_by_key(|pause| pause.to - pause.from));
    let common = longest.reduce(|a, b| Pause { from: a.from.max(b.from), to: a.to.min(b.to) })?;
    Some((common.to - common.from).max(0))
}

/// What the pods of a component list, all together.
async fn ask_all<T: DeserializeOwned>(
    http: &Http,
    brief: &Brief,
    component: Component,
    endpoint: Endpoint,
    path: &str,
) -> Vec<Vec<T>> {
    let addresses = brief.snapshot.pods(component).filter_map(|pod| pod.address());
    let ask = async |address: IpAddr| -> Option<Vec<T>> {
        let url = format!("http://{}/{path}", endpoint.at(address));
        let answer = http.send(Method::GET, &url, None, None, TIMEOUT).await.ok()?;
        // One of another release may list something else.
        (answer.status == StatusCode::OK).then(|| serde_json::from_value(answer.json()).ok())?
    };
    join_all(addresses.map(ask)).await.into_iter().flatten().collect()
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
        let told = |Change { failover, ended_at }: &Change| {
            (failover.timeline, failover.former.clone(), failover.primary.clone(), *ended_at)
        };
        let expected = [(3, "", "a-1"), (4, "a-1", "a-0")];
        let expected =
            expected.map(|(timeline, former, primary)| (timeline, former.into(), primary.into(), Some(50_331_808)));
        assert_eq!(changes.iter().map(told).collect::<Vec<_>>(), expected);
        let many: Vec<Value> = (1..30).map(|ended| entry(ended, "a-0")).collect();
        let last = read(&Value::from(many));
        assert_eq!((last.len(), last[9].failover.timeline), (TOLD, 30));
        assert_eq!(read(&json!([])), Vec::new());
    }

    #[test]
    fn users_waited_for_as_long_as_no_gateway_saw_a_change_acknowledged() {
        let pause = |from, to| Pause { from, to };
        assert_eq!(around(100_000, &[]), None);
        assert_eq!(around(100_000, &[vec![pause(50_000, 51_000)], vec![]]), None, "another time");
        let one = vec![pause(50_000, 51_000), pause(98_000, 100_500), pause(100_600, 100_900)];
        assert_eq!(around(100_000, &[one, vec![pause(98_500, 102_000)]]), Some(2000));
    }
}
