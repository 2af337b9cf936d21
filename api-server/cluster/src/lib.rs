//! What instances share in Redis Clusters: connections that outlive them, and the bus by which instances tell each other what is no longer so.

pub mod bus;
pub mod redis;
