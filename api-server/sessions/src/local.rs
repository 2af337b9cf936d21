//! Sessions in the process.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use task_api_domain::{mark::Mark, session::Digest};

use crate::{Session, WROTE_TTL};

/// How many entries there may be before those that ended are looked for.
const SWEEP_AT: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Local(Mutex<Tables>);

#[derive(Debug, Default)]
struct Tables {
    /// When which ends.
    sessions: HashMap<Digest, Instant>,
    /// User to last write and when to forget it.
    wrote: HashMap<i64, (Mark, Instant)>,
    sweep_at: usize,
}

impl Local {
    pub(super) fn begin(&self, session: Digest, ttl: Duration) {
        let mut tables = self.tables();
        tables.sweep();
        tables.sessions.insert(session, Instant::now() + ttl);
    }

    pub(super) fn find(&self, session: Digest) -> Option<Session> {
        let tables = self.tables();
        let now = Instant::now();
        tables.sessions.get(&session).filter(|end| **end > now)?;
        Some(Session { wrote: tables.wrote(session.user_id, now) })
    }

    pub(super) fn end(&self, session: Digest) {
        self.tables().sessions.remove(&session);
    }

    pub(super) fn end_all(&self, user_id: i64) {
        self.tables().sessions.retain(|session, _| session.user_id != user_id);
    }

    pub(super) fn remember(&self, user_id: i64, mark: Mark) {
        let mut tables = self.tables();
        let entry = tables.wrote.entry(user_id).or_insert((mark, Instant::now()));
        *entry = (entry.0.max(mark), Instant::now() + WROTE_TTL);
    }

    pub(super) fn wrote(&self, user_id: i64) -> Option<Mark> {
        self.tables().wrote(user_id, Instant::now())
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // No code that holds the lock leaves a table half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn wrote(&self, user_id: i64, now: Instant) -> Option<Mark> {
        self.wrote.get(&user_id).filter(|(_, end)| *end > now).map(|(mark, _)| *mark)
    }

    fn sweep(&mut self) {
        if self.sessions.len() < self.sweep_at.max(SWEEP_AT) {
            return;
        }
        let now = Instant::now();
        self.sessions.retain(|_, end| *end > now);
        self.wrote.retain(|_, (_, end)| *end > now);
        self.sweep_at = self.sessions.len() * 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Token;

    #[test]
    fn a_session_lives_until_it_ends() {
        let local = Local::default();
        let session = Token::new(1).unwrap().digest();
        assert_eq!(local.find(session), None);
        local.begin(session, Duration::from_mins(1));
        assert_eq!(local.find(session), Some(Session::default()));
        assert_eq!(local.find(Digest { user_id: 2, ..session }), None, "the same secret under another user");
        local.end(session);
        assert_eq!(local.find(session), None);
        local.begin(session, Duration::ZERO);
        assert_eq!(local.find(session), None, "its time is over");
    }

    #[test]
    fn the_latest_write_counts() {
        let local = Local::default();
        let session = Token::new(1).unwrap().digest();
        local.begin(session, Duration::from_mins(1));
        local.remember(1, Mark(7));
        local.remember(1, Mark(5));
        assert_eq!(local.find(session).unwrap().wrote, Some(Mark(7)));
    }

    #[test]
    fn ended_sessions_take_no_room() {
        let local = Local::default();
        for _ in 0..3 * SWEEP_AT {
            local.begin(Token::new(1).unwrap().digest(), Duration::ZERO);
        }
        assert!(local.tables().sessions.len() <= SWEEP_AT);
    }
}
