//! `taskplatform render`: the blueprint's objects, without a cluster.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use serde_json::Value;
use taskplatform_blueprint::{Facts, Invalid, Platform, blueprint};
use taskplatform_crds::{BrokenRules, TaskPlatform};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The file with the TaskPlatform; - is the standard input. It may hold several, divided by ---.
    #[arg(short, long, value_name = "FILE")]
    filename: PathBuf,
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
    #[error("{file} cannot be read")]
    Read { file: String, source: io::Error },
    #[error("{file} is no TaskPlatform: {source}")]
    Shape { file: String, source: Box<serde_saphyr::Error> },
    #[error("{file}, TaskPlatform {name}: {source}")]
    Rules { file: String, name: String, source: BrokenRules },
    #[error("{file}, TaskPlatform {name}: {source}")]
    Budget { file: String, name: String, source: Invalid },
    #[error("the objects cannot be written as YAML")]
    Yaml(#[from] serde_saphyr::SerializeError),
    #[error("the objects cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("the objects cannot be written")]
    Write(#[source] io::Error),
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Error> {
    let name = name(&arguments.filename);
    let text = read(&arguments.filename).map_err(|source| Error::Read { file: name.clone(), source })?;
    let objects = render(&name, &text)?;
    let output = match arguments.output {
        Format::Yaml => yaml(&objects)?,
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&objects)?),
    };
    match io::stdout().write_all(output.as_bytes()) {
        // Whoever reads has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Error::Write),
    }
}

fn name(file: &Path) -> String {
    if file == Path::new("-") { "the standard input".to_owned() } else { file.display().to_string() }
}

fn read(file: &Path) -> io::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    fs::read_to_string(file)
}

/// The objects of every TaskPlatform in the text, for a cluster that has everything.
fn render(file: &str, text: &str) -> Result<Vec<Value>, Error> {
    let platforms: Vec<TaskPlatform> = serde_saphyr::from_multiple(text)
        .map_err(|source| Error::Shape { file: file.to_owned(), source: Box::new(source) })?;
    let mut objects = Vec::new();
    for platform in platforms {
        let name = platform.metadata.name.clone().unwrap_or_default();
        platform.check_rules().map_err(|source| Error::Rules { file: file.to_owned(), name: name.clone(), source })?;
        let platform = Platform::new(&platform).map_err(|source| Error::Budget {
            file: file.to_owned(),
            name: name.clone(),
            source,
        })?;
        objects.extend(blueprint(&platform, &Facts::default()).iter().map(|object| object.value().clone()));
    }
    Ok(objects)
}

fn yaml(objects: &[Value]) -> Result<String, Error> {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(object)?);
    }
    Ok(text)
}
