//! What names a session.

use serde::{Deserialize, Serialize};

/// What is kept of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest {
    /// Whose session it is.
    pub user_id: i64,
    /// Of the secret.
    pub hash: [u8; 32],
}
