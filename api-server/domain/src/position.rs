//! Places in the list of a user's tasks.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A place in the list of a user's tasks, newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// When the task there was made.
    pub created_at: Timestamp,
    /// Its id, which tells apart what was made in the same microsecond.
    pub id: i64,
}
