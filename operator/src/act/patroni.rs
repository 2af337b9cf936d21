//! Speaks with Patroni: who leads, who follows, and the settings that all members share.

use std::{net::IpAddr, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, StatusCode};
use kube::{ResourceExt, core::DynamicObject};
use serde_json::{Map, Value, json};
use taskplatform_blueprint::{Platform, credential_keys, dynamic_configuration, ports};
use tracing::info;

use crate::{
    act::address,
    credentials::Credentials,
    http::{Answer, Error as HttpError, Http},
};

/// Patroni answers from memory, but its loop may hold it up for a moment.
const TIMEOUT: Duration = Duration::from_secs(4);
/// A restart of PostgreSQL waits for its last checkpoint.
const RESTART: Duration = Duration::from_mins(1);

/// Patroni cannot be asked or told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("Patroni on {address} refused to {action}: {status} {answer}")]
    Refused { action: &'static str, address: IpAddr, status: u16, answer: String },
}

/// PostgreSQL as Patroni sees it.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    /// The last change of the primary, if there was one.
    pub(crate) last_failover: Option<Failover>,
}

/// A member, as Patroni sees it.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) pod: String,
    address: Option<IpAddr>,
    pub(crate) leads: bool,
    pub(crate) state: String,
    pub(crate) timeline: Option<i64>,
    /// Bytes of WAL that it is behind.
    pub(crate) lag: Option<i64>,
    pending_restart: bool,
}

/// An entry of Patroni's history.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failover {
    pub(crate) time: String,
    /// The new primary's pod.
    pub(crate) primary: String,
}

impl Cluster {
    /// The primary, if there is one that runs.
    pub(crate) fn primary(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.leads && member.state == "running")
    }

    /// How many replicas stream from the primary.
    pub(crate) fn streaming(&self) -> usize {
        self.members.iter().filter(|member| member.streams()).count()
    }

    /// Replicas that do not run as they should, with their state.
    pub(crate) fn lagging(&self) -> Vec<String> {
        let lagging = self.members.iter().filter(|member| !member.leads && !member.streams());
        lagging.map(|member| format!("{} is {}", member.pod, member.state)).collect()
    }
}

impl Member {
    fn streams(&self) -> bool {
        !self.leads && self.state == "streaming"
    }
}

/// Asks the pods in turn until one answers, then brings the shared settings up to date. None while no pod answers.
pub(crate) async fn look_after(
    http: &Http,
    platform: &Platform,
    pods: &[Arc<DynamicObject>],
    credentials: &Credentials,
) -> Option<Result<Cluster, Error>> {
    let authorization = authorization(credentials)?;
    for address in pods.iter().filter_map(|pod| address(pod)) {
        if let Ok(answer) = http.send(Method::GET, &url(address, "cluster"), None, None, TIMEOUT).await {
            let history = http.send(Method::GET, &url(address, "history"), None, None, TIMEOUT).await;
            let cluster = Cluster {
                members: members(&answer.json(), pods),
                last_failover: history.ok().and_then(|history| last_failover(&history.json())),
            };
            let patroni = Patroni { http, address, authorization: &authorization };
            return Some(patroni.settle(platform, &cluster).await.map(|()| cluster));
        }
    }
    None
}

struct Patroni<'a> {
    http: &'a Http,
    address: IpAddr,
    authorization: &'a str,
}

impl Patroni<'_> {
    async fn settle(&self, platform: &Platform, cluster: &Cluster) -> Result<(), Error> {
        if cluster.primary().is_some() {
            self.configure(platform).await?;
            self.restart_one(&cluster.members).await?;
        }
        Ok(())
    }

    /// Changes the shared settings where they differ from the blueprint's.
    async fn configure(&self, platform: &Platform) -> Result<(), Error> {
        let answer = self.send(Method::GET, self.address, "config", None, TIMEOUT, "show its configuration").await?;
        let change = difference(&answer.json(), &dynamic_configuration(platform));
        if change.as_object().is_some_and(|change| !change.is_empty()) {
            info!(platform = platform.name(), namespace = platform.namespace(), %change, "changing PostgreSQL's settings");
            self.send(Method::PATCH, self.address, "config", Some(&change), TIMEOUT, "change its configuration")
                .await?;
        }
        Ok(())
    }

    /// Restarts one member that waits for it, replicas before the primary.
    async fn restart_one(&self, members: &[Member]) -> Result<(), Error> {
        let waiting = members.iter().filter(|member| member.pending_restart);
        let all_run = members.iter().all(|member| matches!(member.state.as_str(), "running" | "streaming"));
        let Some(member) = waiting.min_by_key(|member| member.leads).filter(|_| all_run) else { return Ok(()) };
        let Some(address) = member.address else { return Ok(()) };
        info!(pod = member.pod, "restarting PostgreSQL: a changed setting needs it");
        let only_if_pending = json!({"restart_pending": true});
        self.send(Method::POST, address, "restart", Some(&only_if_pending), RESTART, "restart PostgreSQL").await?;
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        address: IpAddr,
        path: &str,
        body: Option<&Value>,
        timeout: Duration,
        action: &'static str,
    ) -> Result<Answer, Error> {
        let answer = self.http.send(method, &url(address, path), Some(self.authorization), body, timeout).await?;
        if answer.status == StatusCode::OK {
            return Ok(answer);
        }
        Err(Error::Refused { action, address, status: answer.status.as_u16(), answer: answer.body })
    }
}

