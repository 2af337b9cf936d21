//! Speaks with Patroni: who leads, who follows, and the settings that all members share.

mod cluster;
mod plan;

use std::{net::IpAddr, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use taskplatform_blueprint::{Component, credential_keys, dynamic_configuration, ports};
use tracing::info;

use cluster::Pending;
pub(crate) use cluster::{Cluster, Member};

use super::{Brief, Keeper, Seen, pace::Mood};
use crate::{
    apply::credentials::Credentials,
    describe,
    http::{Answer, Error as HttpError, Http},
    world::Child,
};
use plan::Step;

/// Patroni answers from memory, but its loop may hold it up for a moment.
const TIMEOUT: Duration = Duration::from_secs(4);
/// A restart of PostgreSQL waits for its last checkpoint.
const RESTART: Duration = Duration::from_mins(1);

/// Patroni cannot be asked or told.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("Patroni on {address} refused to {action}: {status} {answer}")]
    Refused { action: &'static str, address: IpAddr, status: u16, answer: String },
}

/// The members of a platform's database.
pub(super) struct Members(Http);

impl Members {
    pub(super) const fn new(http: Http) -> Self {
        Self(http)
    }
}

impl Keeper for Members {
    type Sight = Cluster;

    /// Asks the pods in turn until one answers, then brings the shared settings up to date. Nothing while no pod answers.
    async fn look(&mut self, brief: &Brief) -> Seen<Cluster> {
        let authorization = authorization(&brief.credentials)?;
        let pods: Vec<&Arc<Child>> = brief.snapshot.pods(Component::Database).collect();
        for address in pods.iter().filter_map(|pod| pod.address()) {
            let patroni = Patroni { http: &self.0, address, authorization: &authorization };
            if let Ok(cluster) = patroni.observe().await {
                return Some(patroni.look_after(brief, cluster, &pods).await.map_err(|error| describe(&error)));
            }
        }
        None
    }

    fn mood(cluster: &Cluster) -> Mood {
        let is_well = cluster.primary().is_some()
            && cluster.doing.is_empty()
            && cluster.members.iter().all(|member| member.leads || member.streams());
        if is_well { Mood::Settled } else { Mood::Working }
    }
}

struct Patroni<'a> {
    http: &'a Http,
    address: IpAddr,
    authorization: &'a str,
}

impl Patroni<'_> {
    async fn observe(&self) -> Result<Cluster, Error> {
        let cluster = self.send(Method::GET, self.address, "cluster", None, TIMEOUT, "show its members").await?;
        let history = self.send(Method::GET, self.address, "history", None, TIMEOUT, "show its history").await;
        Ok(Cluster::read(&cluster.json(), &history.map(|history| history.json()).unwrap_or_default()))
    }

    async fn look_after(&self, brief: &Brief, mut cluster: Cluster, pods: &[&Arc<Child>]) -> Result<Cluster, Error> {
        let answer = self.send(Method::GET, self.address, "config", None, TIMEOUT, "show its configuration").await?;
        let steps = plan::plan(&cluster, &answer.json(), &dynamic_configuration(&brief.platform));
        for step in steps.iter().filter(|_| brief.may_act) {
            info!(platform = brief.platform.name(), namespace = brief.platform.namespace(), %step, "looking after PostgreSQL");
            self.execute(step, pods).await?;
        }
        cluster.doing = steps.iter().map(ToString::to_string).collect();
        Ok(cluster)
    }

    async fn execute(&self, step: &Step, pods: &[&Arc<Child>]) -> Result<(), Error> {
        match step {
            Step::Configure { change } => {
                let action = "change its configuration";
                self.send(Method::PATCH, self.address, "config", Some(change), TIMEOUT, action).await?;
            }
            Step::Restart { pod, pending } => {
                let address = pods.iter().find(|child| *child.name == **pod).and_then(|child| child.address());
                if let Some(address) = address {
                    self.restart(address, pending).await?;
                }
            }
        }
        Ok(())
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
