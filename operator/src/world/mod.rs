//! What the API server knows: watched, kept in a compact store, and taken as a [`Snapshot`] once a lap.

mod child;
mod found;
mod node;
mod offers;
mod snapshot;
mod store;
mod watched;

pub(crate) use child::{Child, EVICTED, Kept, Owner, OwnerKind, ordinal, owners};
pub(crate) use found::Found;
pub(crate) use node::{Loss, LostNodes, any_takes_pods, takes_pods};
pub(crate) use offers::Offers;
pub(crate) use snapshot::Snapshot;
pub(crate) use store::{Changes, World, lock};
pub(crate) use watched::Watched;
