//! PostgreSQL's superuser, on one member.

use std::{net::IpAddr, time::Duration};

use taskplatform_blueprint::{Credentials, Endpoint, Login};
use tokio_postgres::{Client, Config, NoTls};

const DATABASE: &str = "postgres";

/// With the password in force, or with the one before, if PostgreSQL has not been told yet.
pub(super) async fn connect(
    address: IpAddr,
    credentials: &Credentials,
    timeout: Duration,
) -> Result<Client, tokio_postgres::Error> {
    let mut config = Config::new();
    config.hostaddr(address).port(Endpoint::PRIMARY.port).dbname(DATABASE).connect_timeout(timeout);
    let mut outcome = None;
    for (user, password) in credentials.users(Login::SUPERUSER) {
        let connected = config.clone().user(user).password(password).connect(NoTls).await;
        let is_refused = connected.is_err();
        outcome = Some(connected);
        if !is_refused {
            break;
        }
    }
    let (client, connection) = match outcome {
        Some(connected) => connected?,
        None => config.connect(NoTls).await?,
    };
    // It ends with its client.
    tokio::spawn(connection);
    Ok(client)
}
