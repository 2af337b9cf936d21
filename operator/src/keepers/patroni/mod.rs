//! Speaks with Patroni: who leads, who follows, and the settings that all members share.

mod cluster;
mod fill;
mod history;
mod lead;
mod plan;

use std::{collections::HashMap, net::IpAddr, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, StatusCode};
use kube::Client;
use serde_json::{Value, json};
use taskplatform_blueprint::{Component, Credentials, Endpoint, MOST_LAG_TO_LEAD, Platform, dynamic_configuration};
use tokio::time::Instant;
use tracing::info;

use cluster::Pending;
pub(crate) use cluster::{Cluster, Member, Volume};
use fill::Fill;
use history::{Change, History};

use super::{Brief, Keeper, Seen, pace::Mood, switchover};
use crate::{
    describe,
    http::{Answer, Error as HttpError, Http},
    procedure::rollout::Roles,
};
use plan::Step;

/// Patroni answers from memory, but its loop may hold it up for a moment.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Patroni itself answers after 20 s that it does not know how a switchover went.
const SWITCH_OVER: Duration = Duration::from_secs(25);
/// A restart of PostgreSQL waits for its last checkpoint.
const RESTART: Duration = Duration::from_mins(1);

/// Patroni cannot be asked or told.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("no switchover: {0}")]
    SwitchOver(String),
    #[error("Patroni on {address} refused to {action}: HTTP {status} {answer}")]
    Refused { action: &'static str, address: IpAddr, status: u16, answer: String },
}

/// A member learns new settings in its loop, every 5 s, and reloads them. After this time each says whether it waits for a restart.
const LEARNT: Duration = Duration::from_secs(12);

/// A replica that runs for so long without following the primary does not do it any more.
const LEFT_BEHIND: Duration = Duration::from_mins(5);

/// The members of a platform's database.
pub(super) struct Members {
    client: Client,
    http: Http,
    memory: Memory,
}

/// What is remembered from look to look.
struct Memory {
    /// When the settings were changed last, as far as this operator knows.
    changed: Instant,
    /// Since when replicas run that do not follow the primary, though there is one.
    apart: HashMap<String, Instant>,
    history: History,
    fill: Fill,
}

impl Memory {
    fn note(&mut self, cluster: &Cluster) {
        let is_apart = |member: &&Member| cluster.primary().is_some() && !member.leads && member.state == "running";
        let apart: Vec<&str> = cluster.members.iter().filter(is_apart).map(|member| &*member.pod).collect();
        self.apart.retain(|pod, _| apart.contains(&&**pod));
        for pod in apart {
            self.apart.entry(pod.to_owned()).or_insert_with(Instant::now);
        }
    }

    fn left_behind(&self) -> Vec<String> {
        let long = self.apart.iter().filter(|(_, since)| since.elapsed() > LEFT_BEHIND);
        let mut pods: Vec<String> = long.map(|(pod, _)| pod.clone()).collect();
        pods.sort();
        pods
    }
}

impl Members {
    pub(super) fn new(client: Client, http: Http) -> Self {
        Self {
            client,
            http,
            memory: Memory {
                changed: Instant::now(),
                apart: HashMap::new(),
                history: History::default(),
                fill: Fill::default(),
            },
        }
    }
}

impl Keeper for Members {
    type Sight = Cluster;

    /// Asks the pods in turn until one answers, then brings the shared settings up to date. Nothing while no pod answers.
    async fn look(&mut self, brief: &Brief) -> Seen<Cluster> {
        lead::end(&self.client, brief).await;
        let (cluster, patroni) = match observe(&self.http, brief).await? {
            Ok(observed) => observed,
            Err(error) => return Some(Err(error)),
        };
        let mut cluster = match patroni.look_after(brief, cluster, &mut self.memory).await {
            Ok(cluster) => cluster,
            Err(error) => return Some(Err(describe(&error))),
        };
        let history = patroni.history().await;
        cluster.failovers = self.memory.history.complete(history, &cluster, &self.http, brief).await;
        Some(Ok(cluster))
    }

    fn mood(cluster: &Cluster) -> Mood {
        let is_well = cluster.primary().is_some()
            && cluster.doing.is_empty()
            && !cluster.waited_for_in_vain
            && cluster.members.iter().all(|member| member.pending.is_empty())
            && cluster.members.iter().all(|member| member.leads || member.streams());
        if is_well { Mood::Settled } else { Mood::Working }
    }
}

