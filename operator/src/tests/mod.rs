//! What the operator does to an API server.

mod apply;
mod credentials;
mod platforms;
mod volumes;
