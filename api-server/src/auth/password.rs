//! Passwords: argon2id, a few at once.

use std::{sync::Arc, thread, time::Duration};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier},
};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a log-in waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// So many a core may wait: about as many as get their turn within two seconds where the cores have nothing else to do.
const WAITING_A_CORE: usize = 64;

/// The hash of no password: what is verified where there is no account, so that the answer takes as long as where there is one.
pub(crate) const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGF0IGFsbCEhIQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Why a password was not hashed.
#[derive(Debug, Error)]
pub enum PasswordError {
    /// Too many wait already, or for too long.
    #[error("no turn to hash a password within {} s", TURN_TIMEOUT.as_secs())]
    Busy,
    /// The hasher failed.
    #[error("hashing failed: {0}")]
    Broken(String),
}

/// Hashes and verifies passwords. Each takes some 30 ms of a core and 19 MiB: one at once for each core keeps a burst of log-ins
/// from taking the memory, and the cores are busy all the same.
#[derive(Debug)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    queue: Semaphore,
    most_waiting: usize,
}

impl Default for Passwords {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let most_waiting = WAITING_A_CORE * cores;
        Self { turns: Arc::new(Semaphore::new(cores)), queue: Semaphore::new(most_waiting), most_waiting }
    }
}

impl Passwords {
    /// A hash that tells its own parameters and salt.
    pub async fn hash(&self, password: String) -> Result<String, PasswordError> {
        self.run(move || Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string()))
            .await?
            .map_err(|error| PasswordError::Broken(error.to_string()))
    }

    /// Whether `hash` is of `password`. Without a hash it takes as long, and is false.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, PasswordError> {
        self.run(move || {
            let known = hash.is_some();
            let hash = hash.unwrap_or_else(|| NOBODY.to_owned());
            Argon2::default().verify_password(password.as_bytes(), hash.as_str()).is_ok() && known
        })
        .await
    }

    /// Whether a hash was made at another cost than is asked for now.
    pub fn is_outdated(hash: &str) -> bool {
        cost(hash).ne(cost(NOBODY))
    }

    /// How many log-ins wait for their turn.
    pub fn waiting(&self) -> usize {
        self.most_waiting - self.queue.available_permits()
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, PasswordError> {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            return Ok(turn);
        }
        let _queued = self.queue.try_acquire().map_err(|_| PasswordError::Busy)?;
        let turn = tokio::time::timeout(TURN_TIMEOUT, Arc::clone(&self.turns).acquire_owned());
        turn.await.map_err(|_| PasswordError::Busy)?.map_err(|_| PasswordError::Busy)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, PasswordError> {
        let turn = self.turn().await?;
        // The work goes on when the client hangs up; so does its turn.
        let worked = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        });
        worked.await.map_err(|error| PasswordError::Broken(error.to_string()))
    }
}

/// What a hash says of how it was made.
fn cost(hash: &str) -> impl Iterator<Item = &str> {
    hash.split('$').take(4)
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn verifies_what_it_hashed() {
        let passwords = Passwords::default();
        let hash = passwords.hash("correct horse".to_owned()).await.unwrap();
        assert!(passwords.verify("correct horse".to_owned(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("battery staple".to_owned(), Some(hash)).await.unwrap());
        assert!(!passwords.verify("correct horse".to_owned(), None).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_wait_and_the_rest_is_refused_at_once() {
        let passwords = Passwords::default();
        let mut turns = Vec::new();
        while passwords.turns.available_permits() > 0 {
            turns.push(passwords.turn().await.unwrap());
        }
        let mut waiting: Vec<_> = (0..passwords.most_waiting).map(|_| Box::pin(passwords.turn())).collect();
        for turn in &mut waiting {
            assert!(poll!(turn.as_mut()).is_pending());
        }
        assert_eq!(passwords.waiting(), passwords.most_waiting);
        assert!(matches!(poll!(Box::pin(passwords.turn())), Poll::Ready(Err(PasswordError::Busy))));
        turns.pop();
        assert!(waiting.remove(0).await.is_ok());
        drop(waiting);
        assert_eq!(passwords.waiting(), 0);
    }

    /// Or an attacker could tell by the clock which e-mails have an account.
    #[tokio::test]
    async fn nobody_costs_as_much_as_somebody() {
        let hash = Passwords::default().hash("correct horse".to_owned()).await.unwrap();
        assert!(!Passwords::is_outdated(&hash) && Passwords::is_outdated(&hash.replace("t=2", "t=1")));
        assert_eq!(hash.len(), NOBODY.len());
        assert_eq!(
            Argon2::default().verify_password(b"x", NOBODY),
            Err(argon2::password_hash::Error::PasswordInvalid),
            "it is hashed, not refused as malformed"
        );
    }
}
