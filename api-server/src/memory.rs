//! How much memory requests and their answers take at once, for all users together and for each. What takes little is not counted: of that,
//! [`crate::server::places`] bounds the number.

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
/// A user may have no more under way than this part of what all may have, but for what is larger alone.
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
    /// How many of them each user has.
    users: Mutex<HashMap<i64, u32>>,
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
    share: Option<Share>,
    permit: Option<OwnedSemaphorePermit>,
}

/// A user's part of it.
#[derive(Debug)]
struct Share {
    shares: Arc<Shares>,
    user: i64,
    units: u32,
}

impl Memory {
    /// So many bytes; by the container's limit without.
    pub fn new(bytes: Option<usize>) -> Self {
        let bytes = bytes.unwrap_or_else(|| container_limit().map_or(UNLIMITED, |limit| (limit / PART).min(UNLIMITED)));
        let size = units(bytes).clamp(1, u32::MAX / 2);
        let free = Arc::new(Semaphore::new(usize::try_from(size).unwrap_or(Semaphore::MAX_PERMITS)));
        Self(Arc::new(Shares { free, size, users: Mutex::default() }))
    }

    /// Waits a moment for so many bytes, of a user's if one asks.
    pub async fn hold(&self, user: Option<i64>, bytes: usize) -> Result<Held, Full> {
        if bytes <= SMALL {
            return Ok(Held::default());
        }
        // What is larger than all that there is has it for itself.
        let units = units(bytes).min(self.0.size);
        let share = user.map(|user| Share::take(&self.0, user, units)).transpose()?;
        let permit = timeout(PATIENCE, Arc::clone(&self.0.free).acquire_many_owned(units)).await;
        let permit = permit.map_err(|_| Full::All)?.map_err(|_| Full::All)?;
        Ok(Held { share, permit: Some(permit) })
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
        let Some(permit) = &mut self.permit else { return };
        let has = u32::try_from(permit.num_permits()).unwrap_or(u32::MAX);
        let spare = has.saturating_sub(units(bytes));
        drop(permit.split(usize::try_from(spare).unwrap_or_default()));
        if let Some(share) = &mut self.share {
            share.give_back(spare);
        }
    }
}

impl Share {
    fn take(shares: &Arc<Shares>, user: i64, units: u32) -> Result<Self, Full> {
        let mut users = shares.users();
        let has = users.entry(user).or_default();
        if *has > 0 && *has + units > shares.size / SHARE {
            return Err(Full::User);
        }
        *has += units;
        drop(users);
        Ok(Self { shares: Arc::clone(shares), user, units })
    }

    fn give_back(&mut self, units: u32) {
        let units = units.min(self.units);
        self.units -= units;
        let mut users = self.shares.users();
        if let Some(has) = users.get_mut(&self.user) {
            *has -= units;
            if *has == 0 {
                users.remove(&self.user);
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back(self.units);
    }
}

impl Shares {
    fn users(&self) -> MutexGuard<'_, HashMap<i64, u32>> {
        // No code that holds the lock leaves it half changed.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

    #[tokio::test]
    async fn a_user_has_a_share_of_it_and_one_larger_thing() {
        let memory = Memory::new(Some(100 * KIB));
        let large = memory.hold(Some(1), 50 * KIB).await.unwrap();
        assert_eq!(memory.hold(Some(1), 5 * KIB).await.unwrap_err(), Full::User);
        drop(large);
        let mut one = memory.hold(Some(1), 20 * KIB).await.unwrap();
        assert_eq!(memory.hold(Some(1), 10 * KIB).await.unwrap_err(), Full::User);
        let other = memory.hold(Some(2), 10 * KIB).await.unwrap();
        one.shrink(10 * KIB);
        let more = memory.hold(Some(1), 10 * KIB).await.unwrap();
        drop((one, other, more));
        assert_eq!(memory.held(), 0);
        assert!(memory.0.users().is_empty(), "nobody is remembered");
    }
}
