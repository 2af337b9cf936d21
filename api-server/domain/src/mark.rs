//! Marks: what orders a user's writes.

use serde::{Deserialize, Serialize};

/// A write's place among its user's writes: of two, the later one has the greater mark. It is the version of everything that is known of
/// a user: *what was read at version v shows every write of the user's whose mark is at most v.*
///
/// On PostgreSQL it is the id of the write's transaction, on SQLite the number of its commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mark(pub i64);
