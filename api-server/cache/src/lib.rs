//! The users' tasks, as handlers see them: from memory where that shows every write, else from the store.

pub mod tasks;
pub mod views;
