//! What the operator does to an API server.

mod apply;
mod credentials;
mod faults;
mod leader;
mod platforms;
mod replicas;
mod volumes;
