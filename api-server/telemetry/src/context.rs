//! The request that the running code works for: its id, for answers and log lines, and the trace that it belongs to.

use std::{
    any::Any,
    sync::{
        Arc, LazyLock, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::{HeaderMap, HeaderValue};
use tokio::task_local;

/// The header that carries a request's id, both ways.
pub const REQUEST_ID: &str = "x-request-id";
const TRACEPARENT: &str = "traceparent";

task_local! {
    static CURRENT: RequestContext;
}

/// What identifies a request.
#[derive(Clone, Debug)]
pub struct RequestContext {
    request_id: HeaderValue,
    traceparent: Option<HeaderValue>,
    work: Arc<Work>,
}

/// What goes on for a request, in whichever task.
#[derive(Debug, Default)]
struct Work {
    user: OnceLock<i64>,
    /// What lives until all of it has ended.
    held: Mutex<Vec<Box<dyn Any + Send>>>,
}

impl RequestContext {
    /// The id that the caller sent, if it looks like one, else a new one.
    pub fn of(headers: &HeaderMap) -> Self {
        let request_id = headers.get(REQUEST_ID).filter(|id| is_plain(id.as_bytes(), 128)).cloned();
        Self {
            request_id: request_id.unwrap_or_else(new_id),
            traceparent: headers.get(TRACEPARENT).filter(|parent| is_traceparent(parent.as_bytes())).cloned(),
            work: Arc::default(),
        }
    }

    /// The request's id.
    pub fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    /// Runs `work` for this request.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }

    /// Has `work`, which will run in a task of its own, be for the request at hand, if there is one.
    pub fn carried_into<F: Future>(work: F) -> impl Future<Output = F::Output> {
        let current = CURRENT.try_with(Clone::clone).ok();
        async move {
            match current {
                Some(current) => current.scope(work).await,
                None => work.await,
            }
        }
    }

    /// Runs `work`, which waits for nothing, for this request.
    #[cfg(test)]
    pub(crate) fn sync_scope<T>(self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, work)
    }
}

impl Work {
    fn held(&self) -> std::sync::MutexGuard<'_, Vec<Box<dyn Any + Send>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The id of the request at hand, if there is one.
pub fn request_id() -> Option<HeaderValue> {
    CURRENT.try_with(|current| current.request_id.clone()).ok()
}

/// The W3C `traceparent` that came with the request at hand, if one did.
pub fn traceparent() -> Option<HeaderValue> {
    CURRENT.try_with(|current| current.traceparent.clone()).ok().flatten()
}

/// Says whose request is at hand.
pub fn is_of(user_id: i64) {
    // Known already: the same one.
    let _ = CURRENT.try_with(|current| current.work.user.set(user_id));
}

/// Whose request is at hand, if that is known.
pub fn user() -> Option<i64> {
    CURRENT.try_with(|current| current.work.user.get().copied()).ok().flatten()
}

/// Keeps something, such as a permit, until all that goes on for the request at hand has ended.
pub fn keep(held: impl Any + Send) {
    let _ = CURRENT.try_with(|current| current.work.held().push(Box::new(held)));
}

/// The answer to the request at hand is there: it needs nothing else any more.
pub fn release() {
    let _ = CURRENT.try_with(|current| current.work.held().clear());
}

/// A new id: what it begins with is this process's alone, and the rest counts.
fn new_id() -> HeaderValue {
    static PREFIX: LazyLock<u64> = LazyLock::new(|| getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id())));
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut id = [0; 32];
    write_hex(&mut id[..16], *PREFIX);
    write_hex(&mut id[16..], COUNTER.fetch_add(1, Relaxed));
    HeaderValue::from_bytes(&id).unwrap_or(HeaderValue::from_static("-"))
}

/// Writes the digits of `number` that `text` has room for.
fn write_hex(text: &mut [u8], mut number: u64) {
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// Short, and of characters that can do no harm in a log.
fn is_plain(text: &[u8], most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte))
}

/// `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`, of which neither id is zero.
fn is_traceparent(text: &[u8]) -> bool {
    let mut parts = text.split(|byte| *byte == b'-');
    let mut part = |length| {
        parts.next().is_some_and(|part| {
            part.len() == length && part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    part(2)
        && part(32)
        && part(16)
        && part(2)
        && text.len() == 55
        && text[..2] != *b"ff"
        && text[3..35] != [b'0'; 32]
        && text[36..52] != [b'0'; 16]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn an_id_is_kept_if_it_looks_like_one() {
        let id = |value: &str| RequestContext::of(&headers(REQUEST_ID, value)).request_id;
        assert_eq!(id("abc-123"), "abc-123");
        for odd in ["", "not {an} id", &"a".repeat(129)] {
            assert_eq!(id(odd).len(), 32, "{odd}");
        }
    }

    #[test]
    fn new_ids_differ() {
        let ids: std::collections::HashSet<_> = (0..100).map(|_| new_id()).collect();
        assert_eq!(ids.len(), 100);
        assert!(ids.iter().all(|id| id.len() == 32 && id.as_bytes().iter().all(u8::is_ascii_hexdigit)));
    }

    #[test]
    fn only_a_whole_traceparent_is_one() {
        let read = |value: &str| RequestContext::of(&headers(TRACEPARENT, value)).traceparent;
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(read(good).unwrap(), good);
        for bad in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn it_is_known_inside_only() {
        let inside = RequestContext::of(&headers(REQUEST_ID, "abc")).scope(async { request_id() }).await;
        assert_eq!(inside.unwrap(), "abc");
        assert_eq!(request_id(), None);
    }
}
