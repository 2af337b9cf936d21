//! Sessions in the process.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    auth::session::{Session, Token, WROTE_TTL},
    store::Mark,
};

/// How many entries there may be before those that ended are looked for.
const SWEEP_AT: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Local(Mutex<Tables>);

#[derive(Debug, Default)]
struct Tables {
    /// Digest to end.
    sessions: HashMap<String, Instant>,
    /// User to last write and when to forget it.
    wrote: HashMap<i64, (Mark, Instant)>,
    sweep_at: usize,
}

impl Local {
    pub(super) fn begin(&self, token: &Token, ttl: Duration) {
        let mut tables = self.tables();
        tables.sweep();
        tables.sessions.insert(key(token), Instant::now() + ttl);
    }

    pub(super) fn find(&self, token: &Token) -> Option<Session> {
        let tables = self.tables();
        let now = Instant::now();
        tables.sessions.get(&key(token)).filter(|end| **end > now)?;
        let wrote = tables.wrote.get(&token.user_id()).filter(|(_, end)| *end > now).map(|(mark, _)| *mark);
        Some(Session { wrote })
    }

    pub(super) fn end(&self, token: &Token) {
        self.tables().sessions.remove(&key(token));
    }

    pub(super) fn remember(&self, user_id: i64, mark: Mark) {
        let mut tables = self.tables();
        let entry = tables.wrote.entry(user_id).or_insert((mark, Instant::now()));
        *entry = (entry.0.max(mark), Instant::now() + WROTE_TTL);
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // No code that holds the lock leaves a table half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
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

fn key(token: &Token) -> String {
    format!("{}:{}", token.user_id(), token.digest())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lives_until_it_ends() {
        let local = Local::default();
        let token = Token::new(1).unwrap();
        assert_eq!(local.find(&token), None);
        local.begin(&token, Duration::from_mins(1));
        assert_eq!(local.find(&token), Some(Session::default()));
        assert_eq!(local.find(&Token { user_id: 2, ..token.clone() }), None, "the same secret under another user");
        local.end(&token);
        assert_eq!(local.find(&token), None);
        local.begin(&token, Duration::ZERO);
        assert_eq!(local.find(&token), None, "its time is over");
    }

    #[test]
    fn the_latest_write_counts() {
        let local = Local::default();
        let token = Token::new(1).unwrap();
        local.begin(&token, Duration::from_mins(1));
        local.remember(1, Mark(7));
        local.remember(1, Mark(5));
        assert_eq!(local.find(&token).unwrap().wrote, Some(Mark(7)));
    }

    #[test]
    fn ended_sessions_take_no_room() {
        let local = Local::default();
        for _ in 0..3 * SWEEP_AT {
            local.begin(&Token::new(1).unwrap(), Duration::ZERO);
        }
        assert!(local.tables().sessions.len() <= SWEEP_AT);
    }
}
