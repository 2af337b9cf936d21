//! `task-api`: reads its configuration and serves the task API until it is told to stop.

use std::process::ExitCode;

use api_server::{App, config::Args, log, server};
use clap::Parser;

fn main() -> ExitCode {
    let args = Args::parse();
    log::init(args.log_format);
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("task-api stops: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let config = args.into_config()?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async { server::run(App::new(&config)?, config.listen, config.metrics_listen).await })?;
    Ok(())
}