/// Who leads, and who could next, by what a member says now.
pub(super) async fn roles(http: &Http, brief: &Brief) -> Roles {
    let members = match observe(http, brief).await {
        Some(Ok((cluster, _))) => cluster.members,
        Some(Err(error)) => return Roles::unserved(error),
        None => return Roles::unserved("no member answers".to_owned()),
    };
    let platform = &brief.platform;
    plan::roles(&members, most_lag(platform), platform.database_members(), platform.spec().database.durability)
}

/// Has a replica take over from the primary in order. The primary itself is told: another one would write it down, and the primary read it in
/// its next loop, up to 5 s later, while users wait.
pub(super) async fn hand_over(http: &Http, brief: &Brief, from: &str, to: &str) -> Result<(), String> {
    let mut pods = brief.snapshot.pods(Component::DATABASE);
    let address = pods.find(|pod| *pod.name == *from).and_then(|pod| pod.last_address());
    let Some(address) = address else { return Err(format!("{from}, the primary, has no address")) };
    let patroni = Patroni { http, address, authorizations: authorizations(&brief.credentials) };
    patroni.switch_over(from, to).await.map_err(|error| describe(&error))
}

/// Whether commits may wait for a replica whose pod is gone, goes, or is not ready.
fn waited_for_in_vain(brief: &Brief, cluster: &Cluster) -> bool {
    let serves = |name: &str| {
        let mut pods = brief.snapshot.pods(Component::DATABASE);
        pods.any(|pod| *pod.name == *name && pod.is_ready() && !pod.is_ending())
    };
    cluster.members.iter().any(|member| member.synchronous && !serves(&member.pod))
}

/// Whether the member at this address leads, and PostgreSQL takes writes there.
pub(super) async fn takes_writes(http: &Http, address: IpAddr) -> bool {
    let url = format!("http://{}/primary", Endpoint::PATRONI.at(address));
    let answer = http.send(Method::GET, &url, None, None, TIMEOUT).await;
    answer.is_ok_and(|answer| answer.status == StatusCode::OK && answer.json()["role"] == "primary")
}

/// How far behind a replica may be, in bytes.
fn most_lag(platform: &Platform) -> i64 {
    i64::try_from(platform.spec().database.max_replica_lag.as_bytes()).unwrap_or(i64::MAX)
}

/// The first member that answers, and what it says; nothing while none does.
async fn observe<'a>(http: &'a Http, brief: &Brief) -> Option<Result<(Cluster, Patroni<'a>), String>> {
    let authorizations = authorizations(&brief.credentials);
    let addresses = brief.snapshot.pods(Component::DATABASE).filter_map(|pod| pod.address());
    for address in addresses {
        let patroni = Patroni { http, address, authorizations: authorizations.clone() };
        if let Ok(cluster) = patroni.observe().await {
            return Some(Ok((cluster, patroni)));
        }
    }
    None
}

struct Patroni<'a> {
    http: &'a Http,
    address: IpAddr,
    /// With the password in force, and with the one before, which a member knows until it starts again.
    authorizations: Vec<String>,
}

