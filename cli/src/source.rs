//! TaskPlatforms in files: read, and everything that is wrong with them located by line and column.

mod places;

use std::{
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use kube::Resource;
use serde::Serialize;
use taskplatform_blueprint::{Code, Finding, Nodes, Platform, Severity, findings, fixed_instances};
use taskplatform_crds::{Misfit, ParseError, Part, TaskPlatform};

use places::{Place, Places};

/// The files that TaskPlatforms are read from.
#[derive(clap::Args)]
pub(crate) struct Files {
    /// A file with TaskPlatforms, divided by ---, or a folder of such files; - is the standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// What can't be read, or can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{file} cannot be read")]
    Read { file: String, source: io::Error },
    #[error("{0} is neither UTF-8 nor UTF-16: save it as UTF-8")]
    Encoding(String),
    #[error("there is no TaskPlatform in {0}: give it apiVersion taskplatform.dev/v1alpha1 and kind TaskPlatform")]
    Nothing(String),
    #[error("{} refused:\n{}", .0.len(), lines(.0))]
    Refused(Vec<Located>),
    #[error("{0} TaskPlatforms are given, but only one can be taken at a time: give them one by one")]
    Several(usize),
}

fn lines(findings: &[Located]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A finding, and where it is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Located {
    file: String,
    line: u64,
    column: u64,
    severity: Severity,
    #[serde(flatten)]
    finding: Finding,
}

impl Located {
    pub(crate) const fn severity(&self) -> Severity {
        self.severity
    }
}

/// As compilers do, so that editors find the place.
impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, severity, finding } = self;
        write!(f, "{file}:{line}:{column}: {severity} {}: ", finding.code)?;
        if !finding.field.is_empty() {
            write!(f, "{}: ", finding.field)?;
        }
        f.write_str(&finding.reason)?;
        if !finding.remedy.is_empty() {
            write!(f, "\n    way out: {}", finding.remedy)?;
        }
        Ok(())
    }
}

/// The TaskPlatforms of some files.
#[derive(Default)]
pub(crate) struct Source {
    documents: Vec<Document>,
    /// What is wrong with documents that could not be taken.
    broken: Vec<Located>,
}

struct Document {
    file: String,
    /// The lines of the file before it.
    offset: u64,
    places: Places,
    platform: TaskPlatform,
}

impl Files {
    /// Files that may have been left out, and were not.
    pub(crate) const fn of(files: Vec<PathBuf>) -> Self {
        Self { files }
    }

    /// Reads all of them.
    pub(crate) fn read(&self) -> Result<Source, Error> {
        let mut source = Source::default();
        for file in &self.files {
            for (name, text) in read(file)? {
                source.take(&name, &text);
            }
        }
        if source.documents.is_empty() && source.broken.is_empty() {
            return Err(Error::Nothing(self.files.iter().map(|file| name(file)).collect::<Vec<_>>().join(", ")));
        }
        Ok(source)
    }
}

fn name(file: &Path) -> String {
    if file == Path::new("-") { "stdin".to_owned() } else { file.display().to_string() }
}

/// The texts of a file, or of the files of a folder.
fn read(file: &Path) -> Result<Vec<(String, String)>, Error> {
    let failed = |source| Error::Read { file: name(file), source };
    if file == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).map_err(failed)?;
        return Ok(vec![(name(file), decoded(file, &bytes)?)]);
    }
    if !file.is_dir() {
        return Ok(vec![(name(file), decoded(file, &fs::read(file).map_err(failed)?)?)]);
    }
    let entries = fs::read_dir(file).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed)?;
    let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|file| {
        let extension = file.extension().and_then(|extension| extension.to_str());
        file.is_file() && matches!(extension, Some("yaml" | "yml" | "json"))
    });
    files.sort();
    files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>().map(|texts| texts.concat())
}

/// Windows writes UTF-16, or UTF-8 with a mark before it.
fn decoded(file: &Path, bytes: &[u8]) -> Result<String, Error> {
    let (text, _, has_errors) = encoding_rs::UTF_8.decode(bytes);
    if has_errors { Err(Error::Encoding(name(file))) } else { Ok(text.into_owned()) }
}

impl Source {
    /// The only TaskPlatform.
    pub(crate) fn one(self) -> Result<TaskPlatform, Error> {
        self.refuse_errors()?;
        let count = self.documents.len();
        let mut documents = self.documents.into_iter();
        match (documents.next(), count) {
            (Some(document), 1) => Ok(document.platform),
            _ => Err(Error::Several(count)),
        }
    }

    /// The TaskPlatforms, checked.
    pub(crate) fn platforms(&self) -> Result<Vec<Platform>, Error> {
        self.refuse_errors()?;
        // What keeps one from being built is an error that was found.
        Ok(self.documents.iter().filter_map(|document| Platform::new(&document.platform).ok()).collect())
    }

    fn refuse_errors(&self) -> Result<(), Error> {
        let mut findings = self.lint(None);
        findings.retain(|finding| finding.severity == Severity::Error);
        if findings.is_empty() { Ok(()) } else { Err(Error::Refused(findings)) }
    }

    /// Everything that is wrong, in the order of the files.
    pub(crate) fn lint(&self, nodes: Option<&Nodes>) -> Vec<Located> {
        let of_document = |document: &Document| {
            let findings = findings(&document.platform, nodes).into_iter().chain(fixed_instances(&document.platform));
            findings.map(|finding| document.locate(finding)).collect::<Vec<_>>()
        };
        let mut found = self.broken.clone();
        found.extend(self.documents.iter().flat_map(of_document));
        found
    }

