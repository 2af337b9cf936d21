//! Pods of stateful parts that are to go: one of the platform at a time, whatever the part, and whatever the reason. Those of a former
//! template are replaced while everything is whole, each a full copy again before the next; those that somebody wants to evict, as a drain
//! of their node does, go as soon as what is left serves.

#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use taskplatform_blueprint::Component;

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
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) uid: String,
    /// It is of a former template.
    pub(crate) outdated: bool,
    /// Somebody has asked to evict it.
    pub(crate) evicted: bool,
    pub(crate) state: State,
}

/// How far a pod is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Starting,
    Ready,
    /// No node takes it, such as that of its volume while it is drained.
    Stranded,
    /// It is about to go.
    Ending,
}

/// What a part's pods are to each other, asked when one of them is about to go.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Roles {
    /// Who leads, each with those that could take over from it.
    pub(crate) groups: Vec<Group>,
    /// How a leader goes.
    pub(crate) succession: Succession,
    /// How many have to be left that could take over, for a group to serve.
    pub(crate) least_heirs: usize,
    /// Why not everything is served now.
    pub(crate) unserved: Option<String>,
    /// Why not everything is whole now.
    pub(crate) unsettled: Option<String>,
    /// Who is about to become one that writes wait for: whoever takes over before would have them wait for who leads now alone.
    pub(crate) joining: Option<String>,
}

/// A pod that leads, and those that could take over from it: the best first.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group {
    pub(crate) leader: String,
    pub(crate) heirs: Vec<String>,
}

/// How a leader goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Succession {
    /// It hands over by itself when it is told to stop.
    #[default]
    ByItself,
    /// It is made to hand over before.
    Before,
}

/// Why a pod is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its template is a former one.
    Template,
    /// Somebody has asked to evict it.
    Eviction,
    /// Somebody wants another one to lead.
    Switchover,
    /// It was deleted, and stops as soon as another one leads.
    Deletion,
}

impl Cause {
    /// The name of the procedure in the status.
    pub(crate) const fn procedure(self) -> &'static str {
        match self {
            Self::Template => "Rollout",
            Self::Eviction => "Eviction",
            Self::Switchover => "Switchover",
            Self::Deletion => "Deletion",
        }
    }
}

/// The step that a rollout is at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) cause: Cause,
    pub(crate) component: Component,
    pub(crate) act: Act,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Act {
    /// Wait until a part is as it should be.
    Await { why: String },
    /// Delete a pod: its StatefulSet makes another.
    Replace { pod: String, uid: String },
    /// Have another pod lead, so that this one can go.
    HandOver { from: String, to: String },
    /// Try again soon what did not go.
    Retry { why: String },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let component = self.component;
        match &self.act {
            Act::Await { why } => write!(f, "waiting for {component}: {why}"),
            Act::Replace { pod, .. } => write!(f, "replacing {pod} of {component}"),
            Act::HandOver { from, to } => write!(f, "{component}: handing over from {from} to {to}"),
            Act::Retry { why } => write!(f, "{component}: {why}"),
        }
    }
}

impl Pod {
    /// Whether it is there and stays, as far as is known.
    fn stays(&self) -> bool {
        self.state == State::Ready && !self.evicted
    }

    fn leaves(&self, cause: Cause) -> bool {
        self.state != State::Ending
            && match cause {
                Cause::Template => self.outdated,
                Cause::Eviction => self.evicted,
                Cause::Switchover | Cause::Deletion => false,
            }
    }
}

impl Part {
    fn leaving(&self, cause: Cause) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(move |pod| pod.leaves(cause))
    }

    fn has_one_that_stays(&self, name: &str) -> bool {
        self.pods.iter().any(|pod| pod.name == name && pod.stays())
    }
}

/// A part with a pod that is to go, and why.
pub(crate) type Candidate<'a> = (Cause, &'a Part);

/// The wish that another pod of a part leads.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wish {
    pub(crate) component: Component,
    /// Which one; left out, the best.
    pub(crate) to: Option<String>,
}

