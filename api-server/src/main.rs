//! `task-api`: reads its configuration and serves the task API, or does the work beside it, until it is told to stop.

use std::process::ExitCode;

use api_server::{
    App,
    config::{Args, Command},
    import, log, server, worker,
};
use clap::Parser;

fn main() -> ExitCode {
    let args = Args::parse();
    log::init(args.log_format);
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("task-api stops: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match args.command.take() {
        None => {
            let config = args.into_config()?;
            runtime.block_on(async { server::run(App::new(&config)?, config.listen, config.metrics_listen).await })?;
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
    Ok(())
}
