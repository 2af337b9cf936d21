//! One server, started, loaded in every way, and stopped.

use std::{error::Error, fs::OpenOptions, io::Write, net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    engine::{self, Target, Window},
    measurement::{Load, Run},
    prepare, report,
    server::Server,
    usage,
};

#[derive(Debug, clap::Args)]
/// The arguments of `load run`.
pub struct RunArgs {
    /// What the server is called in the report
    #[arg(long)]
    name: String,
    /// Where the server listens
    #[arg(long)]
    address: SocketAddr,
    /// A process of its stores; those below it count, too
    #[arg(long = "store")]
    stores: Vec<u32>,
    /// Closed loops of so many connections
    #[arg(long, value_delimiter = ',')]
    closed: Vec<u32>,
    /// Open loops of so many requests a second
    #[arg(long, value_delimiter = ',')]
    open: Vec<u32>,
    /// Accounts, with 20 tasks each, that all of them ask as
    #[arg(long, default_value_t = 1000)]
    accounts: usize,
    /// The users of the open loops
    #[arg(long, default_value_t = 10_000)]
    users: u32,
    /// How many seconds each load is measured, after a quarter of that to warm up
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// JSON lines, one a run
    #[arg(long)]
    out: PathBuf,
    /// What the server says
    #[arg(long)]
    log: PathBuf,
    /// The server's command
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Starts a server, loads it, and appends what was measured to a file.
pub fn run(args: &RunArgs) -> Result<(), Box<dyn Error>> {
    let load_average = usage::load_average();
    let server = Server::start(&args.command, args.address, &args.log)?;
    let mut accounts = prepare::accounts(args.address, args.accounts)?;
    let target = Target { address: args.address, server: server.id(), stores: &args.stores };
    let measured = Duration::from_secs_f64(args.seconds);
    let window = Window { warm_up: measured / 4, measured };

    let closed = args.closed.iter().map(|&connections| Load::Closed { connections });
    let open = args.open.iter().map(|&rate| Load::Open { rate, users: args.users });
    let mut cells = Vec::new();
    for load in closed.chain(open) {
        let cell = engine::measure(&target, &mut accounts, load, window)?;
        prepare::clear_up(args.address, &mut accounts)?;
        println!("{}", report::line(&cell));
        cells.push(cell);
    }
    let run = Run { server: args.name.clone(), load_average, start: server.start.as_secs_f64() * 1e3, cells };
    let mut file = OpenOptions::new().create(true).append(true).open(&args.out)?;
    writeln!(file, "{}", serde_json::to_string(&run)?)?;
    Ok(())
}
