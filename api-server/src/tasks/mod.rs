//! Tasks: what they are, and the requests about them.

pub mod batch;
pub mod cursor;
pub mod handlers;
pub mod model;
pub mod quota;
pub mod search;
pub mod service;
pub mod summary;
pub mod views;
