//! The place of one user's view, and what is known about it while there is none.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use task_api_domain::mark::Mark;

use super::view::View;
/// See [`super`].
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Held by whoever loads the view, and by whoever writes from before the store is asked until the view has changed.
    pub(super) gate: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    content: Content,
    /// The last write that is known of: what is loaded must show it.
    least: Option<Mark>,
    /// How often writes became known that a load on its way may have missed.
    surprises: u64,
    /// How often everything was forgotten that a load on its way may have found.
    resets: u64,
}

#[derive(Debug, Default)]
enum Content {
    #[default]
    Nothing,
    View(Box<Viewed>),
    /// Nothing, and nothing shall be loaded for now.
    Off {
        until: Instant,
    },
}

#[derive(Debug)]
struct Viewed {
    view: View,
    /// It shows every write up to this one, and perhaps later ones.
    shows: Mark,
    until: Instant,
}

/// What can be had from a slot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<R> {
    /// An answer.
    Answer(R),
    /// A view has to be loaded first.
    Nothing,
    /// The store has to be asked.
    Off,
}

/// What a load has to know when it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// What must be shown.
    pub(super) least: Option<Mark>,
    surprises: u64,
    resets: u64,
}

impl Slot {
    /// What `read` makes of the view.
    pub(super) fn read<R>(&self, read: impl FnOnce(&mut View) -> R) -> Found<R> {
        let mut state = self.state();
        match &mut state.content {
            Content::View(viewed) if viewed.until > Instant::now() => Found::Answer(read(&mut viewed.view)),
            Content::Off { until } if *until > Instant::now() => Found::Off,
            Content::Nothing | Content::View(_) | Content::Off { .. } => Found::Nothing,
        }
    }

    /// Whether the store has to be asked, and no view is to be made.
    pub(super) fn is_off(&self) -> bool {
        matches!(self.state().content, Content::Off { until } if until > Instant::now())
    }

    /// What it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        let view = match &self.state().content {
            Content::View(viewed) => viewed.view.bytes(),
            Content::Nothing | Content::Off { .. } => 0,
        };
        EMPTY_BYTES + view
    }

    /// The last write that is known of.
    pub(super) fn least(&self) -> Option<Mark> {
        self.state().least
    }

    /// Begins a load. The caller holds the gate.
    pub(super) fn begin_load(&self) -> Load {
        let state = self.state();
        Load { least: state.least, surprises: state.surprises, resets: state.resets }
    }

    /// Takes in what was loaded, unless it may lack a write that became known meanwhile.
    pub(super) fn end_load(&self, load: Load, view: View, shows: Mark, ttl: Duration) -> bool {
        let mut state = self.state();
        let complete = state.surprises == load.surprises || state.least.is_none_or(|least| least <= shows);
        let complete = complete && state.resets == load.resets;
        if complete {
            let until = Instant::now() + ttl;
            state.content = Content::View(Box::new(Viewed { view, shows, until }));
        }
        complete
    }

    /// Changes the view as the store was changed. The caller has held the gate since before that.
    pub(super) fn wrote<R>(&self, mark: Option<Mark>, change: impl FnOnce(&mut View) -> R) -> Option<R> {
        let mut state = self.state();
        state.least = state.least.max(mark);
        match &mut state.content {
            Content::View(viewed) => Some(change(&mut viewed.view)),
            Content::Nothing | Content::Off { .. } => None,
        }
    }

    /// What is loaded from now on must show this write.
    pub(super) fn known(&self, mark: Option<Mark>) {
        let mut state = self.state();
        state.least = state.least.max(mark);
    }

    /// A write happened somewhere else: what may lack it is dropped.
    pub(super) fn surprise(&self, mark: Mark) {
        let mut state = self.state();
        state.least = state.least.max(Some(mark));
        if let Content::View(viewed) = &state.content
            && viewed.shows >= mark
        {
            return;
        }
        state.surprises += 1;
        if matches!(state.content, Content::View(_)) {
            state.content = Content::Nothing;
        }
    }

    /// Drops the view, and what is being loaded: there may have been writes that never became known.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        state.resets += 1;
        state.content = Content::Nothing;
    }

    /// Drops the view, and has the store asked for some time.
    pub(super) fn turn_off(&self, time: Duration) {
        let mut state = self.state();
        state.resets += 1;
        state.content = Content::Off { until: Instant::now() + time };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a slot takes without a view.
pub(super) const EMPTY_BYTES: usize = 256;
