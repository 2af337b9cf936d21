//! Runs beside each PgBouncer, which connects to it on loopback: it takes those connections to whoever is PostgreSQL's primary, or to a
//! replica that keeps up.
//!
//! PgBouncer alone waits `server_connect_timeout` for an address that does not answer any more, and `server_login_retry` after each refusal,
//! 15 s each by the plan; meanwhile it tells its clients that the server fails. The router asks Patroni on each member four times a second,
//! holds new connections while nobody leads, and ends those to a member that leads no more, so that a failover is a pause. It needs
//! neither the API server nor the operator.

mod console;
mod members;
mod moves;
mod patroni;
mod relay;
mod server;
mod targets;

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Parser;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};
use tracing::{error, info};

use console::Socket;
use moves::Moves;
use relay::Relay;
use targets::{Pool, Targets};

/// Stands between PgBouncer and PostgreSQL.
#[derive(Debug, Parser)]
#[command(version, after_help = "Example: postgres-router route --members tasks-database --most-lag 67108864")]
enum Command {
    /// Takes PgBouncer's connections to whoever is PostgreSQL's primary, or to a replica that keeps up.
    Route(Route),
    /// Has PgBouncer's clients leave before it is told to end.
    SeeClientsOff {
        /// For so many seconds new ones may still come.
        #[arg(long)]
        after: u64,
        #[command(flatten)]
        pgbouncer: Pgbouncer,
    },
}

/// Where PgBouncer is.
#[derive(Debug, clap::Args)]
struct Pgbouncer {
    /// The folder with PgBouncer's socket.
    #[arg(long, default_value = "/tmp")]
    pgbouncer: PathBuf,
    /// PgBouncer's own port.
    #[arg(long, default_value_t = 6432)]
    pgbouncer_port: u16,
}

#[derive(Debug, clap::Args)]
struct Route {
    /// A name under which all members are found.
    #[arg(long)]
    members: String,
    /// PostgreSQL's port on each of them.
    #[arg(long, default_value_t = 5432)]
    postgresql: u16,
    /// Patroni's port on each of them.
    #[arg(long, default_value_t = 8008)]
    patroni: u16,
    /// How many bytes of WAL a replica may be behind and still be read from.
    #[arg(long)]
    most_lag: u64,
    /// The port on loopback that leads to the primary.
    #[arg(long, default_value_t = 5432)]
    primary: u16,
    /// The port on loopback that leads to the replicas, or to the primary while there are none.
    #[arg(long, default_value_t = 5433)]
    replicas: u16,
    #[command(flatten)]
    pgbouncer: Pgbouncer,
    /// PgBouncer's `server_login_retry` in seconds, in force while somebody leads.
    #[arg(long)]
    login_retry: f64,
    /// How many seconds a pause of PgBouncer may last, whoever ordered it.
    #[arg(long, default_value_t = 7)]
    longest_pause: u64,
    /// The port of `/moves` and `/metrics`.
    #[arg(long, default_value_t = 6433)]
    listen: u16,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().json().flatten_event(true).with_span_list(false).init();
    let ended = match Command::parse() {
        Command::Route(route) => run(route).await,
        Command::SeeClientsOff { after, pgbouncer } => {
            sleep(Duration::from_secs(after)).await;
            pgbouncer.socket().see_clients_off().await.map_err(std::io::Error::other)
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "the router ends");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Route) -> std::io::Result<()> {
    // The image's stop signal is PgBouncer's, SIGINT; a router that only knew SIGTERM would be waited for until the pod's grace ends.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (publish, targets) = watch::channel(Targets::default());
    let primary = listen(arguments.primary, Pool::Primary, &targets).await?;
    let replicas = listen(arguments.replicas, Pool::Replicas, &targets).await?;
    let moves = Arc::new(Mutex::new(Moves::default()));
    let server = server::listen(arguments.listen).await?;
    let paused = watch::Sender::new(None);
    let was_paused = paused.subscribe();
    let console = console::Console {
        socket: arguments.pgbouncer.socket(),
        login_retry: Duration::try_from_secs_f64(arguments.login_retry).map_err(std::io::Error::other)?,
        longest_pause: Duration::from_secs(arguments.longest_pause),
        paused,
    };
    let members = members::Members::new(
        arguments.members,
        patroni::Ports { postgresql: arguments.postgresql, patroni: arguments.patroni },
        arguments.most_lag,
        Arc::clone(&moves),
        was_paused,
    );
    info!("the router starts");
    tokio::select! {
        () = members.follow(&publish) => {}
        () = console.look_after(targets) => {}
        () = primary.serve() => {}
        () = replicas.serve() => {}
        () = server::serve(server, moves) => {}
        _ = interrupt.recv() => info!("the router has stopped"),
        _ = terminate.recv() => info!("the router has stopped"),
    }
    Ok(())
}

impl Pgbouncer {
    fn socket(self) -> Socket {
        Socket { folder: self.pgbouncer, port: self.pgbouncer_port }
    }
}

async fn listen(port: u16, pool: Pool, targets: &watch::Receiver<Targets>) -> std::io::Result<Relay> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    Ok(Relay::new(listener, pool, targets.clone()))
}
