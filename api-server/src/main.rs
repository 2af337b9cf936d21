//! `task-api`: reads its configuration and serves the task API, or does the work beside it, until it is told to stop.

use std::{error::Error, process::ExitCode};

use api_server::{
    App,
    config::{Args, Command},
    import, log, server,
    trace::Traces,
    worker,
};
use clap::Parser;
use mimalloc::MiMalloc;
use tokio::runtime::{Builder, Runtime};

/// It gives memory back, and less lies idle between its blocks than with the system's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match Builder::new_multi_thread().enable_all().build() {
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
