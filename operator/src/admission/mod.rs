//! The admission webhook: the API server asks it about each TaskPlatform before it is stored, and it tells what
//! `taskplatform lint` would tell.

mod certificate;
mod review;
mod server;

pub(crate) use certificate::keep_current;
pub(crate) use server::{Serving, listen};
