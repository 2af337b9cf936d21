//! The rolling change of the stateful parts: one pod of the platform at a time, whatever the part, each a full copy again before the next.

use std::{fmt, time::Duration};

use taskplatform_blueprint::Component;

/// Its name in the status.
pub(crate) const NAME: &str = "Rollout";
/// A replaced pod is ready again within this time, a full copy made anew included, or a person looks.
pub(crate) const DEADLINE: Duration = Duration::from_mins(15);

/// A stateful part as a rollout sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) component: Component,
    /// How many pods it should have.
    pub(crate) wanted: usize,
    pub(crate) pods: Vec<Pod>,
}

/// A pod of a stateful part.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) uid: String,
    /// It is of a former template.
    pub(crate) outdated: bool,
    pub(crate) ready: bool,
    /// It is about to go.
    pub(crate) ending: bool,
}

/// What a part's pods are to each other, asked when one of them is about to be replaced.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Roles {
    /// Any may go next; those that lead something are the last.
    Leaders(Vec<String>),
    /// One leads, and hands over to the best of the others before it goes.
    Primary { pod: String, successor: Option<String> },
    /// None may go, and why not.
    Unsettled(String),
}

/// The step that a rollout is at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Wait until a part is whole again.
    Await { component: Component, why: String },
    /// Replace a pod by one of the present template.
    Replace { component: Component, pod: String, uid: String },
    /// Have another pod lead, so that this one can be replaced.
    HandOver { component: Component, from: String, to: String },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Await { component, why } => write!(f, "waiting for {component}: {why}"),
            Self::Replace { component, pod, .. } => write!(f, "replacing {pod} of {component}"),
            Self::HandOver { component, from, to } => write!(f, "{component}: handing over from {from} to {to}"),
        }
    }
}

/// The part that a rollout goes on with; none, when everything is of the present templates.
pub(crate) fn next_part(parts: &[Part]) -> Option<&Part> {
    parts.iter().find(|part| part.pods.iter().any(|pod| pod.outdated && !pod.ending))
}

/// The step, where some pod is outdated. Nothing of a platform is replaced while any of its stateful pods is away, but for the one that is
/// away itself: a template that does not start is mended so.
pub(crate) fn step(parts: &[Part], next: &Part, roles: &Roles) -> Step {
    let broken = parts.iter().flat_map(|part| part.pods.iter().map(move |pod| (part.component, pod)));
    let mut broken = broken.filter(|(_, pod)| !pod.ready && !pod.ending);
    if let Some((component, pod)) = broken.find(|(_, pod)| pod.outdated) {
        return replace(component, pod);
    }
    if let Some((component, why)) = parts.iter().find_map(|part| Some((part.component, away(part)?))) {
        return Step::Await { component, why };
    }
    let component = next.component;
    let mut outdated = next.pods.iter().filter(|pod| pod.outdated);
    match roles {
        Roles::Unsettled(why) => Step::Await { component, why: why.clone() },
        Roles::Leaders(leaders) => {
            let next = outdated.clone().find(|pod| !leaders.contains(&pod.name)).or_else(|| outdated.next());
            next.map_or_else(|| nothing(component), |pod| replace(component, pod))
        }
        Roles::Primary { pod: primary, successor } => match (outdated.find(|pod| pod.name != *primary), successor) {
            (Some(replica), _) => replace(component, replica),
            (None, Some(to)) => Step::HandOver { component, from: primary.clone(), to: to.clone() },
            (None, None) => next
                .pods
                .iter()
                .find(|pod| pod.name == *primary)
                .map_or_else(|| nothing(component), |pod| replace(component, pod)),
        },
    }
}

fn replace(component: Component, pod: &Pod) -> Step {
    Step::Replace { component, pod: pod.name.clone(), uid: pod.uid.clone() }
}

fn nothing(component: Component) -> Step {
    Step::Await { component, why: "its pods are not known yet".to_owned() }
}

