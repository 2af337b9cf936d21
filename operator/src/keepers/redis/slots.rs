//! A set of hash slots.

use std::fmt;

/// How many hash slots a Redis Cluster has.
pub(crate) const SLOTS: u16 = 16384;

const WORDS: usize = SLOTS as usize / 64;

/// A set of hash slots, one bit each: a node of a cluster knows the slots of every other, so there are many of these.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SlotSet(Box<[u64; WORDS]>);

impl Default for SlotSet {
    fn default() -> Self {
        Self(Box::new([0; WORDS]))
    }
}

impl SlotSet {
    /// Every slot there is.
    pub(super) fn all() -> Self {
        Self(Box::new([u64::MAX; WORDS]))
    }

    /// Adds a slot. What is no slot of a Redis Cluster is left out.
    pub(super) fn insert(&mut self, slot: u16) {
        if let Some(word) = self.0.get_mut(usize::from(slot / 64)) {
            *word |= 1 << (slot % 64);
        }
    }

    pub(super) fn contains(&self, slot: u16) -> bool {
        self.0.get(usize::from(slot / 64)).is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn len(&self) -> u16 {
        let ones: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        u16::try_from(ones).unwrap_or(SLOTS)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u16> {
        let words = (0_u16..).step_by(64).zip(self.0.iter()).filter(|(_, word)| **word != 0);
        words.flat_map(|(first, word)| (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| first + bit))
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a | b)
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & b)
    }

    pub(super) fn difference(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & !b)
    }

    /// The set as inclusive ranges, as CLUSTER ADDSLOTSRANGE takes them.
    pub(super) fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for slot in self.iter() {
            match ranges.last_mut() {
                Some((_, end)) if *end + 1 == slot => *end = slot,
                _ => ranges.push((slot, slot)),
            }
        }
        ranges
    }

    fn combine(&self, other: &Self, with: impl Fn(u64, u64) -> u64) -> Self {
        let mut result = Self::default();
        for (to, (a, b)) in result.0.iter_mut().zip(self.0.iter().zip(other.0.iter())) {
            *to = with(*a, *b);
        }
        result
    }
}

impl FromIterator<u16> for SlotSet {
    fn from_iter<I: IntoIterator<Item = u16>>(slots: I) -> Self {
        let mut set = Self::default();
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }
}

impl fmt::Display for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A half-moved cluster can have thousands of ranges; a condition's message is for people.
        const SHOWN: usize = 6;
        let ranges = self.ranges();
        for (index, (start, end)) in ranges.iter().take(SHOWN).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            if start == end { write!(f, "{separator}{start}")? } else { write!(f, "{separator}{start}-{end}")? }
        }
        if ranges.len() > SHOWN {
            write!(f, " and {} more ranges", ranges.len() - SHOWN)?;
        }
        Ok(())
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}
