//! What the operator does to an API server.

mod apply;
mod credentials;
mod leader;
mod platforms;
mod volumes;
