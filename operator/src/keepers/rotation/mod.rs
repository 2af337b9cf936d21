//! Changes passwords: what runs is told of the next one, moves to it, and then takes the one before no more.

mod plan;
mod postgresql;
mod redis;

use jiff::Timestamp;
use kube::Client;
use taskplatform_blueprint::{Login, units};
use tracing::info;

use super::{Brief, Keeper, Seen, pace::Mood, patroni};
use crate::{apply::credentials, describe, http::Http, status::verdict::Workload};
use plan::Sight;
pub(crate) use plan::Step;

/// The rotation of one platform's passwords.
pub(super) struct Rotation {
    client: Client,
    http: Http,
}

impl Rotation {
    pub(super) const fn new(client: Client, http: Http) -> Self {
        Self { client, http }
    }

    async fn execute(&self, brief: &Brief, step: &Step) -> Result<(), String> {
        match step {
            Step::Await { .. } => self.admit(brief).await,
            Step::Dismiss { keys } => {
                let (platform, namespace) = (brief.platform.name(), brief.platform.namespace());
                info!(platform, namespace, %step, "changing passwords");
                self.dismiss(brief, keys).await?;
                let forgotten = credentials::forget_former(&self.client, &brief.platform, keys).await;
                forgotten.map_err(|error| describe(&error))
            }
        }
    }

    /// Has PostgreSQL and Redis take the new passwords beside the ones before. Doing it again changes nothing.
    async fn admit(&self, brief: &Brief) -> Result<(), String> {
        let keys: Vec<&str> = brief.credentials.rotating().collect();
        if postgresql::is_of(&keys) {
            postgresql::admit(self.primary(brief).await?, &brief.credentials, &keys)
                .await
                .map_err(|error| describe(&error))?;
        }
        redis::admit(brief, &keys).await
    }

    async fn dismiss(&self, brief: &Brief, keys: &[&str]) -> Result<(), String> {
        if Login::ALTERNATING.iter().any(|login| keys.contains(&login.password)) {
            postgresql::dismiss(self.primary(brief).await?, &brief.credentials, keys)
                .await
                .map_err(|error| describe(&error))?;
        }
        redis::dismiss(brief, keys).await
    }

    async fn primary(&self, brief: &Brief) -> Result<std::net::IpAddr, String> {
        patroni::primary(&self.http, brief)
            .await
            .ok_or_else(|| "PostgreSQL has no primary that could be told of a password".to_owned())
    }
}

impl Keeper for Rotation {
    type Sight = Step;

    /// Nothing, as long as nobody has changed a password.
    async fn look(&mut self, brief: &Brief) -> Seen<Step> {
        let rotating: Vec<&'static str> = brief.credentials.rotating().collect();
        if rotating.is_empty() {
            return None;
        }
        let step = plan::step(&Sight {
            rotating,
            since: brief.credentials.rotated_at().and_then(|time| time.parse().ok()),
            unfinished: unfinished(brief),
            now: Timestamp::now(),
        });
        if brief.may_act
            && let Err(error) = self.execute(brief, &step).await
        {
            return Some(Err(error));
        }
        Some(Ok(step))
    }

    fn mood(_: &Step) -> Mood {
        Mood::Working
    }
}

/// A workload of which not every pod has been started with what was applied last.
fn unfinished(brief: &Brief) -> Option<String> {
    if !brief.is_applied {
        return Some("everything can be applied".to_owned());
    }
    let units = units(&brief.platform, brief.platform.api_instances(None));
    let unfinished = units.iter().find(|unit| !Workload::of(&brief.snapshot, unit.kind(), &unit.name).is_complete());
    unfinished.map(|unit| format!("every pod of {} has the new ones", unit.name))
}
