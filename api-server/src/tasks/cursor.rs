//! Cursors: where the next page of a list begins, sealed so that none but this API can make one.
//!
//! A cursor is bound to its user and to what they page through. One that was changed, or that comes from another list, does not open.

use std::{
    fmt,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;
use task_api_domain::{position::Position, search::SearchQuery, task::Filter};

/// Changes with the layout, so that an old cursor is refused rather than misread.
const CONTEXT: &[u8] = b"task list cursor 1";
/// While instances are replaced by those that know another key, which takes less, the key before signs.
const MOVING: Duration = Duration::from_mins(10);
/// 128 bits can't be guessed.
const TAG: usize = 16;
/// Microseconds and id.
const POSITION: usize = 16;

/// What is paged through.
#[derive(Clone, Copy, Debug)]
pub enum Listing<'a> {
    /// The tasks that pass a filter.
    Tasks(Filter),
    /// What a search finds.
    Search(&'a SearchQuery),
}

/// Seals and opens cursors.
pub struct Cursors {
    mac: Hmac<Sha256>,
    /// Of the key before, while instances move to another.
    former: Option<Hmac<Sha256>>,
    born: Instant,
}

impl fmt::Debug for Cursors {
    // Holds a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursors").finish_non_exhaustive()
    }
}

impl Cursors {
    /// Signs with `key`, which every instance shares; at first with the `former`, so that those can open it that know only that one.
    pub fn new(key: &[u8], former: Option<&[u8]>) -> Self {
        Self { mac: mac(key), former: former.map(mac), born: Instant::now() }
    }

    fn sealing(&self) -> &Hmac<Sha256> {
        self.former.as_ref().filter(|_| self.born.elapsed() < MOVING).unwrap_or(&self.mac)
    }

    /// A cursor for the page that begins after `position`.
    pub fn seal(&self, user_id: i64, listing: &Listing<'_>, position: Position) -> String {
        let mut bytes = [0; POSITION + TAG];
        bytes[..8].copy_from_slice(&position.created_at.as_microsecond().to_be_bytes());
        bytes[8..POSITION].copy_from_slice(&position.id.to_be_bytes());
        let tag = tag(self.sealing(), user_id, listing, &bytes[..POSITION]).finalize().into_bytes();
        bytes[POSITION..].copy_from_slice(&tag[..TAG]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The position in `cursor`, if it was sealed here for this user and listing.
    pub fn open(&self, user_id: i64, listing: &Listing<'_>, cursor: &str) -> Option<Position> {
        let bytes: [u8; POSITION + TAG] = URL_SAFE_NO_PAD.decode(cursor).ok()?.try_into().ok()?;
        let (position, tag) = bytes.split_at(POSITION);
        let is_ours = |mac| self::tag(mac, user_id, listing, position).verify_truncated_left(tag).is_ok();
        if !is_ours(&self.mac) && !self.former.as_ref().is_some_and(is_ours) {
            return None;
        }
        let (created_at, id) = position.split_at(8);
        let created_at = Timestamp::from_microsecond(i64::from_be_bytes(created_at.try_into().ok()?)).ok()?;
        Some(Position { created_at, id: i64::from_be_bytes(id.try_into().ok()?) })
    }
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    // HMAC hashes a key longer than a block, so this makes one of any length that it takes as it is.
    let key: [u8; 32] = <Sha256 as sha2::Digest>::digest(key).into();
    let mut padded = [0; 64];
    padded[..32].copy_from_slice(&key);
    let mut mac = Hmac::<Sha256>::new(&padded.into());
    mac.update(CONTEXT);
    mac
}

fn tag(mac: &Hmac<Sha256>, user_id: i64, listing: &Listing<'_>, position: &[u8]) -> Hmac<Sha256> {
    let mut mac = mac.clone();
    mac.update(position);
    mac.update(&user_id.to_be_bytes());
    let listing = match listing {
        Listing::Tasks(Filter { status, priority }) => {
            let status = status.map_or("", |status| status.as_str());
            let priority = priority.map_or("", |priority| priority.as_str());
            format!("{status}/{priority}")
        }
        // A term begins with a quotation mark or a minus sign, and no status does.
        Listing::Search(query) => query.to_string(),
    };
    mac.update(listing.as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: Listing<'_> = Listing::Tasks(Filter { status: None, priority: None });
    use task_api_domain::task::{Priority, Status};

    fn position() -> impl Strategy<Value = Position> {
        (-1_000_000_000_000_000i64..4_000_000_000_000_000, 1i64..1 << 53)
            .prop_map(|(micros, id)| Position { created_at: Timestamp::from_microsecond(micros).unwrap(), id })
    }

    proptest! {
        #[test]
        fn a_sealed_cursor_opens(user in 1i64.., position in position()) {
            let cursors = Cursors::new(b"key", None);
            let cursor = cursors.seal(user, &ALL, position);
            prop_assert_eq!(cursors.open(user, &ALL, &cursor), Some(position));
        }

        #[test]
        fn one_that_was_changed_does_not(position in position(), at in 0usize..32, bit in 0u8..8) {
            let cursors = Cursors::new(b"key", None);
            let mut bytes = URL_SAFE_NO_PAD.decode(cursors.seal(1, &ALL, position)).unwrap();
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(cursors.open(1, &ALL, &URL_SAFE_NO_PAD.encode(bytes)), None);
        }

        #[test]
        fn nor_does_any_text(text in ".{0,60}") {
            prop_assert_eq!(Cursors::new(b"key", None).open(1, &ALL, &text), None);
        }
    }

    #[test]
    fn instances_that_move_to_another_key_open_each_others() {
        let position = Position { created_at: Timestamp::UNIX_EPOCH, id: 1 };
        let (before, moving) = (Cursors::new(b"key", None), Cursors::new(b"next", Some(b"key")));
        let after = Cursors::new(b"next", None);
        assert_eq!(moving.open(1, &ALL, &before.seal(1, &ALL, position)), Some(position));
        assert_eq!(before.open(1, &ALL, &moving.seal(1, &ALL, position)), Some(position));
        assert_eq!(moving.open(1, &ALL, &after.seal(1, &ALL, position)), Some(position));
        assert_eq!(after.open(1, &ALL, &before.seal(1, &ALL, position)), None);
    }

    #[test]
    fn it_opens_only_where_it_belongs() {
        let cursors = Cursors::new(b"key", None);
        let here = Listing::Tasks(Filter { status: Some(Status::Pending), priority: None });
        let position = Position { created_at: Timestamp::UNIX_EPOCH, id: 1 };
        let cursor = cursors.seal(1, &here, position);
        assert_eq!(cursors.open(1, &here, &cursor), Some(position));
        assert_eq!(
            Cursors::new(b"key", None).open(1, &here, &cursor),
            Some(position),
            "another instance with the same key"
        );
        assert_eq!(Cursors::new(b"other", None).open(1, &here, &cursor), None);
        assert_eq!(cursors.open(2, &here, &cursor), None);
        let query = SearchQuery::parse("pending").unwrap();
        let elsewhere = Filter { status: Some(Status::Pending), priority: Some(Priority::Low) };
        for elsewhere in [Listing::Tasks(elsewhere), ALL, Listing::Search(&query)] {
            assert_eq!(cursors.open(1, &elsewhere, &cursor), None, "{elsewhere:?}");
        }
    }
}
