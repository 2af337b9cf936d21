//! How much memory requests and their answers take at once, for all users together and for each. What takes little is not counted: of that,
//! the server bounds the number.

use std::{
    collections::HashMap,
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// What takes no more is not counted.
const SMALL: usize = 4 << 10;
/// What is counted in.
const UNIT: usize = 1 << 10;
/// A user may have no more under way than this part of what all may have, or one thing that is larger.
const SHARE: u32 = 4;
/// How long a request waits for others to end.
const PATIENCE: Duration = Duration::from_secs(1);
/// Where the container's limit stands, with cgroup v2 and v1.
const LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
/// What part of the container's limit requests may take, and how much where there is none.
const PART: usize = 4;
const UNLIMITED: usize = 256 << 20;

/// The memory of requests and answers.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Shares>);

#[derive(Debug)]
struct Shares {
    free: Arc<Semaphore>,
    /// How many units there are.
    size: u32,
    /// What is free of each user's share, of those who have something under way.
    users: Mutex<HashMap<i64, Arc<Semaphore>>>,
}

/// Why a request gets none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Others have it all.
    All,
    /// The user has as much as one may.
    User,
}

/// Memory that is counted as long as this lives.
#[derive(Debug, Default)]
pub struct Held {
    permit: Option<OwnedSemaphorePermit>,
    share: Option<Share>,
}

/// A part of a user's share.
#[derive(Debug)]
struct Share {
    shares: Arc<Shares>,
    user: i64,
    permit: Option<OwnedSemaphorePermit>,
}

impl Memory {
    /// So many bytes; by the container's limit without.
    pub fn new(bytes: Option<usize>) -> Self {
        let bytes = bytes.unwrap_or_else(|| container_limit().map_or(UNLIMITED, |limit| (limit / PART).min(UNLIMITED)));
        let size = units(bytes).clamp(SHARE, u32::MAX / 2);
        Self(Arc::new(Shares { free: semaphore(size), size, users: Mutex::default() }))
    }

    /// Waits a moment for so many bytes: first for those of the user, if one asks, to be free of that user's share.
    pub async fn hold(&self, user: Option<i64>, bytes: usize) -> Result<Held, Full> {
        if bytes <= SMALL {
            return Ok(Held::default());
        }
        let units = units(bytes);
        let share = match user {
            Some(user) => Some(Share::of(&self.0, user, units).await?),
            None => None,
        };
        let permit = take(&self.0.free, units, self.0.size).await.ok_or(Full::All)?;
        Ok(Held { permit: Some(permit), share })
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        (usize::try_from(self.0.size).unwrap_or(usize::MAX) - self.0.free.available_permits()) * UNIT
    }
}

impl Held {
    /// Whether anything is counted.
    pub fn is_empty(&self) -> bool {
        self.permit.is_none()
    }

    /// Gives back what is more than so many bytes.
    pub fn shrink(&mut self, bytes: usize) {
        let units = units(bytes);
        for permit in [self.permit.as_mut(), self.share.as_mut().and_then(|share| share.permit.as_mut())] {
            let Some(permit) = permit else { continue };
            let spare = permit.num_permits().saturating_sub(usize::try_from(units).unwrap_or(usize::MAX));
            drop(permit.split(spare));
        }
    }
}

impl Share {
    async fn of(shares: &Arc<Shares>, user: i64, units: u32) -> Result<Self, Full> {
        let size = shares.size / SHARE;
        // Dropped last, also where whoever waits here gives up.
        let mut share = Self { shares: Arc::clone(shares), user, permit: None };
        let free = Arc::clone(shares.users().entry(user).or_insert_with(|| semaphore(size)));
        share.permit = take(&free, units, size).await;
        drop(free);
        if share.permit.is_some() { Ok(share) } else { Err(Full::User) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.permit = None;
        let mut users = self.shares.users();
        // Nobody else has a part of it, or waits for one.
        if users.get(&self.user).is_some_and(|free| Arc::strong_count(free) == 1) {
            users.remove(&self.user);
        }
    }
}

impl Shares {
    fn users(&self) -> MutexGuard<'_, HashMap<i64, Arc<Semaphore>>> {
        // No code that holds the lock leaves it half changed.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn semaphore(size: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(usize::try_from(size).unwrap_or(Semaphore::MAX_PERMITS)))
}

/// So many units, once they are free; all that there are for what is larger.
async fn take(free: &Arc<Semaphore>, units: u32, size: u32) -> Option<OwnedSemaphorePermit> {
    let taken = timeout(PATIENCE, Arc::clone(free).acquire_many_owned(units.min(size))).await;
    taken.ok()?.ok()
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// How much memory the container may take, where that is limited.
fn container_limit() -> Option<usize> {
    let limits = LIMITS.iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    // cgroup v1 has a number for no limit, too.
    limits.min().filter(|limit| *limit < usize::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    #[tokio::test(start_paused = true)]
    async fn all_together_have_so_much_and_wait_a_moment_for_it() {
        let memory = Memory::new(Some(100 * KIB));
        let first = memory.hold(None, 60 * KIB).await.unwrap();
        assert_eq!(memory.held(), 60 * KIB);
        assert_eq!(memory.hold(None, 60 * KIB).await.unwrap_err(), Full::All);
        let (second, ()) = tokio::join!(memory.hold(None, 60 * KIB), async { drop(first) });
        let mut second = second.unwrap();
        second.shrink(10 * KIB);
        assert_eq!(memory.held(), 10 * KIB);
        assert!(memory.hold(None, SMALL).await.unwrap().is_empty(), "what is small is not counted");
        drop(second);
        let all = memory.hold(None, 1000 * KIB).await.unwrap();
        assert_eq!(memory.held(), 100 * KIB, "what is larger than all has it for itself");
        drop(all);
        assert_eq!(memory.held(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_has_a_share_of_it_and_waits_a_moment_for_that() {
        let memory = Memory::new(Some(100 * KIB));
        let mut one = memory.hold(Some(1), 20 * KIB).await.unwrap();
        assert_eq!(memory.hold(Some(1), 10 * KIB).await.unwrap_err(), Full::User);
        let other = memory.hold(Some(2), 10 * KIB).await.unwrap();
        one.shrink(10 * KIB);
        let (more, ()) = tokio::join!(memory.hold(Some(1), 25 * KIB), async { drop(one) });
        assert_eq!(memory.held(), 35 * KIB);
        drop((other, more));
        let large = memory.hold(Some(1), 50 * KIB).await.unwrap();
        assert_eq!(memory.held(), 50 * KIB, "what is larger than a share is all that a user has");
        assert_eq!(memory.hold(Some(1), 5 * KIB).await.unwrap_err(), Full::User);
        drop(large);
        assert_eq!(memory.held(), 0);
        assert!(memory.0.users().is_empty(), "nobody is remembered");
    }
}
