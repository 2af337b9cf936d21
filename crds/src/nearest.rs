//! What somebody may have meant.

/// Names that are less alike than this are no misspelling of each other.
const ALIKE: f64 = 0.6;

/// The one of the known names that is most like a name, if one is like it.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let alike = known.map(|known| (strsim::normalized_damerau_levenshtein(name, known), known));
    let likely = alike.filter(|(alike, _)| *alike >= ALIKE);
    likely.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelling_is_recognized() {
        let known = ["shards", "replicasPerShard", "storage"];
        assert_eq!(nearest("shard", known.into_iter()), Some("shards"));
        assert_eq!(nearest("replicas_per_shard", known.into_iter()), Some("replicasPerShard"));
        assert_eq!(nearest("nodes", known.into_iter()), None);
    }
}
