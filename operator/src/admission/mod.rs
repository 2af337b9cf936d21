//! The admission webhooks. The API server asks about each TaskPlatform before it is stored, and is told what `taskplatform lint` would
//! tell; and about each pod that somebody wants to evict.

mod certificate;
mod eviction;
mod review;
mod server;

use kube::core::{
    DynamicObject,
    admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, ConvertAdmissionReviewError},
};

pub(crate) use certificate::keep_current;
pub(crate) use server::{Desk, Serving, listen};

/// Reads what the API server asks, or answers that it cannot be read.
fn read(body: &[u8]) -> Result<AdmissionRequest<DynamicObject>, Box<AdmissionReview<DynamicObject>>> {
    serde_json::from_slice::<AdmissionReview<DynamicObject>>(body)
        .map_err(|error| error.to_string())
        // This takes the version over into the answer, without which the API server ignores it.
        .and_then(|review| review.try_into().map_err(|error: ConvertAdmissionReviewError| error.to_string()))
        .map_err(|why| Box::new(AdmissionResponse::invalid(format!("the review cannot be read: {why}")).into_review()))
}
