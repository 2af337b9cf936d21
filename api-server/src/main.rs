//! `task-api`: reads its configuration and serves the task API, or does the work beside it, until it is told to stop.

use std::{error::Error, process::ExitCode};

use api_server::{
    app::App,
    config::{Args, Command},
    import, server, worker,
};
use clap::Parser;
use task_api_telemetry::{log, trace::Traces};
use tikv_jemallocator::Jemalloc;
use tokio::runtime::{Builder, Runtime};

/// Between bursts it gives memory back (see `.cargo/config.toml`), and of those that were tried it takes the least: docs/decisions.md has the
/// figures. It is SQLite's, too.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// After so many steps of its own tasks, a thread of the runtime looks for one that another thread has woken. SQLite's threads wake those whose
/// query is done: at an interval of 31, the slowest twentieth of 500 took 53 ms, and at this one 33 to 39.
const FOREIGN_WAKES: u32 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match Builder::new_multi_thread().enable_all().global_queue_interval(FOREIGN_WAKES).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("task-api can't start its threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    match serve(&runtime, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("task-api stops: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(runtime: &Runtime, mut args: Args) -> Result<(), Box<dyn Error>> {
    let traces = runtime.block_on(async { Traces::from_env() });
    log::init(args.log_format, traces.as_ref().ok().and_then(Option::as_ref));
    let traces = traces?;
    match args.command.take() {
        None => {
            let config = args.into_config()?;
            runtime.block_on(async { server::run(App::new(&config)?, &config).await })?;
        }
        Some(Command::ImportSqlite(import)) => {
            let database = args.into_import_target()?;
            runtime.block_on(import::run(&import, &database))?;
        }
        Some(Command::Worker(worker)) => {
            let config = args.into_worker_config(&worker)?;
            runtime.block_on(worker::run(config))?;
        }
    }
    if let Some(traces) = traces {
        traces.finish();
    }
    Ok(())
}
