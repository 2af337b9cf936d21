//! What is wrong with a TaskPlatform, or will be when it is loaded, loses a node or grows: told before anything runs.
//!
//! What each code is about stands in `docs/findings.md`.

mod scheduling;

use std::{fmt, str::FromStr};

use serde::Serialize;
use taskplatform_crds::TaskPlatform;

use crate::{Draft, Unit, parts::PARTS, units};
pub use scheduling::{InvalidNodes, Node, Nodes};

/// What the codes are about; [`Code::explanation`] gives a code's part.
const EXPLANATIONS: &str = include_str!("../../../docs/findings.md");

/// Whether a TaskPlatform with this finding can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot: it is refused.
    Error,
    /// It can, and will disappoint.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

macro_rules! codes {
    ($($name:ident = $id:literal $severity:ident),* $(,)?) => {
        /// What a finding is about. The id is for good: it is what people search for.
        #[expect(missing_docs, reason = "docs/findings.md has a part for each")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code { $($name),* }

        impl Code {
            /// Every code.
            pub const ALL: [Self; [$($id),*].len()] = [$(Self::$name),*];

            /// Its id, such as TP101.
            pub const fn id(self) -> &'static str {
                match self { $(Self::$name => $id),* }
            }

            /// How bad it is.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity),* }
            }
        }
    };
}

codes! {
    Shape = "TP001" Error,
    Rule = "TP002" Error,
    ServerConnections = "TP101" Error,
    ClientConnections = "TP102" Error,
    SharedBuffers = "TP103" Error,
    WorkMemory = "TP104" Warning,
    ApiMemory = "TP105" Warning,
    SmallVolume = "TP106" Warning,
    RedisMemory = "TP107" Warning,
    BytesAlone = "TP108" Warning,
    NoFailover = "TP201" Warning,
    NoQuorum = "TP202" Warning,
    NodeLoss = "TP203" Warning,
    Durability = "TP204" Warning,
    NeverDurable = "TP205" Error,
    SinglePod = "TP301" Warning,
    FixedInstances = "TP302" Warning,
    PodTooLarge = "TP401" Warning,
    TooFewNodes = "TP402" Warning,
    UnknownSetting = "TP501" Error,
    SettingValue = "TP502" Error,
}

impl Code {
    /// What it is about, why it matters and what to do: its part of `docs/findings.md`.
    pub fn explanation(self) -> &'static str {
        let heading = format!("\n## {}", self.id());
        let Some(begin) = EXPLANATIONS.find(&heading) else { return "" };
        let part = &EXPLANATIONS[begin + 1..];
        part.find("\n## ").map_or(part, |end| &part[..end]).trim()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// There is no such code.
#[derive(Debug, thiserror::Error)]
#[error("{0} is no code of a finding: they are {all}", all = Code::ALL.map(Code::id).join(", "))]
pub struct UnknownCode(String);

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|code| code.id().eq_ignore_ascii_case(text));
        known.ok_or_else(|| UnknownCode(text.to_owned()))
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub code: Code,
    /// The field to look at, such as `spec.pooler.replicas`; empty for the document as a whole.
    pub field: String,
    /// What is wrong, with its numbers.
    pub reason: String,
    /// The way out.
    pub remedy: String,
}

impl Finding {
    pub(crate) fn new(code: Code, field: &str, reason: String, remedy: impl Into<String>) -> Self {
        Self { code, field: field.to_owned(), reason, remedy: remedy.into() }
    }

    /// How bad it is.
    pub const fn severity(&self) -> Severity {
        self.code.severity()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, field, reason, remedy } = self;
        if !field.is_empty() {
            write!(f, "{field}: ")?;
        }
        write!(f, "{reason}: {remedy} ({code})")
    }
}

/// What is wrong with a TaskPlatform whose fields are each well-formed, the worst first; with `nodes`, also what does not
/// fit on them.
pub fn findings(platform: &TaskPlatform, nodes: Option<&Nodes>) -> Vec<Finding> {
    let platform = Draft::from(platform);
    let mut findings = errors(&platform);
    for part in PARTS {
        findings.extend(part.warnings(&platform));
        findings.extend(nodes.into_iter().flat_map(|nodes| part.warnings_on(&platform, nodes)));
    }
    let units = units(&platform, platform.spec().scaling.min_instances.get());
    findings.extend(units.iter().flat_map(bytes_alone));
    findings.extend(nodes.into_iter().flat_map(|nodes| scheduling::warnings(&platform, nodes)));
    findings.sort_by_key(|finding| (finding.severity(), finding.code));
    findings
}

/// What keeps a platform from being built.
pub(crate) fn errors(platform: &Draft) -> Vec<Finding> {
    PARTS.iter().flat_map(|part| part.errors(platform)).collect()
}

/// One pod: a drain interrupts what it does, since its disruption budget lets it go.
pub(crate) fn single_pod(field: &str, what: &str, pods: i32) -> Option<Finding> {
    (pods == 1).then(|| {
        Finding::new(
            Code::SinglePod,
            field,
            format!("{what} may be one pod: nothing serves while it moves to another node"),
            "give it at least 2",
        )
    })
}

/// Less than this, nobody means.
const SMALLEST_SIZE: u64 = 1 << 20;

/// Sizes that count bytes, since they were given without a unit.
fn bytes_alone(unit: &Unit) -> impl Iterator<Item = Finding> {
    let sizes = [
        ("resources.memory", Some(unit.resources.memory)),
        ("storage.size", unit.storage.as_ref().map(|storage| storage.size)),
    ];
    let component = unit.component;
    let sizes = sizes.into_iter().filter_map(|(field, size)| Some((field, size?.as_bytes())));
    sizes.filter(|(_, bytes)| *bytes < SMALLEST_SIZE).map(move |(field, bytes)| {
        let reason = format!("it is {bytes} bytes: a number without a unit counts bytes");
        let remedy = "write its unit, such as 512Mi or 10Gi";
        Finding::new(Code::BytesAlone, &format!("spec.{component}.{field}"), reason, remedy)
    })
}

/// What is wrong with a file, but not with a TaskPlatform in a cluster: there, the autoscaler wrote it.
pub fn fixed_instances(platform: &TaskPlatform) -> Option<Finding> {
    let instances = platform.spec.api.replicas?;
    Some(Finding::new(
        Code::FixedInstances,
        "spec.api.replicas",
        format!("each time the file is applied, the API goes to {instances} instances, whatever the load is"),
        "leave it out: the number belongs to the autoscaler; set scaling.minInstances and scaling.maxInstances",
    ))
}
