//! The platform's passwords: made once, kept in one Secret, never printed.

use std::collections::BTreeMap;

use crate::{Component, parts::PARTS};

/// The part that was made with the password of this key.
pub fn owner(key: &str) -> Option<Component> {
    PARTS.iter().find(|part| part.passwords().contains(&key)).map(|part| part.component())
}

/// Whether what the key holds follows from the passwords.
pub fn is_derived(key: &str) -> bool {
    PARTS.iter().flat_map(|part| part.credential_files()).any(|file| file.key == key)
}

/// The keys that a Secret lacks: passwords come from `random` (letters and digits only, since they stand in URLs and
/// configuration files), files follow from the passwords.
pub fn complete(existing: &BTreeMap<String, String>, mut random: impl FnMut() -> String) -> BTreeMap<String, String> {
    let mut all = existing.clone();
    for key in PARTS.iter().flat_map(|part| part.passwords()) {
        all.entry((*key).to_owned()).or_insert_with(&mut random);
    }
    let password = |key: &str| all.get(key).cloned().unwrap_or_default();
    let files = PARTS.iter().flat_map(|part| part.credential_files());
    let files: Vec<_> = files.map(|file| (file.key.to_owned(), (file.text)(&password))).collect();
    all.extend(files);
    all.retain(|key, value| existing.get(key) != Some(value));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exists_is_never_replaced() {
        let mut count = 0;
        let mut random = || {
            count += 1;
            format!("secret{count}")
        };
        let first = complete(&BTreeMap::new(), &mut random);
        assert_eq!(first.len(), 12);
        assert!(complete(&first, &mut random).is_empty(), "a complete Secret lacks nothing");

        let mut older = first.clone();
        older.remove("pooler-password");
        let missing = complete(&older, &mut random);
        assert_eq!(missing.keys().collect::<Vec<_>>(), ["pooler-password", "userlist.txt"]);
        assert!(missing["userlist.txt"].contains(&first["tasks-password"]));
    }
}
