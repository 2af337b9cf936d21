//! `taskplatform size`: a TaskPlatform for a number of users, by the scalability plan's tables (1.2 and 8.1).

use taskplatform_blueprint::{LEVELS, Level, Nodes, PARTS, Part, Share, findings};
use taskplatform_crds::{Resources, TaskPlatform};

use crate::output;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many users are there at once.
    #[arg(long)]
    users: u32,
    /// The TaskPlatform's name.
    #[arg(long, default_value = "tasks")]
    name: String,
    /// The nodes of the cluster, and what each has for pods, such as 3x4cpu,16Gi: what the plan asks for is made smaller
    /// until the fewest instances fit on them.
    #[arg(long)]
    nodes: Option<Nodes>,
}

/// Why nothing can be proposed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the plan's tables end at {most} users: propose that, load it (make bench-api shows how), and scale what the load shows to be short", most = most())]
    TooMany,
    #[error("the name {0:?} is refused: {1}")]
    Name(String, String),
    #[error("the nodes are too small for even a thousandth of what the plan asks for: use larger ones, or more")]
    NoRoom,
    #[error("the proposal cannot be read back")]
    Proposal(#[from] serde_saphyr::Error),
    #[error(transparent)]
    Output(#[from] output::Error),
}

fn most() -> u32 {
    LEVELS.iter().map(|level| level.users).max().unwrap_or_default()
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Error> {
    let Arguments { users, name, nodes } = arguments;
    let level = LEVELS.iter().find(|level| *users <= level.users).ok_or(Error::TooMany)?;
    let proposal = match nodes {
        None => Proposal { name, users: *users, level, share: WHOLE },
        Some(nodes) => fitting(name, *users, level, nodes)?,
    };
    let platform = proposal.platform()?;
    platform.check_rules().map_err(|rules| Error::Name(name.clone(), rules.to_string()))?;
    Ok(output::write(&proposal.yaml()?)?)
}

/// The largest proposal that fits.
fn fitting<'a>(name: &'a str, users: u32, level: &'a Level, nodes: &Nodes) -> Result<Proposal<'a>, Error> {
    let steps = [1000, 800, 600, 500, 400, 300, 200, 150, 100, 80, 60, 50, 40, 30, 20, 10, 5, 2, 1];
    for thousandths in steps {
        let proposal = Proposal { name, users, level, share: Share { thousandths } };
        let fits = |field: &str| !field.starts_with("spec.scaling.min") && !field.ends_with(".resources");
        if findings(&proposal.platform()?, Some(nodes)).iter().all(|finding| fits(&finding.field)) {
            return Ok(proposal);
        }
    }
    Err(Error::NoRoom)
}

const WHOLE: Share = Share { thousandths: 1000 };

/// What is proposed: a level of the plan, or a part of it.
struct Proposal<'a> {
    name: &'a str,
    users: u32,
    level: &'a Level,
    share: Share,
}

impl Proposal<'_> {
    fn platform(&self) -> Result<TaskPlatform, Error> {
        Ok(serde_saphyr::from_str(&self.yaml()?)?)
    }

    fn yaml(&self) -> Result<String, Error> {
        let Self { users, level, share, .. } = self;
        let name = output::yaml(&self.name)?;
        let name = name.trim_end();
        let Level { instance, database, cache, instances, .. } = level;
        let scaled = if share.is_whole() {
            String::new()
        } else {
            format!(
                "# The nodes have no room for that: every component gets {}.{} % of it, or the least that it runs with.\n",
                share.thousandths / 10,
                share.thousandths % 10
            )
        };
        let parts: String = PARTS.iter().map(|part| self.part(*part)).collect();
        Ok(format!(
            "\
# For {users} users: level {level_name} of the scalability plan (up to {most} users), {instances} instances of the API.
# Each has what {instance_name} has for pods, PostgreSQL what {database_name} has, and the cache what {cache_name} has.
{scaled}# taskplatform check -f FILE tells whether your cluster has room for it (if not: size --nodes), taskplatform cost -f FILE what it
# costs, and taskplatform apply -f FILE shows what it becomes, asks, and makes it.
apiVersion: taskplatform.dev/v1alpha1
kind: TaskPlatform
metadata:
  name: {name}
spec:
  scaling:
    minInstances: {min}
    maxInstances: {max}
{parts}",
            level_name = level.name,
            most = level.users,
            instance_name = instance.name,
            database_name = database.name,
            cache_name = cache.name,
            min = (instances + 1) / 2 + i32::from(*instances < 3),
            max = (instances * 2).max(6),
        ))
    }

    fn part(&self, part: &dyn Part) -> String {
        let taskplatform_blueprint::Proposal { resources: Resources { cpu, memory }, storage } =
            part.proposal(self.level, self.share);
        let storage = storage.map_or_else(String::new, |size| format!("    storage: {{size: {size}}}\n"));
        format!("  {}:\n    resources: {{cpu: {cpu}, memory: {memory}}}\n{storage}", part.component())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_proposed_has_no_findings() {
        for level in &LEVELS {
            let proposal = Proposal { name: "tasks", users: level.users, level, share: WHOLE };
            let platform = proposal.platform().unwrap();
            platform.check_rules().unwrap();
            assert_eq!(findings(&platform, None), [], "{}", level.name);
        }
    }

    #[test]
    fn a_name_stays_text() {
        for name in ["no", "null", "y", "e1"] {
            let yaml = Proposal { name, users: 1, level: &LEVELS[0], share: WHOLE }.yaml().unwrap();
            let quoted = if name == "e1" { name.to_owned() } else { format!("\"{name}\"") };
            assert!(yaml.contains(&format!("\n  name: {quoted}\nspec:\n")), "{yaml}");
        }
    }

    #[test]
    fn what_is_proposed_fits_the_nodes() {
        let nodes: Nodes = "3x2cpu,7Gi".parse().unwrap();
        for level in &LEVELS {
            let proposal = fitting("tasks", level.users, level, &nodes).unwrap();
            assert!(!proposal.share.is_whole(), "{}", level.name);
            let minimum = findings(&proposal.platform().unwrap(), Some(&nodes));
            assert!(minimum.iter().all(|finding| finding.field != "spec.scaling.minInstances"), "{minimum:?}");
        }
        let tiny: Nodes = "1x100mcpu,64Mi".parse().unwrap();
        assert!(matches!(fitting("tasks", 1, &LEVELS[0], &tiny), Err(Error::NoRoom)));
    }
}
