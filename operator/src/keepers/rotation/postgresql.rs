//! Tells PostgreSQL of passwords, as its superuser.

use std::{net::IpAddr, time::Duration};

use taskplatform_blueprint::{Credentials, Login};

use crate::keepers::superuser::connect;

/// For a connection, and for all that is said over it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// PostgreSQL cannot be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the primary at {address} does not answer within {} s", TIMEOUT.as_secs())]
    Timeout { address: IpAddr },
    #[error("the primary at {address} is not told of the new password: does the Secret's postgres-password open it?")]
    Refused { address: IpAddr, source: tokio_postgres::Error },
}

/// Whether one of these keys is of a role of PostgreSQL.
pub(super) fn is_of(keys: &[&str]) -> bool {
    let logins = Login::ALTERNATING.into_iter().chain([Login::SUPERUSER]);
    logins.into_iter().any(|login| keys.contains(&login.password))
}

/// Both users of each login log in, each with its password; the superuser with the one in force.
pub(super) async fn admit(address: IpAddr, credentials: &Credentials, keys: &[&str]) -> Result<(), Error> {
    let users = Login::ALTERNATING.into_iter().filter(|login| keys.contains(&login.password));
    let users = users.flat_map(|login| credentials.users(login).map(move |user| (login, user)));
    let superuser = credentials.users(Login::SUPERUSER).take(1).map(|user| (Login::SUPERUSER, user));
    let sql: String =
        users.chain(superuser).map(|(login, (user, password))| login.admission(&user, password)).collect();
    say(address, credentials, &sql).await
}

/// Nobody logs in with the passwords before any more.
pub(super) async fn dismiss(address: IpAddr, credentials: &Credentials, keys: &[&str]) -> Result<(), Error> {
    let users = Login::ALTERNATING.into_iter().filter(|login| keys.contains(&login.password));
    let sql: String = users.filter_map(|login| without_former(login, credentials)).collect();
    say(address, credentials, &sql).await
}

/// The first user of a login gets the password in force, too; the second logs in no more.
fn without_former(login: Login, credentials: &Credentials) -> Option<String> {
    let (before, _) = credentials.users(login).nth(1)?;
    if before == login.user {
        return Some(login.admission(&before, credentials.current(login.password)?));
    }
    Some(login.dismissal(&before))
}

async fn say(address: IpAddr, credentials: &Credentials, sql: &str) -> Result<(), Error> {
    let said = async {
        let client = connect(address, credentials, TIMEOUT).await?;
        // Passwords are in it: neither the log nor pg_stat_statements is to have them.
        client.batch_execute(&format!("SET log_min_duration_statement = -1; SET log_statement = 'none'; {sql}")).await
    };
    match tokio::time::timeout(TIMEOUT, said).await {
        Ok(said) => said.map_err(|source| Error::Refused { address, source }),
        Err(_) => Err(Error::Timeout { address }),
    }
}
