//! The metrics of every request.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::time::Instant;

use super::seen::Seen;
use crate::{app::App, metrics::Route};

/// The status in the metrics of a request whose client has hung up before it was answered, as nginx has it.
const HUNG_UP: u16 = 499;

/// Counts a request when it is answered, or given up.
pub(super) struct Counted {
    app: Arc<App>,
    method: &'static str,
    route: Route,
    begun: Instant,
    status: u16,
}

impl Counted {
    /// A request that has `begun`.
    pub(super) fn new(app: Arc<App>, seen: &Seen, begun: Instant) -> Self {
        Self { app, method: seen.method, route: seen.route.clone(), begun, status: HUNG_UP }
    }

    pub(super) fn answered(mut self, status: StatusCode) {
        self.status = status.as_u16();
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.app.metrics.request(self.method, self.route.clone(), self.status, self.begun.elapsed());
    }
}