/// The parts one of which the next pod is of. One that leads and stops does not wait for long: that comes first. Who drains a node waits for it:
/// that is next, whichever part can do it. Templates change part by part, and go on beside a wish that cannot be fulfilled.
pub(crate) fn candidates<'a>(parts: &'a [Part], wish: Option<&Wish>) -> Vec<Candidate<'a>> {
    let leaving = |cause| parts.iter().filter(move |part| part.leaving(cause).next().is_some());
    let stopping = parts.iter().filter(|part| part.pods.iter().any(|pod| pod.state == State::Ending));
    let stopping = stopping.map(|part| (Cause::Deletion, part));
    let evicted: Vec<Candidate<'_>> = leaving(Cause::Eviction).map(|part| (Cause::Eviction, part)).collect();
    if !evicted.is_empty() {
        return stopping.chain(evicted).collect();
    }
    let wished = wish.and_then(|wish| parts.iter().find(|part| part.component == wish.component));
    let outdated = leaving(Cause::Template).next().map(|part| (Cause::Template, part));
    stopping.chain(wished.map(|part| (Cause::Switchover, part))).chain(outdated).collect()
}

/// The step: the first candidate's that has not to wait.
pub(crate) fn step(parts: &[Part], candidates: &[(Candidate<'_>, Roles)], wish: Option<&Wish>) -> Option<Step> {
    let steps: Vec<Step> = candidates
        .iter()
        .filter_map(|((cause, part), roles)| match cause {
            Cause::Template => Some(replacement(parts, part, roles)),
            Cause::Eviction => Some(eviction(parts, part, roles)),
            Cause::Switchover => Some(switchover(part, roles, wish.and_then(|wish| wish.to.as_deref()))),
            Cause::Deletion => succession(part, roles),
        })
        .collect();
    let acts = steps.iter().find(|step| !matches!(step.act, Act::Await { .. })).cloned();
    acts.or_else(|| steps.into_iter().next())
}

/// Nothing of a platform is replaced while any of its stateful pods is away, but for the one that is away itself: a template that does not
/// start is mended so.
fn replacement(parts: &[Part], next: &Part, roles: &Roles) -> Step {
    let step = |component, act| Step { cause: Cause::Template, component, act };
    let broken = parts.iter().flat_map(|part| part.pods.iter().map(move |pod| (part.component, pod)));
    let mut broken = broken.filter(|(_, pod)| matches!(pod.state, State::Starting | State::Stranded));
    if let Some((component, pod)) = broken.find(|(_, pod)| pod.outdated) {
        return step(component, replace(pod));
    }
    if let Some((component, why)) = parts.iter().find_map(|part| Some((part.component, away(part)?))) {
        return step(component, Act::Await { why });
    }
    if let Some(why) = roles.unserved.as_ref().or(roles.unsettled.as_ref()) {
        return step(next.component, Act::Await { why: why.clone() });
    }
    let outdated: Vec<&Pod> = next.leaving(Cause::Template).collect();
    // Those that lead are the last.
    let act = match (outdated.iter().find(|pod| roles.group_of(pod).is_none()), outdated.first()) {
        (Some(pod), _) => replace(pod),
        (None, Some(leader)) => {
            match (roles.succession, roles.group_of(leader).and_then(|group| group.heirs.first())) {
                (Succession::Before, Some(heir)) => hand_over(leader, heir),
                _ => replace(leader),
            }
        }
        (None, None) => Act::Await { why: "its pods are not known yet".to_owned() },
    };
    step(next.component, act)
}

/// A pod may go as soon as what is left of its part serves, though others may be away that no node takes: a node whose volumes cannot move
/// is emptied, too.
fn eviction(parts: &[Part], next: &Part, roles: &Roles) -> Step {
    let step = |component, act| Step { cause: Cause::Eviction, component, act };
    if let Some((component, why)) = parts.iter().find_map(|part| Some((part.component, away_for_now(part)?))) {
        return step(component, Act::Await { why });
    }
    if let Some(why) = &roles.unserved {
        return step(next.component, Act::Await { why: why.clone() });
    }
    let (leaders, others): (Vec<&Pod>, Vec<&Pod>) =
        next.leaving(Cause::Eviction).partition(|pod| roles.group_of(pod).is_some());
    let mut held = String::new();
    for pod in others.into_iter().chain(leaders) {
        match leave(next, pod, roles) {
            Ok(act) => return step(next.component, act),
            Err(why) => held = why,
        }
    }
    step(next.component, Act::Await { why: held })
}

/// Another one leads before the one that was deleted stops, where it does not hand over by itself.
fn succession(part: &Part, roles: &Roles) -> Option<Step> {
    let mut stopping = part.pods.iter().filter(|pod| pod.state == State::Ending);
    let (leader, group) = stopping.find_map(|pod| Some((pod, roles.group_of(pod)?)))?;
    let heir = group.heirs.iter().find(|heir| part.has_one_that_stays(heir))?;
    let act = hand_over(leader, heir);
    (roles.succession == Succession::Before).then_some(Step { cause: Cause::Deletion, component: part.component, act })
}

/// Another one leads, though nobody goes. Who leads already is asked to hand over to itself, which is nothing.
fn switchover(part: &Part, roles: &Roles, to: Option<&str>) -> Step {
    let act = match (roles.unserved.as_ref().or(roles.joining.as_ref()), roles.groups.first()) {
        (Some(why), _) => Act::Await { why: why.clone() },
        (None, None) => Act::Await { why: "nobody leads".to_owned() },
        (None, Some(Group { leader, heirs })) => {
            let stays = |heir: &&String| part.has_one_that_stays(heir) && to.is_none_or(|to| to == *heir);
            let heir = if to == Some(leader) { Some(leader) } else { heirs.iter().find(stays) };
            match (heir, to) {
                (Some(heir), _) => Act::HandOver { from: leader.clone(), to: heir.clone() },
                (None, Some(to)) => Act::Await { why: format!("{to} is none that could take over") },
                (None, None) => Act::Await { why: format!("nobody could take over from {leader}") },
            }
        }
    };
    Step { cause: Cause::Switchover, component: part.component, act }
}

/// How a pod may go, or what keeps it.
fn leave(part: &Part, pod: &Pod, roles: &Roles) -> Result<Act, String> {
    let Some(group) = roles.group_of(pod) else {
        let followed = roles.groups.iter().find(|group| group.heirs.contains(&pod.name));
        let others = followed.map(|group| group.heirs.iter().filter(|heir| **heir != pod.name).count());
        return match others {
            Some(others) if others < roles.least_heirs => {
                Err(format!("{} stays, since commits wait for a replica and there is no other", pod.name))
            }
            _ => Ok(replace(pod)),
        };
    };
    // One of which no copies are wanted is away until it is back, whoever evicts it.
    if part.wanted <= roles.groups.len() {
        return Ok(replace(pod));
    }
    match (group.heirs.iter().find(|heir| part.has_one_that_stays(heir)), roles.succession) {
        (Some(heir), Succession::Before) => roles.joining.clone().map_or_else(|| Ok(hand_over(pod, heir)), Err),
        (Some(_), Succession::ByItself) => Ok(replace(pod)),
        (None, _) => Err(format!("{} stays, since nobody is there who could take over from it", pod.name)),
    }
}

impl Roles {
    /// Nothing may go, and why not.
    pub(crate) fn unserved(why: String) -> Self {
        Self { unserved: Some(why), ..Self::default() }
    }

    /// The group that a pod leads.
    fn group_of(&self, pod: &Pod) -> Option<&Group> {
        self.groups.iter().find(|group| group.leader == pod.name)
    }
}

fn replace(pod: &Pod) -> Act {
    Act::Replace { pod: pod.name.clone(), uid: pod.uid.clone() }
}

fn hand_over(from: &Pod, to: &str) -> Act {
    Act::HandOver { from: from.name.clone(), to: to.to_owned() }
}

/// Why a part is not whole.
fn away(part: &Part) -> Option<String> {
    let is_away = |pod: &&Pod| pod.state != State::Ready;
    why_away(part, part.pods.iter().find(is_away))
}

/// The same, but for those that nobody can wait for.
fn away_for_now(part: &Part) -> Option<String> {
    let is_awaited = |pod: &&Pod| matches!(pod.state, State::Starting | State::Ending);
    why_away(part, part.pods.iter().find(is_awaited))
}

fn why_away(part: &Part, away: Option<&Pod>) -> Option<String> {
    let (there, wanted) = (part.pods.len(), part.wanted);
    match away {
        Some(pod) => {
            let how = if pod.state == State::Stranded { "taken by no node" } else { "not ready" };
            Some(format!("{} is {how}", pod.name))
        }
        None => (there < wanted).then(|| format!("{there} of {wanted} pods are there")),
    }
}