impl Patroni<'_> {
    async fn observe(&self) -> Result<Cluster, Error> {
        let cluster = self.send(Method::GET, self.address, "cluster", None, TIMEOUT, "show its members").await?;
        Ok(Cluster::read(&cluster.json()))
    }

    async fn history(&self) -> Option<Vec<Change>> {
        let history = self.send(Method::GET, self.address, "history", None, TIMEOUT, "show its history").await;
        history.ok().map(|history| history::read(&history.json()))
    }

    async fn look_after(&self, brief: &Brief, mut cluster: Cluster, memory: &mut Memory) -> Result<Cluster, Error> {
        let platform = &brief.platform;
        let answer = self.send(Method::GET, self.address, "config", None, TIMEOUT, "show its configuration").await?;
        memory.note(&cluster);
        memory.fill.note(&mut cluster.members);
        let wanted = plan::Wanted {
            configuration: &dynamic_configuration(platform),
            members: platform.database_members(),
            most_lag: most_lag(platform),
            durability: platform.spec().database.durability,
            left_behind: &memory.left_behind(),
            members_know: memory.changed.elapsed() > LEARNT,
        };
        let configuration = answer.json();
        cluster.only_the_most_advanced = configuration[MOST_LAG_TO_LEAD] == 0;
        cluster.waited_for_in_vain = waited_for_in_vain(brief, &cluster);
        if brief.may_act && cluster.waited_for_in_vain {
            self.wake(brief, &cluster, &configuration).await?;
        }
        let steps = plan::plan(&cluster, &configuration, &wanted);
        for step in steps.iter().filter(|_| brief.may_act) {
            info!(platform = platform.name(), namespace = platform.namespace(), %step, "looking after PostgreSQL");
            if matches!(step, Step::Configure { .. }) {
                memory.changed = Instant::now();
            }
            self.execute(step, brief).await?;
        }
        cluster.doing = steps.iter().map(ToString::to_string).collect();
        Ok(cluster)
    }

    async fn execute(&self, step: &Step, brief: &Brief) -> Result<(), Error> {
        match step {
            Step::Configure { change } => {
                let action = "change its configuration";
                self.send(Method::PATCH, self.address, "config", Some(change), TIMEOUT, action).await.map(drop)
            }
            Step::Restart { pod, pending } => {
                let mut pods = brief.snapshot.pods(Component::DATABASE);
                match pods.find(|child| *child.name == **pod).and_then(|child| child.address()) {
                    Some(address) => self.restart(address, pending).await,
                    None => Ok(()),
                }
            }
            Step::Reclone { pod } => {
                let mut pods = brief.snapshot.pods(Component::DATABASE);
                let Some(address) = pods.find(|child| *child.name == **pod).and_then(|child| child.address()) else {
                    return Ok(());
                };
                let force = json!({"force": true});
                let action = "make a replica's copy anew";
                self.send(Method::POST, address, "reinitialize", Some(&force), TIMEOUT, action).await.map(drop)
            }
            Step::SwitchOver { from, to } => {
                Box::pin(switchover::switch_over(self.http, brief, from, to)).await.map_err(Error::SwitchOver)
            }
        }
    }

    /// Has the primary look at once who follows it, and not only in its next loop: commits may wait for one that has gone. A change of the
    /// configuration to what it is wakes Patroni, and changes nothing.
    async fn wake(&self, brief: &Brief, cluster: &Cluster, configuration: &Value) -> Result<(), Error> {
        let Some(primary) = cluster.primary() else { return Ok(()) };
        let mut pods = brief.snapshot.pods(Component::DATABASE);
        let Some(address) = pods.find(|pod| *pod.name == *primary.pod).and_then(|pod| pod.address()) else {
            return Ok(());
        };
        let same = json!({"ttl": configuration["ttl"]});
        self.send(Method::PATCH, address, "config", Some(&same), TIMEOUT, "look at its replicas").await.map(drop)
    }

    async fn switch_over(&self, from: &str, to: &str) -> Result<(), Error> {
        let switch = json!({"leader": from, "candidate": to});
        self.send(Method::POST, self.address, "switchover", Some(&switch), SWITCH_OVER, "switch over").await.map(drop)
    }

    /// Unless the member itself says by now that something else waits: what Patroni says of all members is some seconds old.
    async fn restart(&self, address: IpAddr, pending: &[Pending]) -> Result<(), Error> {
        let member = self.send(Method::GET, address, "patroni", None, TIMEOUT, "show its state").await?.json();
        if member["pending_restart"] != true || Pending::read(&member["pending_restart_reason"]) != pending {
            return Ok(());
        }
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
        let url = format!("http://{}/{path}", Endpoint::PATRONI.at(address));
        let mut refusal = Error::Refused { action, address, status: 401, answer: "no password is known".to_owned() };
        for authorization in &self.authorizations {
            let answer = self.http.send(method.clone(), &url, Some(authorization), body, timeout).await?;
            if answer.status == StatusCode::OK {
                return Ok(answer);
            }
            let is_of_password = answer.status == StatusCode::UNAUTHORIZED;
            refusal = Error::Refused { action, address, status: answer.status.as_u16(), answer: said(&answer.body) };
            if !is_of_password {
                break;
            }
        }
        Err(refusal)
    }
}

fn authorizations(credentials: &Credentials) -> Vec<String> {
    let users = Endpoint::PATRONI.login.into_iter().flat_map(|login| credentials.users(login));
    users.map(|(user, password)| format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))).collect()
}

/// The address of the primary, by what a member says now.
pub(super) async fn primary(http: &Http, brief: &Brief) -> Option<IpAddr> {
    let (cluster, _) = observe(http, brief).await?.ok()?;
    let primary = cluster.primary()?.pod.clone();
    brief.snapshot.pods(Component::DATABASE).find(|pod| *pod.name == *primary)?.address()
}

/// What an answer says in words: some of Patroni's are pages of HTML, of which the status says as much.
fn said(body: &str) -> String {
    let text = body.trim();
    if text.starts_with('<') { String::new() } else { text.chars().take(300).collect() }
}
