//! Requests about tasks.

pub mod batch;
pub mod cursor;
pub mod handlers;
pub mod query;
