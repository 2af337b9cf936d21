//! `taskplatform lint` and `explain`: what is wrong with a TaskPlatform, without a cluster.

use std::process::ExitCode;

use taskplatform_blueprint::{Code, Nodes, Severity};

use crate::{
    output::{self, Format},
    source::{self, Files},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    files: Files,
    /// The nodes of the cluster, and what each has for pods: 3x4cpu,16Gi. With them it is told what does not fit.
    #[arg(long)]
    nodes: Option<Nodes>,
    /// Fail on warnings, too.
    #[arg(long)]
    deny_warnings: bool,
    /// How the findings are written.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Findings cannot be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Source(#[from] source::Error),
    #[error(transparent)]
    Output(#[from] output::Error),
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let Arguments { files, nodes, deny_warnings, output } = arguments;
    let findings = files.read()?.lint(nodes.as_ref());
    let count = |severity| findings.iter().filter(|finding| finding.severity() == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    match output {
        Format::Json => output::json(&findings)?,
        Format::Text => {
            let mut lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
            lines.push(if findings.is_empty() {
                "no findings".to_owned()
            } else {
                format!(
                    "{}, {}; taskplatform explain CODE tells more",
                    output::count(errors, "error"),
                    output::count(warnings, "warning")
                )
            });
            output::write(&format!("{}\n", lines.join("\n")))?;
        }
    }
    Ok(if errors > 0 || *deny_warnings && warnings > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

#[derive(clap::Args)]
pub(crate) struct ExplainArguments {
    /// The code, such as TP101; left out, all are listed.
    code: Option<Code>,
}

pub(crate) fn explain(arguments: &ExplainArguments) -> Result<(), Error> {
    let text = match arguments.code {
        Some(code) => code.explanation().trim_start_matches("## ").to_owned(),
        None => Code::ALL.map(title).join("\n"),
    };
    Ok(output::write(&format!("{text}\n"))?)
}

fn title(code: Code) -> &'static str {
    code.explanation().lines().next().unwrap_or_default().trim_start_matches("## ")
}
