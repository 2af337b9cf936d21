//! `taskplatform render`: the blueprint's objects, without a cluster.

use clap::ValueEnum;
use serde_json::Value;
use taskplatform_blueprint::{Component, Facts, blueprint};

use crate::{
    output,
    source::{self, Files},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    files: Files,
    /// Only the objects of this component; may be given several times.
    #[arg(long = "component", value_name = "COMPONENT", value_parser = component)]
    components: Vec<Component>,
    /// How the objects are written.
    #[arg(short, long, value_enum, default_value_t = Format::Yaml)]
    output: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

/// The objects cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Source(#[from] source::Error),
    #[error(transparent)]
    Output(#[from] output::Error),
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Error> {
    let platforms = arguments.files.read()?.platforms()?;
    // For a cluster that has everything.
    let facts = Facts::default();
    let objects = platforms.iter().flat_map(|platform| blueprint(platform, &facts));
    let wanted = |name: &str| arguments.components.iter().any(|component| component.name() == name);
    let objects: Vec<Value> = objects
        .filter(|object| arguments.components.is_empty() || wanted(object.component()))
        .map(|object| object.value().clone())
        .collect();
    match arguments.output {
        Format::Yaml => output::write(&yaml(&objects)?)?,
        Format::Json => output::json(&objects)?,
    }
    Ok(())
}

fn component(text: &str) -> Result<Component, String> {
    let names = || Component::all().map(Component::name).collect::<Vec<_>>().join(", ");
    Component::find(text).ok_or_else(|| format!("the components are {}", names()))
}

fn yaml(objects: &[Value]) -> Result<String, output::Error> {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        text.push_str(&output::yaml(object)?);
    }
    Ok(text)
}