fn url(address: IpAddr, path: &str) -> String {
    format!("http://{}/{path}", std::net::SocketAddr::new(address, u16::try_from(ports::PATRONI).unwrap_or_default()))
}

fn authorization(credentials: &Credentials) -> Option<String> {
    let password = credentials.get(credential_keys::PATRONI)?;
    Some(format!("Basic {}", STANDARD.encode(format!("patroni:{password}"))))
}

fn members(cluster: &Value, pods: &[Arc<DynamicObject>]) -> Vec<Member> {
    let listed = cluster["members"].as_array().into_iter().flatten();
    listed
        .filter_map(|member| {
            let name = member["name"].as_str()?;
            Some(Member {
                pod: name.to_owned(),
                address: pods.iter().find(|pod| pod.name_any() == name).and_then(|pod| address(pod)),
                leads: member["role"] == "leader",
                // One that has not reported yet has none.
                state: member["state"].as_str().filter(|state| !state.is_empty()).unwrap_or("unknown").to_owned(),
                timeline: member["timeline"].as_i64(),
                // A word where it is not known.
                lag: member["lag"].as_i64(),
                pending_restart: member["pending_restart"].as_bool().unwrap_or(false),
            })
        })
        .collect()
}

/// The last of the entries, each of which is timeline, position, reason, time and new primary.
fn last_failover(history: &Value) -> Option<Failover> {
    let entry = history.as_array()?.last()?;
    Some(Failover { time: entry[3].as_str()?.to_owned(), primary: entry[4].as_str()?.to_owned() })
}

/// What to send so that `current` becomes `desired`: what differs, and null for each setting that is not wanted any more.
fn difference(current: &Value, desired: &Value) -> Value {
    let mut change = Map::new();
    for (key, desired) in desired.as_object().into_iter().flatten() {
        match (&current[key], desired) {
            (current @ Value::Object(_), desired @ Value::Object(_)) => {
                let nested = difference(current, desired);
                if nested.as_object().is_some_and(|nested| !nested.is_empty()) {
                    change.insert(key.clone(), nested);
                }
            }
            (current, desired) if current != desired => {
                change.insert(key.clone(), desired.clone());
            }
            _ => {}
        }
    }
    // Everything below `parameters` is the operator's; elsewhere Patroni has settings of its own.
    if let (Some(current), Some(desired)) = (current["parameters"].as_object(), desired["parameters"].as_object()) {
        let gone = current.keys().filter(|name| !desired.contains_key(*name));
        let gone: Map<String, Value> = gone.map(|name| (name.clone(), Value::Null)).collect();
        if !gone.is_empty() {
            let parameters = change.entry("parameters").or_insert_with(|| json!({}));
            if let Some(parameters) = parameters.as_object_mut() {
                parameters.extend(gone);
            }
        }
    }
    Value::Object(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entry_of_the_history_is_the_last_failover() {
        let history = json!([
            [1, 50_331_808, "no recovery target specified", "2026-01-02T03:04:05.678901+00:00", "a-database-1"],
            [2, 67_109_024, "no recovery target specified", "2026-02-03T04:05:06.789012+00:00", "a-database-0"],
        ]);
        let expected = Failover { time: "2026-02-03T04:05:06.789012+00:00".into(), primary: "a-database-0".into() };
        assert_eq!(last_failover(&history), Some(expected));
        assert_eq!(last_failover(&json!([])), None);
    }

    #[test]
    fn only_what_differs_is_changed() {
        let current = json!({"ttl": 30, "loop_wait": 5, "postgresql": {"use_pg_rewind": true, "parameters": {"work_mem": "1MB", "jit": "off", "geqo": "on"}}});
        let desired = json!({"ttl": 20, "loop_wait": 5, "postgresql": {"use_pg_rewind": true, "parameters": {"work_mem": "2MB", "jit": "off"}}});
        assert_eq!(
            difference(&current, &desired),
            json!({"ttl": 20, "postgresql": {"parameters": {"work_mem": "2MB", "geqo": null}}})
        );
        assert_eq!(difference(&desired, &desired), json!({}));
    }
}
