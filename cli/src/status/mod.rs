//! `taskplatform status`: how a platform is, what is wrong first.

mod text;
mod tree;

use std::time::Duration;

use console::Term;
use k8s_openapi::jiff::Timestamp;

use crate::{
    cluster::{self, Cluster},
    output::{self, Format},
};
use tree::Tree;

/// How often a view that is watched is looked at anew.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The TaskPlatform's name.
    name: String,
    #[command(flatten)]
    cluster: cluster::Arguments,
    /// Go on, and show what changes, until interrupted.
    #[arg(short, long)]
    watch: bool,
    /// How it is written; with --watch, JSON has a line for each change.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// The platform cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    #[error("there is no TaskPlatform {name} in namespace {namespace}: kubectl get tp -A lists them")]
    Missing { name: String, namespace: String },
    #[error(transparent)]
    Output(#[from] output::Error),
    #[error("the terminal cannot be written")]
    Terminal(#[from] std::io::Error),
}

pub(crate) async fn run(arguments: &Arguments) -> Result<(), Error> {
    let Arguments { name, cluster, watch, output } = arguments;
    let cluster = cluster.connect().await?;
    let tree = look(&cluster, name).await?;
    match (output, watch) {
        (Format::Json, false) => output::json(&tree)?,
        (Format::Text, false) => output::write_coloured(&text::of(&tree, Timestamp::now()))?,
        _ => self::watch(&cluster, name, tree, *output).await?,
    }
    Ok(())
}

/// The platform with its pods and events.
async fn look(cluster: &Cluster, name: &str) -> Result<Tree, Error> {
    let namespace = &cluster.namespace;
    let missing = || Error::Missing { name: name.to_owned(), namespace: namespace.clone() };
    let platform = cluster.whole_platform(namespace, name).await?.ok_or_else(missing)?;
    let (pods, events) = tokio::try_join!(cluster.pods(namespace, name), cluster.events(namespace))?;
    Ok(Tree::new(&platform, &pods, &events))
}

async fn watch(cluster: &Cluster, name: &str, first: Tree, output: Format) -> Result<(), Error> {
    let terminal = Term::stdout();
    let redrawn = terminal.is_term() && output == Format::Text;
    let mut shown: Option<Tree> = None;
    let mut now = Ok(first);
    loop {
        match now {
            Ok(tree) if redrawn => redraw(&terminal, &text::of(&tree, Timestamp::now()))?,
            Ok(tree) if shown.as_ref() == Some(&tree) => {}
            Ok(tree) => {
                match output {
                    Format::Json => output::json_line(&tree)?,
                    Format::Text => output::write_coloured(&format!("{}\n", text::of(&tree, Timestamp::now())))?,
                }
                shown = Some(tree);
            }
            // An API server that is away for a moment comes back.
            Err(Error::Cluster(error)) => eprintln!("{error}; trying again"),
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
        now = look(cluster, name).await;
    }
}

/// Writes over what was there, line by line, so that nothing flickers.
fn redraw(terminal: &Term, text: &str) -> Result<(), Error> {
    let (height, _) = terminal.size();
    let lines: Vec<&str> = text.lines().collect();
    let fitting = lines.len().min(usize::from(height.saturating_sub(1)));
    terminal.move_cursor_to(0, 0)?;
    let mut view: Vec<String> = lines[..fitting].iter().map(|line| format!("{line}\x1b[K\n")).collect();
    view.push("\x1b[J".to_owned());
    Ok(output::write_coloured(&view.concat())?)
}
