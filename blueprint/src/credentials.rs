//! The platform's passwords, in one Secret that nobody prints. They are made once; a person changes one by writing another under its key.
//!
//! What a person writes is a wish. Pods read slots, `KEY.a` and `KEY.b` in turn, so that what runs keeps its password until everything has
//! moved to the next: both are admitted meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{Component, Login, parts::PARTS};

/// Characters that a password must have at least, and may have at most.
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=128;
/// When a password was changed last, or the one before was taken no more.
const ROTATED_AT: &str = "rotated-at";
const VERSION: &str = ".version";
const SLOTS: [&str; 2] = [".a", ".b"];

/// How often each password was changed, by its key; those that never were are not named.
pub type Versions = BTreeMap<String, u32>;

/// What the Secret holds.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials(BTreeMap<String, String>);

impl fmt::Debug for Credentials {
    // Names no password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl FromIterator<(String, String)> for Credentials {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(entries: T) -> Self {
        Self(entries.into_iter().collect())
    }
}

/// The keys of the passwords.
pub fn keys() -> impl Iterator<Item = &'static str> {
    PARTS.iter().flat_map(|part| part.passwords()).copied()
}

/// The part that was made with the password of this key.
pub fn owner(key: &str) -> Option<Component> {
    PARTS.iter().find(|part| part.passwords().contains(&key)).map(|part| part.component())
}

/// The key that pods read of a password that was changed so often.
pub(crate) fn slot(key: &str, version: u32) -> String {
    format!("{key}{}", SLOTS[version as usize % SLOTS.len()])
}

impl Login {
    /// The user of a password that was changed so often. Where two passwords are admitted, each has a user of its own.
    pub fn user_at(&self, version: u32) -> String {
        if self.alternates && version % 2 == 1 { format!("{}_2", self.user) } else { self.user.to_owned() }
    }
}

impl Credentials {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Whether it has anything of this key.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// What a person wrote, or the operator made.
    pub fn wish(&self, key: &str) -> Option<&str> {
        self.get(key)
    }

    /// How often a password was changed.
    pub fn version(&self, key: &str) -> u32 {
        self.get(&format!("{key}{VERSION}")).and_then(|version| version.parse().ok()).unwrap_or_default()
    }

    /// How often each was.
    pub fn versions(&self) -> Versions {
        keys().map(|key| (key.to_owned(), self.version(key))).filter(|(_, version)| *version > 0).collect()
    }

    /// The password in force.
    pub fn current(&self, key: &str) -> Option<&str> {
        self.get(&slot(key, self.version(key)))
    }

    /// The one before, as long as it is admitted.
    pub fn former(&self, key: &str) -> Option<&str> {
        let version = self.version(key);
        if version == 0 { None } else { self.get(&slot(key, version - 1)) }
    }

    /// The keys of which the password before is still admitted.
    pub fn rotating(&self) -> impl Iterator<Item = &'static str> {
        keys().filter(|key| self.former(key).is_some())
    }

    /// Who one is with a login, and with which password: first whom pods use now. The other is whom they used before, as long as that one's
    /// password is admitted; then the first user has the password in force as well, as people expect who know only that one.
    pub fn users(&self, login: Login) -> impl Iterator<Item = (String, &str)> {
        let version = self.version(login.password);
        let (current, user) = (self.current(login.password), login.user_at(version));
        let other = match self.former(login.password) {
            Some(former) => Some((login.user_at(version.saturating_sub(1)), former)),
            None => current.filter(|_| user != login.user).map(|current| (login.user.to_owned(), current)),
        };
        current.map(|current| (user, current)).into_iter().chain(other)
    }

    /// When a password was changed last, or the one before was taken no more.
    pub fn rotated_at(&self) -> Option<&str> {
        self.get(ROTATED_AT)
    }

    /// The keys under which somebody wrote what cannot be taken for a password.
    pub fn refused(&self) -> impl Iterator<Item = &'static str> {
        keys().filter(|key| self.get(key).is_some_and(|wish| self.current(key) != Some(wish) && !is_usable(wish)))
    }

    /// What the Secret lacks, or should hold instead; passwords come from `random`, files follow from them. A wish becomes the password in
    /// force when the one before the last is not admitted any more.
    pub fn complete(&self, mut random: impl FnMut() -> String, now: &str) -> BTreeMap<String, String> {
        let mut all = self.clone();
        for key in keys() {
            let version = all.version(key);
            let current = slot(key, version);
            match (all.get(key).map(str::to_owned), all.get(&current).map(str::to_owned)) {
                (None, None) => {
                    let made = random();
                    all.0.extend([(key.to_owned(), made.clone()), (current, made)]);
                }
                (None, Some(known)) => drop(all.0.insert(key.to_owned(), known)),
                (Some(wish), None) => drop(all.0.insert(current, wish)),
                (Some(wish), Some(known)) if wish != known && is_usable(&wish) && all.former(key).is_none() => {
                    all.0.insert(slot(key, version + 1), wish);
                    all.0.insert(format!("{key}{VERSION}"), (version + 1).to_string());
                    all.0.insert(ROTATED_AT.to_owned(), now.to_owned());
                }
                (Some(_), Some(_)) => {}
            }
        }
        let files: Vec<_> = all.files().collect();
        all.0.extend(files);
        all.0.retain(|key, value| self.get(key) != Some(value));
        all.0
    }

    /// What the Secret should hold when the passwords before those of these keys are not admitted any more; nothing, where a key goes.
    pub fn without_former(&self, keys: &[&str], now: &str) -> BTreeMap<String, Option<String>> {
        let gone = self.rotating().filter(|key| keys.contains(key));
        let gone: BTreeSet<String> = gone.map(|key| slot(key, self.version(key) - 1)).collect();
        let mut rest = self.clone();
        rest.0.retain(|key, _| !gone.contains(key));
        let files = rest.files().filter(|(key, text)| self.get(key) != Some(text)).map(|(key, text)| (key, Some(text)));
        let files = files.chain([(ROTATED_AT.to_owned(), Some(now.to_owned()))]);
        files.chain(gone.into_iter().map(|key| (key, None))).collect()
    }

    /// The same with what is there besides.
    #[must_use]
    pub fn with(mut self, more: impl IntoIterator<Item = (String, String)>) -> Self {
        self.0.extend(more);
        self
    }

    /// The same with the passwords in force that another has and this one lacks.
    #[must_use]
    pub fn or(mut self, other: &Self) -> Self {
        for key in keys() {
            let version = other.version(key);
            if self.version(key) > version {
                continue;
            }
            if version > 0 {
                self.0.entry(format!("{key}{VERSION}")).or_insert_with(|| version.to_string());
            }
            for (key, value) in [(key.to_owned(), other.wish(key)), (slot(key, version), other.current(key))] {
                if let Some(value) = value {
                    self.0.entry(key).or_insert_with(|| value.to_owned());
                }
            }
        }
        self
    }

    /// What it has, by key.
    pub fn entries(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter()
    }

    fn files(&self) -> impl Iterator<Item = (String, String)> {
        let files = PARTS.iter().flat_map(|part| part.credential_files());
        files.map(|file| (file.key.to_owned(), (file.text)(self)))
    }
}