/// Why a part is not whole.
fn away(part: &Part) -> Option<String> {
    if let Some(pod) = part.pods.iter().find(|pod| pod.ending || !pod.ready) {
        return Some(format!("{} is not ready", pod.name));
    }
    (part.pods.len() < part.wanted).then(|| format!("{} of {} pods are there", part.pods.len(), part.wanted))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn part(component: Component, outdated: &[bool]) -> Part {
        let pod = |(ordinal, outdated): (usize, &bool)| Pod {
            name: format!("{component}-{ordinal}"),
            uid: format!("{component}-{ordinal}"),
            outdated: *outdated,
            ready: true,
            ending: false,
        };
        Part { component, wanted: outdated.len(), pods: outdated.iter().enumerate().map(pod).collect() }
    }

    fn primary(pod: &str, successor: Option<&str>) -> Roles {
        Roles::Primary { pod: pod.to_owned(), successor: successor.map(str::to_owned) }
    }

    fn step_of(parts: &[Part], roles: &Roles) -> String {
        next_part(parts).map_or_else(|| "nothing".to_owned(), |next| step(parts, next, roles).to_string())
    }

    #[test]
    fn replicas_go_one_by_one_and_the_primary_last_by_a_switchover() {
        let mut all = vec![part(Component::DATABASE, &[true, true, true])];
        let roles = primary("database-1", Some("database-0"));
        assert_eq!(step_of(&all, &roles), "replacing database-0 of database");
        all[0].pods[0].ending = true;
        assert_eq!(step_of(&all, &roles), "waiting for database: database-0 is not ready");
        all[0].pods.remove(0);
        assert_eq!(step_of(&all, &roles), "waiting for database: 2 of 3 pods are there");
        all[0] = part(Component::DATABASE, &[false, true, true]);
        assert_eq!(step_of(&all, &roles), "replacing database-2 of database");
        all[0] = part(Component::DATABASE, &[false, true, false]);
        assert_eq!(step_of(&all, &roles), "database: handing over from database-1 to database-0");
        assert_eq!(step_of(&all, &primary("database-0", Some("database-2"))), "replacing database-1 of database");
        assert_eq!(step_of(&all, &Roles::Unsettled("lags".into())), "waiting for database: lags");
        assert_eq!(step_of(&[part(Component::DATABASE, &[false])], &roles), "nothing");
        assert_eq!(
            step_of(&[part(Component::DATABASE, &[true])], &primary("database-0", None)),
            "replacing database-0 of database"
        );
    }

    #[test]
    fn a_pod_that_does_not_start_is_replaced_first_whatever_else_waits() {
        let mut all = vec![part(Component::CACHE, &[true, true]), part(Component::SESSIONS, &[true, false])];
        all[1].pods[0].ready = false;
        let roles = Roles::Unsettled("a shard has no master".into());
        assert_eq!(step_of(&all, &roles), "replacing sessions-0 of sessions");
        all[1].pods[0].outdated = false;
        assert_eq!(step_of(&all, &roles), "waiting for sessions: sessions-0 is not ready");
    }

    proptest! {
        #[test]
        fn one_pod_at_a_time_and_each_once(outdated in prop::collection::vec(prop::collection::vec(any::<bool>(), 1..5), 3)) {
            let components = [Component::CACHE, Component::SESSIONS, Component::DATABASE];
            let mut parts: Vec<Part> = components.into_iter().zip(&outdated).map(|(component, pods)| part(component, pods)).collect();
            let mut leader = "database-0".to_owned();
            let mut replaced = BTreeSet::new();
            while let Some(next) = next_part(&parts) {
                let roles = match next.component {
                    Component::DATABASE => {
                        let successor = next.pods.iter().find(|pod| pod.name != leader && !pod.outdated);
                        Roles::Primary { pod: leader.clone(), successor: successor.map(|pod| pod.name.clone()) }
                    }
                    _ => Roles::Leaders(vec![format!("{}-0", next.component)]),
                };
                match step(&parts, next, &roles) {
                    Step::Replace { component, pod, .. } => {
                        prop_assert!(component != Component::DATABASE || pod != leader || next.pods.len() == 1);
                        prop_assert!(replaced.insert(pod.clone()), "{} was replaced twice", pod);
                        let part = parts.iter_mut().find(|part| part.component == component).unwrap();
                        part.pods.iter_mut().find(|one| one.name == pod).unwrap().outdated = false;
                    }
                    Step::HandOver { to, .. } => leader = to,
                    step @ Step::Await { .. } => prop_assert!(false, "{}", step),
                }
            }
            prop_assert_eq!(replaced.len(), outdated.iter().flatten().filter(|outdated| **outdated).count());
        }
    }
}
