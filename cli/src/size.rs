//! `taskplatform size`: a TaskPlatform for a number of users, by the scalability plan's tables (1.2 and 8.1).

use taskplatform_blueprint::{LEVELS, Level, Nodes, findings};
use taskplatform_crds::{Cpu, Size, TaskPlatform};

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
        None => Proposal { name, users: *users, level, thousandths: 1000 },
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
        let proposal = Proposal { name, users, level, thousandths };
        let fits = |field: &str| !field.starts_with("spec.scaling.min") && !field.ends_with(".resources");
        if findings(&proposal.platform()?, Some(nodes)).iter().all(|finding| fits(&finding.field)) {
            return Ok(proposal);
        }
    }
    Err(Error::NoRoom)
}

/// What is proposed: a level of the plan, or a part of it.
struct Proposal<'a> {
    name: &'a str,
    users: u32,
    level: &'a Level,
    thousandths: u64,
}

impl Proposal<'_> {
    fn platform(&self) -> Result<TaskPlatform, Error> {
        Ok(serde_saphyr::from_str(&self.yaml()?)?)
    }

    /// What the plan's machine has, as far as there is room, but no less than what the component needs to run.
    fn cpu(&self, plan: Cpu, least: u64) -> Cpu {
        Cpu::millicores((plan.as_millicores() * self.thousandths / 1000).max(least))
    }

    fn memory(&self, plan: Size, least: u64) -> Size {
        Size::mebibytes((plan.as_mebibytes() * self.thousandths / 1000).max(least))
    }

    fn yaml(&self) -> Result<String, Error> {
        let Self { users, level, thousandths, .. } = self;
        let name = output::yaml(&self.name)?;
        let name = name.trim_end();
        let Level { instance, database, cache, instances, .. } = level;
        let scaled = if *thousandths == 1000 {
            String::new()
        } else {
            format!(
                "# The nodes have no room for that: every component gets {}.{} % of it, or the least that it runs with.\n",
                thousandths / 10,
                thousandths % 10
            )
        };
        // A shard holds its part of the cache.
        let shard = Size::mebibytes(cache.memory().as_mebibytes() / 3);
        let (small_cpu, small_memory) = (Cpu::millicores(1000), Size::mebibytes(256));
        let cache_memory = self.memory(shard, 128);
        let sessions_memory = self.memory(Size::gibibytes(1), 128);
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
  api:
    resources: {{cpu: {api_cpu}, memory: {api_memory}}}
  gateway:
    resources: {{cpu: {gateway_cpu}, memory: {gateway_memory}}}
  database:
    resources: {{cpu: {database_cpu}, memory: {database_memory}}}
    storage: {{size: {database_volume}}}
  pooler:
    resources: {{cpu: {gateway_cpu}, memory: {gateway_memory}}}
  cache:
    resources: {{cpu: {redis_cpu}, memory: {cache_memory}}}
    storage: {{size: {cache_volume}}}
  sessions:
    resources: {{cpu: {redis_cpu}, memory: {sessions_memory}}}
    storage: {{size: {sessions_volume}}}
  worker:
    resources: {{cpu: {worker_cpu}, memory: {worker_memory}}}
",
            level_name = level.name,
            most = level.users,
            instance_name = instance.name,
            database_name = database.name,
            cache_name = cache.name,
            min = (instances + 1) / 2 + i32::from(*instances < 3),
            max = (instances * 2).max(6),
            api_cpu = self.cpu(instance.cpu(), 50),
            api_memory = self.memory(instance.memory(), 96),
            gateway_cpu = self.cpu(small_cpu, 25),
            gateway_memory = self.memory(small_memory, 64),
            database_cpu = self.cpu(database.cpu(), 100),
            database_memory = self.memory(database.memory(), 512),
            database_volume = if *thousandths == 1000 { Size::gibibytes(100) } else { Size::gibibytes(10) },
            redis_cpu = self.cpu(small_cpu, 25),
            cache_volume = Size::gibibytes((cache_memory.as_mebibytes() * 2).div_ceil(1024).max(1)),
            sessions_volume = Size::gibibytes((sessions_memory.as_mebibytes() * 2).div_ceil(1024).max(1)),
            worker_cpu = self.cpu(Cpu::millicores(250), 25),
            worker_memory = self.memory(Size::mebibytes(128), 64),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_proposed_has_no_findings() {
        for level in &LEVELS {
            let proposal = Proposal { name: "tasks", users: level.users, level, thousandths: 1000 };
            let platform = proposal.platform().unwrap();
            platform.check_rules().unwrap();
            assert_eq!(findings(&platform, None), [], "{}", level.name);
        }
    }

    #[test]
    fn a_name_stays_text() {
        for name in ["no", "null", "y", "e1"] {
            let yaml = Proposal { name, users: 1, level: &LEVELS[0], thousandths: 1000 }.yaml().unwrap();
            let quoted = if name == "e1" { name.to_owned() } else { format!("\"{name}\"") };
            assert!(yaml.contains(&format!("\n  name: {quoted}\nspec:\n")), "{yaml}");
        }
    }

    #[test]
    fn what_is_proposed_fits_the_nodes() {
        let nodes: Nodes = "3x2cpu,7Gi".parse().unwrap();
        for level in &LEVELS {
            let proposal = fitting("tasks", level.users, level, &nodes).unwrap();
            assert!(proposal.thousandths < 1000, "{}", level.name);
            let minimum = findings(&proposal.platform().unwrap(), Some(&nodes));
            assert!(minimum.iter().all(|finding| finding.field != "spec.scaling.minInstances"), "{minimum:?}");
        }
        let tiny: Nodes = "1x100mcpu,64Mi".parse().unwrap();
        assert!(matches!(fitting("tasks", 1, &LEVELS[0], &tiny), Err(Error::NoRoom)));
    }
}