    /// Takes in the TaskPlatforms of a file.
    fn take(&mut self, file: &str, text: &str) {
        for (offset, text) in documents(text) {
            match Places::of(&text) {
                Ok(places) if is_list(&places) => {
                    places.items().into_iter().for_each(|item| self.take_object(file, offset, item));
                }
                Ok(places) => self.take_object(file, offset, places),
                Err(error) => {
                    let place = error.location().map(|place| Place { line: place.line(), column: place.column() });
                    let place = place.unwrap_or(Place { line: 1, column: 1 });
                    self.broken.push(broken(file, offset, place, Code::Shape, "", message(&error)));
                }
            }
        }
    }

    /// Takes in an object, if it is a TaskPlatform.
    fn take_object(&mut self, file: &str, offset: u64, places: Places) {
        if places.text("kind") != Some(TaskPlatform::kind(&()).as_ref()) {
            return;
        }
        let broken = |place, code, field: &str, reason| broken(file, offset, place, code, field, reason);
        if places.text("apiVersion") != Some(TaskPlatform::api_version(&()).as_ref()) {
            let reason = format!("a TaskPlatform has apiVersion {}", TaskPlatform::api_version(&()));
            self.broken.push(broken(places.find("apiVersion"), Code::Shape, "apiVersion", reason));
            return;
        }
        match TaskPlatform::parse(places.value()) {
            Ok(platform) => self.documents.push(Document { file: file.to_owned(), offset, places, platform }),
            Err(error) => {
                let mut found = wrong(&places, error);
                found.sort_by_key(|(place, ..)| *place);
                let located = found.into_iter().map(|(place, code, field, reason)| broken(place, code, &field, reason));
                self.broken.extend(located);
            }
        }
    }
}

/// What is wrong with a document, and where.
fn wrong(places: &Places, error: ParseError) -> Vec<(Place, Code, String, String)> {
    match error {
        ParseError::Shape(misfits) => {
            let place = |misfit: &Misfit| match misfit.part {
                Part::Name => places.find_name(&misfit.field),
                Part::Value => places.find(&misfit.field),
            };
            let misfits = misfits.0.into_iter();
            misfits.map(|misfit| (place(&misfit), Code::Shape, misfit.field, misfit.message)).collect()
        }
        ParseError::Unreadable(error) => {
            let field = error.path().to_string();
            vec![(places.find(&field), Code::Shape, field, error.into_inner().to_string())]
        }
        ParseError::Rules(rules) => {
            let rules = rules.0.into_iter();
            rules.map(|rule| (places.find(&rule.field), Code::Rule, rule.field, rule.message)).collect()
        }
    }
}

/// Whether an object holds others, as what `kubectl get` writes.
fn is_list(places: &Places) -> bool {
    let of_platforms = format!("{}List", TaskPlatform::kind(&()));
    places.text("kind").is_some_and(|kind| kind == "List" || kind == of_platforms)
}

fn broken(file: &str, offset: u64, place: Place, code: Code, field: &str, reason: String) -> Located {
    Located {
        file: file.to_owned(),
        line: offset + place.line,
        column: place.column,
        severity: Severity::Error,
        finding: Finding { code, field: field.to_owned(), reason, remedy: String::new() },
    }
}

impl Document {
    fn locate(&self, finding: Finding) -> Located {
        let Place { line, column } = self.places.find(&finding.field);
        Located { file: self.file.clone(), line: self.offset + line, column, severity: finding.severity(), finding }
    }
}

/// What a YAML error says, without the piece of text that it is about, and without its place: that is told before it.
fn message(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned()
}

/// The documents of a text that have content, each with the number of lines before it.
fn documents(text: &str) -> Vec<(u64, String)> {
    let mut documents = vec![(0, String::new())];
    for (line, number) in text.split_inclusive('\n').zip(0..) {
        let begins = line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        match (begins, documents.last_mut()) {
            // What stands on the same line keeps its column.
            (Some(rest), _) => documents.push((number, format!("   {rest}"))),
            (None, Some((_, document))) => document.push_str(line),
            (None, None) => {}
        }
    }
    let has_content = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with(['#', '%']);
    documents.retain(|(_, document)| document.lines().any(has_content));
    documents
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        let mut source = Source::default();
        source.take("a.yaml", text);
        source
    }

    #[test]
    fn documents_are_taken_apart() {
        let text = "%YAML 1.2\n---\n# nothing\n---\na: 1\n--- {b: 2}\n---\n";
        assert_eq!(documents(text), [(3, "   \na: 1\n".to_owned()), (5, "    {b: 2}\n".to_owned())]);
        assert_eq!(documents(""), []);
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        let text = "\
kind: Namespace
---
apiVersion: taskplatform.dev/v1alpha1
kind: TaskPlatform
metadata: {name: tasks}
spec:
  gateway:
    replica: 2
---
apiVersion: taskplatform.dev/v1alpha1
kind: TaskPlatform
metadata: {name: tasks}
spec:
  scaling: {minInstances: 9, maxInstances: 2}
---
apiVersion: taskplatform.dev/v1alpha1
kind: TaskPlatform
metadata: {name: tasks}
spec:
  database:
    parameters:
      max_connections: '10'
---
apiVersion: v1
kind: TaskPlatform
---
a: [
";
        let found: Vec<_> = source(text)
            .lint(None)
            .into_iter()
            .map(|found| (found.line, found.column, found.finding.code.id(), found.finding.field))
            .collect();
        let expected = [
            (8, 5, "TP001", "spec.gateway.replica"),
            (14, 12, "TP002", "spec.scaling"),
            (24, 13, "TP001", "apiVersion"),
            (27, 4, "TP001", ""),
            (22, 24, "TP101", "spec.database.parameters.max_connections"),
        ];
        let expected: Vec<_> =
            expected.map(|(line, column, code, field)| (line, column, code, field.to_owned())).into();
        assert_eq!(found, expected);
    }
}
