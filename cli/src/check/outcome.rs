//! What was found, and how it is told.

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::output;

const PASSED: Style = AnsiColor::Green.on_default();
const WARNED: Style = AnsiColor::Yellow.on_default();
const FAILED: Style = AnsiColor::Red.on_default();
const SKIPPED: Style = AnsiColor::BrightBlack.on_default();
const TITLE: Style = Style::new().bold();

/// What a check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Group {
    Cluster,
    Operator,
    Permissions,
    Storage,
    Autoscaling,
    Nodes,
    Limits,
    Trial,
}

impl Group {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Operator => "Operator",
            Self::Permissions => "Permissions",
            Self::Storage => "Storage",
            Self::Autoscaling => "Autoscaling",
            Self::Nodes => "Nodes",
            Self::Limits => "Limits",
            Self::Trial => "Trial",
        }
    }
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// It is as it should be.
    Pass,
    /// A platform runs there, and lacks something.
    Warning,
    /// A platform does not come to run there.
    Failure,
    /// Nobody knows.
    Skipped,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Outcome {
    pub(super) group: Group,
    /// What ought to be.
    pub(super) name: String,
    pub(super) verdict: Verdict,
    /// What is.
    pub(super) detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) way_out: Option<String>,
}

impl Group {
    pub(super) fn pass(self, name: impl Into<String>, detail: impl Into<String>) -> Outcome {
        self.outcome(Verdict::Pass, name, detail, None)
    }

    pub(super) fn skipped(self, name: impl Into<String>, detail: impl Into<String>) -> Outcome {
        self.outcome(Verdict::Skipped, name, detail, None)
    }

    pub(super) fn warning(
        self,
        name: impl Into<String>,
        detail: impl Into<String>,
        way_out: impl Into<String>,
    ) -> Outcome {
        self.outcome(Verdict::Warning, name, detail, Some(way_out.into()))
    }

    pub(super) fn failure(
        self,
        name: impl Into<String>,
        detail: impl Into<String>,
        way_out: impl Into<String>,
    ) -> Outcome {
        self.outcome(Verdict::Failure, name, detail, Some(way_out.into()))
    }

    /// A check that needs what could not be read. Who may not read it learns nothing, good or bad.
    pub(super) fn unread(self, name: impl Into<String>, resource: &str, error: &kube::Error) -> Outcome {
        match error {
            kube::Error::Api(status) if status.code == 403 => self.warning(
                name,
                format!("nobody knows: you may not read {resource}"),
                "ask for the role in docs/check.md, or have somebody else check",
            ),
            error => self.failure(
                name,
                format!("{resource} cannot be read: {}", message(error)),
                "look how the API server is (kubectl get --raw '/readyz?verbose')",
            ),
        }
    }

    fn outcome(
        self,
        verdict: Verdict,
        name: impl Into<String>,
        detail: impl Into<String>,
        way_out: Option<String>,
    ) -> Outcome {
        Outcome { group: self, name: name.into(), verdict, detail: detail.into(), way_out }
    }
}

/// What the API server said, without what the client adds to it; else the cause that lies deepest.
pub(super) fn message(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return if status.message.is_empty() { format!("status {}", status.code) } else { status.message.clone() };
    }
    let mut deepest: &dyn std::error::Error = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    deepest.to_string()
}

/// How many checks ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    pub(super) passed: usize,
    pub(super) warnings: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
}

impl Counts {
    pub(super) fn of(outcomes: &[Outcome]) -> Self {
        let count = |verdict| outcomes.iter().filter(|outcome| outcome.verdict == verdict).count();
        Self {
            passed: count(Verdict::Pass),
            warnings: count(Verdict::Warning),
            failed: count(Verdict::Failure),
            skipped: count(Verdict::Skipped),
        }
    }

    /// The line at the end.
    pub(super) fn text(self) -> String {
        let Self { passed, warnings, failed, skipped } = self;
        let style = if failed > 0 { FAILED } else { PASSED };
        let warnings = output::count(warnings, "warning");
        format!("\n{style}{passed} passed, {warnings}, {failed} failed, {skipped} skipped{style:#}\n")
    }
}

/// A group as people read it.
pub(super) fn text(group: Group, outcomes: &[Outcome]) -> String {
    let lines: String = outcomes.iter().map(line).collect();
    format!("\n{TITLE}{}{TITLE:#}\n{lines}", group.name())
}

fn line(Outcome { name, verdict, detail, way_out, .. }: &Outcome) -> String {
    let (style, sign) = match verdict {
        Verdict::Pass => (PASSED, "✓"),
        Verdict::Warning => (WARNED, "!"),
        Verdict::Failure => (FAILED, "✗"),
        Verdict::Skipped => (SKIPPED, "-"),
    };
    let sign = format!("{style}{sign}{style:#}");
    match way_out {
        None if detail.is_empty() => format!("{sign} {name}\n"),
        None => format!("{sign} {name}: {detail}\n"),
        Some(way_out) => {
            // What others say may have lines of its own.
            let detail = detail.trim().replace('\n', "\n    ");
            format!("{sign} {name}\n    {detail}\n    way out: {way_out}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_and_the_way_out_stand_below() {
        let outcomes = [
            Group::Storage.pass("a class", "standard"),
            Group::Storage.failure("it grows", "it\ndoes not", "use another"),
            Group::Storage.skipped("a volume", "--no-trial"),
        ];
        let text = anstream::adapter::strip_str(&text(Group::Storage, &outcomes)).to_string();
        assert_eq!(
            text,
            "\nStorage\n✓ a class: standard\n✗ it grows\n    it\n    does not\n    way out: use another\n- a volume: --no-trial\n"
        );
        assert_eq!(Counts::of(&outcomes), Counts { passed: 1, warnings: 0, failed: 1, skipped: 1 });
    }
}
