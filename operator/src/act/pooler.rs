//! Asks PgBouncer's console who is connected and who waits.

use std::{net::IpAddr, sync::Arc, time::Duration};

use futures::future::join_all;
use kube::{ResourceExt, core::DynamicObject};
use taskplatform_blueprint::{credential_keys, ports};
use tokio_postgres::{Config, NoTls, SimpleQueryMessage, SimpleQueryRow};

use crate::{
    act::{address, is_ready},
    credentials::Credentials,
};

/// PgBouncer does one thing at a time, but none of them takes long.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Its console's name, and that of the user who may use it.
const CONSOLE: &str = "pgbouncer";

/// A PgBouncer that is ready does not say who is connected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{pod} does not answer within {} s", TIMEOUT.as_secs())]
    Timeout { pod: String },
    #[error("{pod} does not say who is connected")]
    Refused { pod: String, source: tokio_postgres::Error },
}

/// A PgBouncer's connections, over all databases but its console.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    pub(crate) pod: String,
    pub(crate) clients: i32,
    pub(crate) waiting: i32,
    pub(crate) max_wait: Duration,
    pub(crate) servers_busy: i32,
    pub(crate) servers_idle: i32,
}

/// Asks every pod that is ready.
pub(crate) async fn look_at(pods: &[Arc<DynamicObject>], credentials: &Credentials) -> Vec<Result<Pools, Error>> {
    let Some(password) = credentials.get(credential_keys::POOLER) else { return Vec::new() };
    let ready = pods.iter().filter(|pod| is_ready(pod)).filter_map(|pod| Some((pod.name_any(), address(pod)?)));
    join_all(ready.map(|(pod, address)| async move {
        match tokio::time::timeout(TIMEOUT, rows(address, password)).await {
            Ok(Ok(rows)) => Ok(pools(pod, &rows)),
            Ok(Err(source)) => Err(Error::Refused { pod, source }),
            Err(_) => Err(Error::Timeout { pod }),
        }
    }))
    .await
}

async fn rows(address: IpAddr, password: &str) -> Result<Vec<SimpleQueryRow>, tokio_postgres::Error> {
    let mut config = Config::new();
    config.hostaddr(address).port(u16::try_from(ports::PGBOUNCER).unwrap_or_default());
    config.user(CONSOLE).dbname(CONSOLE).password(password);
    let (client, connection) = config.connect(NoTls).await?;
    let ask = async {
        let answer = client.simple_query("SHOW POOLS").await;
        drop(client);
        answer
    };
    let (answer, _) = futures::future::join(ask, connection).await;
    let rows = answer?.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows.collect())
}

fn pools(pod: String, rows: &[SimpleQueryRow]) -> Pools {
    let mut sum = Pools { pod, ..Pools::default() };
    for row in rows.iter().filter(|row| row.get("database") != Some(CONSOLE)) {
        let number = |column: &str| row.get(column).and_then(|text| text.parse::<i32>().ok()).unwrap_or_default();
        let waited = |column: &str| u64::try_from(number(column)).unwrap_or_default();
        let wait = Duration::from_secs(waited("maxwait")) + Duration::from_micros(waited("maxwait_us"));
        sum.clients += number("cl_active") + number("cl_waiting");
        sum.waiting += number("cl_waiting");
        sum.max_wait = sum.max_wait.max(wait);
        sum.servers_busy += number("sv_active");
        sum.servers_idle += number("sv_idle") + number("sv_used");
    }
    sum
}
