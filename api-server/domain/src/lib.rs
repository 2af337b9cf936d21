//! What the task API is about: users, their tasks, and what may be said of them. Nothing here knows HTTP, SQL or another process.

pub mod id;
pub mod mark;
pub mod position;
pub mod search;
pub mod session;
pub mod summary;
pub mod task;
pub mod user;
pub mod validation;
