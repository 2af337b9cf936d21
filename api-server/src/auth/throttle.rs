//! How many wrong passwords are tried against one account, wherever they come from. The gateway bounds what one address tries; an attacker may
//! have many.
//!
//! Ten are free, and then there is one each half a minute. Nobody locks an account's owner out so: who has logged in to it from a browser before
//! brings a cookie that says so, and what others try does not count for them. Each instance counts what it sees.

use std::{fmt, sync::Mutex};

use axum::http::HeaderMap;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};
use task_api_resilience::weighted_cache::WeightedCache;
use tokio::time::Instant;

use crate::{error::ApiError, http::cookies::cookie, problem::ANOTHER_TRY};

/// The cookie of a browser that has been logged in.
pub const COOKIE: &str = "DEVICE";
/// How long a browser is known, in seconds: a year.
pub const KNOWN_FOR: u64 = 31_536_000;

/// How many wrong passwords are free. Another one is [`ANOTHER_TRY`] later.
const FREE: u32 = 10;
/// The most bytes that the counts take, and one of them; the one that was used longest ago goes first.
const MEMORY: usize = 2 << 20;
const COUNT: usize = 128;

/// Changes with the layout of the cookie.
const CONTEXT: &[u8] = b"device of an account 1";
const NONCE: usize = 16;
const TAG: usize = 16;

/// See the module.
pub struct Throttle {
    mac: Hmac<Sha256>,
    counts: WeightedCache<Who, Mutex<Instant>>,
}

/// Whose wrong passwords are counted together: for an account, those of a browser that was logged in to it, or those of all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Who([u8; 16]);

impl fmt::Debug for Throttle {
    // Holds a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").finish_non_exhaustive()
    }
}

impl Throttle {
    /// Signs cookies with `key`, which every instance shares.
    pub fn new(key: &[u8]) -> Self {
        let key: [u8; 32] = Sha256::digest(key).into();
        let mut padded = [0; 64];
        padded[..32].copy_from_slice(&key);
        let mut mac = Hmac::<Sha256>::new(&padded.into());
        mac.update(CONTEXT);
        Self { mac, counts: WeightedCache::new(MEMORY, |_| true) }
    }

    /// Who tries to log in to the account with this e-mail (see [`task_api_domain::user::Email::key`]).
    pub fn who(&self, email_key: &str, headers: &HeaderMap) -> Who {
        let nonce = cookie(headers, COOKIE).and_then(|cookie| self.open(email_key, cookie));
        let mut hash = Sha256::new_with_prefix(email_key);
        hash.update(nonce.unwrap_or_default());
        let hash: [u8; 32] = hash.finalize().into();
        let mut who = [0; 16];
        who.copy_from_slice(&hash[..16]);
        Who(who)
    }

    /// Counts a try, which is wrong until it is [right](Self::right). Refuses one too many.
    pub fn tries(&self, who: Who) -> Result<(), ApiError> {
        let now = Instant::now();
        let take = |counted: &Mutex<Instant>| {
            let mut counted = counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if counted.saturating_duration_since(now) > ANOTHER_TRY * (FREE - 1) {
                return Err(ApiError::TooManyTries);
            }
            *counted = (*counted).max(now) + ANOTHER_TRY;
            Ok(())
        };
        self.counts.get_or_insert(who, COUNT, || Mutex::new(now), take)
    }

    /// The try came to nothing, neither right nor wrong: it does not count.
    pub fn not_tried(&self, who: Who) {
        self.counts.get(who, |counted| {
            let mut counted = counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *counted = counted.checked_sub(ANOTHER_TRY).unwrap_or(*counted);
        });
    }

    /// The password was right: whoever has it need not wait.
    pub fn right(&self, who: Who) {
        self.counts.remove(who);
    }

    /// A cookie for a browser that is logged in to the account with this e-mail; none without a source of randomness.
    pub fn cookie(&self, email_key: &str) -> Option<String> {
        let mut bytes = [0; NONCE + TAG];
        getrandom::fill(&mut bytes[..NONCE]).ok()?;
        let tag = self.tag(email_key, &bytes[..NONCE]).finalize().into_bytes();
        bytes[NONCE..].copy_from_slice(&tag[..TAG]);
        Some(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What tells a browser from others, if it has been logged in to this account.
    fn open(&self, email_key: &str, cookie: &str) -> Option<[u8; NONCE]> {
        let bytes: [u8; NONCE + TAG] = URL_SAFE_NO_PAD.decode(cookie).ok()?.try_into().ok()?;
        let (nonce, tag) = bytes.split_at(NONCE);
        self.tag(email_key, nonce).verify_truncated_left(tag).ok()?;
        nonce.try_into().ok()
    }

    fn tag(&self, email_key: &str, nonce: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(nonce);
        mac.update(email_key.as_bytes());
        mac
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn with_cookie(cookie: &str) -> HeaderMap {
        HeaderMap::from_iter([(axum::http::header::COOKIE, format!("{COOKIE}={cookie}").parse().unwrap())])
    }

    #[tokio::test(start_paused = true)]
    async fn ten_are_free_and_then_one_each_half_a_minute() {
        let throttle = Throttle::new(b"key");
        let who = throttle.who("me@example.com", &HeaderMap::new());
        for _ in 0..FREE {
            throttle.tries(who).unwrap();
        }
        assert!(throttle.tries(who).is_err());
        assert!(throttle.tries(throttle.who("you@example.com", &HeaderMap::new())).is_ok(), "another account");
        advance(ANOTHER_TRY).await;
        throttle.tries(who).unwrap();
        assert!(throttle.tries(who).is_err());
        advance(ANOTHER_TRY).await;
        throttle.tries(who).unwrap();
        throttle.right(who);
        assert!(throttle.tries(who).is_ok(), "whoever has the password does not wait");
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_to_nothing_does_not_count() {
        let throttle = Throttle::new(b"key");
        let who = throttle.who("me@example.com", &HeaderMap::new());
        for _ in 0..5 * FREE {
            throttle.tries(who).unwrap();
            throttle.not_tried(who);
        }
        for _ in 0..FREE {
            throttle.tries(who).unwrap();
        }
        assert!(throttle.tries(who).is_err());
    }

    #[tokio::test]
    async fn who_was_there_before_does_not_suffer_from_others() {
        let (throttle, other) = (Throttle::new(b"key"), Throttle::new(b"other"));
        let strangers = throttle.who("me@example.com", &HeaderMap::new());
        while throttle.tries(strangers).is_ok() {}
        let known = throttle.who("me@example.com", &with_cookie(&throttle.cookie("me@example.com").unwrap()));
        assert!(known != strangers && throttle.tries(known).is_ok());
        for made_up in [
            throttle.cookie("you@example.com").unwrap(),
            other.cookie("me@example.com").unwrap(),
            URL_SAFE_NO_PAD.encode([7; NONCE + TAG]),
            "x".to_owned(),
        ] {
            assert_eq!(throttle.who("me@example.com", &with_cookie(&made_up)), strangers, "{made_up}");
        }
        while throttle.tries(known).is_ok() {}
        let another = throttle.who("me@example.com", &with_cookie(&throttle.cookie("me@example.com").unwrap()));
        assert!(throttle.tries(another).is_ok(), "each browser for itself");
    }
}
