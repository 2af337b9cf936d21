//! What bounds the task API's work: memory for what is under way, caches of so many bytes, breakers for what fails, threads for what waits.

pub mod background;
pub mod breaker;
pub mod memory;
pub mod weighted_cache;
