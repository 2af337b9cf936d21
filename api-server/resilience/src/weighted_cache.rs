//! A map that takes so many bytes at most: what was used longest ago goes first.
//!
//! A library's cache would do for most of it, but not for the one thing that views of tasks rest on: that an entry never goes while
//! somebody works on it, so that there are never two of the same key.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How many parts the map has, each with a lock and a share of the bytes of its own.
const PARTS: usize = 16;

/// See the module.
pub struct WeightedCache<K, V> {
    parts: Vec<Mutex<Part<K, V>>>,
    hasher: RandomState,
    most: usize,
    /// Whether an entry may go now.
    spare: fn(&V) -> bool,
}

impl<K, V> std::fmt::Debug for WeightedCache<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WeightedCache").field("most", &self.most).finish_non_exhaustive()
    }
}

struct Part<K, V> {
    entries: HashMap<K, Held<V>>,
    bytes: usize,
}

struct Held<V> {
    value: V,
    bytes: usize,
    used: Instant,
}

impl<K: Copy + Eq + Hash, V> WeightedCache<K, V> {
    /// A map that takes `most` bytes, and lets go only of what `spare` is true of.
    pub fn new(most: usize, spare: fn(&V) -> bool) -> Self {
        let part = || Mutex::new(Part { entries: HashMap::new(), bytes: 0 });
        let parts = (0..PARTS).map(|_| part()).collect();
        Self { parts, hasher: RandomState::new(), most: most / PARTS, spare }
    }

    /// What `read` makes of the value of `key`.
    pub fn get<R>(&self, key: K, read: impl FnOnce(&V) -> R) -> Option<R> {
        let mut part = self.part(key);
        let held = part.entries.get_mut(&key)?;
        held.used = Instant::now();
        Some(read(&held.value))
    }

    /// What `read` makes of the value of `key`, which is made if it is not there and takes `bytes` then.
    pub fn get_or_insert<R>(&self, key: K, bytes: usize, make: impl FnOnce() -> V, read: impl FnOnce(&V) -> R) -> R {
        let mut part = self.part(key);
        let part = &mut *part;
        let now = Instant::now();
        let held = part.entries.entry(key).or_insert_with(|| {
            part.bytes += bytes;
            Held { value: make(), bytes, used: now }
        });
        held.used = now;
        let result = read(&held.value);
        self.make_room(part);
        result
    }

    /// Says how many bytes an entry takes now.
    pub fn resize(&self, key: K, bytes: usize) {
        let mut part = self.part(key);
        let part = &mut *part;
        if let Some(held) = part.entries.get_mut(&key) {
            part.bytes = part.bytes - held.bytes + bytes;
            held.bytes = bytes;
        }
        self.make_room(part);
    }

    /// Removes an entry.
    pub fn remove(&self, key: K) -> Option<V> {
        let mut part = self.part(key);
        let held = part.entries.remove(&key)?;
        part.bytes -= held.bytes;
        Some(held.value)
    }

    /// Removes the entries of all such keys.
    pub fn remove_all(&self, such: impl Fn(&K) -> bool) {
        for part in &self.parts {
            let mut part = lock(part);
            let mut freed = 0;
            part.entries.retain(|key, held| {
                let keep = !such(key);
                freed += if keep { 0 } else { held.bytes };
                keep
            });
            part.bytes -= freed;
        }
    }

    /// Removes everything.
    pub fn clear(&self) {
        for part in &self.parts {
            let mut part = lock(part);
            (part.entries, part.bytes) = (HashMap::new(), 0);
        }
    }

    /// Removes what was not used for `idle`.
    pub fn sweep(&self, idle: Duration) {
        let now = Instant::now();
        for part in &self.parts {
            let mut part = lock(part);
            let mut freed = 0;
            part.entries.retain(|_, held| {
                let keep = now.saturating_duration_since(held.used) < idle || !(self.spare)(&held.value);
                freed += if keep { 0 } else { held.bytes };
                keep
            });
            part.bytes -= freed;
            part.entries.shrink_to_fit();
        }
    }

    /// Has `each` see every value.
    pub fn for_each(&self, mut each: impl FnMut(&V)) {
        for part in &self.parts {
            lock(part).entries.values().for_each(|held| each(&held.value));
        }
    }

    /// How many entries there are, and how many bytes they take.
    pub fn size(&self) -> (usize, usize) {
        let sizes = self.parts.iter().map(|part| {
            let part = lock(part);
            (part.entries.len(), part.bytes)
        });
        sizes.fold((0, 0), |(entries, bytes), (more, more_bytes)| (entries + more, bytes + more_bytes))
    }

    fn part(&self, key: K) -> MutexGuard<'_, Part<K, V>> {
        let hash = self.hasher.hash_one(key);
        #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash will do")]
        lock(&self.parts[hash as usize % PARTS])
    }

    fn make_room(&self, part: &mut Part<K, V>) {
        if part.bytes <= self.most {
            return;
        }
        // An eighth at once, so that the next entries find room without a search.
        let goal = self.most - self.most / 8;
        let mut spare: Vec<_> = part
            .entries
            .iter()
            .filter(|(_, held)| (self.spare)(&held.value))
            .map(|(key, held)| (held.used, *key))
            .collect();
        spare.sort_unstable_by_key(|(used, _)| *used);
        for (_, key) in spare {
            if part.bytes <= goal {
                break;
            }
            if let Some(held) = part.entries.remove(&key) {
                part.bytes -= held.bytes;
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds the lock leaves a part half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_least_used_goes_first() {
        // Every part holds ten entries.
        let map = WeightedCache::new(PARTS * 100, |_: &u32| true);
        let add = |key: u32| map.get_or_insert(key, 10, || key, |value| *value);
        add(0);
        for key in 1..2000 {
            add(key);
            assert_eq!(map.get(0, |value| *value), Some(0), "it is used all the time");
        }
        let (entries, bytes) = map.size();
        assert!(entries <= PARTS * 10 && bytes == entries * 10, "{entries} entries, {bytes} bytes");
        assert_eq!(map.get(1, |value| *value), None);
        assert_eq!(map.get(1999, |value| *value), Some(1999));
    }

    #[test]
    fn what_is_worked_on_stays() {
        let map = WeightedCache::new(0, |value: &Arc<u32>| Arc::strong_count(value) == 1);
        let one = map.get_or_insert(1, 10, || Arc::new(1), Arc::clone);
        map.resize(1, 1000);
        map.sweep(Duration::ZERO);
        assert!(map.get(1, |found| Arc::ptr_eq(found, &one)).unwrap());
        drop(one);
        map.resize(1, 10);
        assert_eq!(map.size(), (0, 0));
    }

    #[test]
    fn sizes_add_up() {
        let map = WeightedCache::new(1 << 20, |_: &u32| true);
        for key in 0..100 {
            map.get_or_insert(key, 10, || key, |_| ());
        }
        map.resize(7, 110);
        assert_eq!(map.size(), (100, 1100));
        assert_eq!(map.remove(7), Some(7));
        assert_eq!(map.size(), (99, 990));
        map.remove_all(|key| *key >= 90);
        assert_eq!(map.size(), (89, 890));
        map.sweep(Duration::from_hours(1));
        assert_eq!(map.size(), (89, 890));
        map.sweep(Duration::ZERO);
        assert_eq!(map.size(), (0, 0));
    }
}