/// It stands in URLs, SQL and configuration files.
fn is_usable(password: &str) -> bool {
    LENGTHS.contains(&password.len())
        && password.chars().all(|char| char.is_ascii_alphanumeric() || "-._~".contains(char))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASKS: &str = "tasks-password";
    const NOW: &str = "2026-01-01T00:00:00Z";

    fn made() -> Credentials {
        let mut count = 0;
        let random = || {
            count += 1;
            format!("secret-of-sixteen-{count}")
        };
        Credentials::default().complete(random, NOW).into_iter().collect()
    }

    fn again(credentials: &Credentials) -> BTreeMap<String, String> {
        credentials.complete(|| "another-of-sixteen".to_owned(), NOW)
    }

    #[test]
    fn what_exists_is_never_replaced() {
        let first = made();
        assert_eq!(first.0.len(), 9 * 2 + 4);
        assert_eq!(again(&first), BTreeMap::new(), "a complete Secret lacks nothing");

        let mut wished = first.clone();
        wished.0.remove("pooler-password");
        let missing = again(&wished);
        assert_eq!(missing, BTreeMap::from([("pooler-password".to_owned(), first.0["pooler-password.a"].clone())]));

        let mut older = first.clone();
        older.0.retain(|key, _| !key.contains(".a"));
        let older = older.clone().with(again(&older));
        assert_eq!(older, first, "the Secret of a release without slots");
    }

    #[test]
    fn a_wish_is_admitted_beside_what_runs_and_then_alone() {
        let before = made();
        let wished = before.clone().with([(TASKS.to_owned(), "chosen-by-a-person".to_owned())]);
        let rotating = wished.clone().with(again(&wished));
        assert_eq!(rotating.version(TASKS), 1);
        assert_eq!(rotating.current(TASKS), Some("chosen-by-a-person"));
        assert_eq!(rotating.former(TASKS), before.current(TASKS));
        assert_eq!(rotating.rotated_at(), Some(NOW));
        assert_eq!(rotating.rotating().collect::<Vec<_>>(), [TASKS]);
        assert_eq!(rotating.get("userlist.txt").map(|text| text.lines().count()), Some(3), "{rotating:?}");
        assert_eq!(again(&rotating), BTreeMap::new(), "nothing more to do");

        let third = rotating.clone().with([(TASKS.to_owned(), "chosen-once-more-by".to_owned())]);
        assert_eq!(again(&third), BTreeMap::new(), "it waits for its turn");

        let mut alone = rotating.clone();
        for (key, value) in rotating.without_former(&[TASKS], NOW) {
            match value {
                Some(value) => drop(alone.0.insert(key, value)),
                None => drop(alone.0.remove(&key)),
            }
        }
        assert_eq!((alone.former(TASKS), alone.rotating().count()), (None, 0));
        let users = alone.get("userlist.txt").unwrap_or_default();
        for user in ["tasks", "tasks_2"] {
            assert!(users.contains(&format!("\"{user}\" \"chosen-by-a-person\"")), "{users}");
        }
        assert_eq!(again(&alone), BTreeMap::new());
    }

    #[test]
    fn what_could_not_stand_in_a_url_is_refused() {
        for wish in ["short", "has a blank within it", "has'a'quote'within", "has@an@at@within@it"] {
            let wished = made().with([(TASKS.to_owned(), wish.to_owned())]);
            assert_eq!(again(&wished), BTreeMap::new(), "{wish}");
            assert_eq!(wished.refused().collect::<Vec<_>>(), [TASKS]);
        }
        assert_eq!(made().refused().count(), 0);
    }
}
