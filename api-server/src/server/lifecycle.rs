//! Where the process stands between its start and its end.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::Notify;

/// Starting, serving, draining. Every request asks.
#[derive(Debug, Default)]
pub struct Lifecycle {
    started: AtomicBool,
    draining: AtomicBool,
    told_to_drain: Notify,
}

impl Lifecycle {
    /// The schema is there: requests may come.
    pub fn start(&self) {
        self.started.store(true, Relaxed);
    }

    /// The process was told to stop.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
        self.told_to_drain.notify_waiters();
    }

    /// Whether the schema is there.
    pub fn is_started(&self) -> bool {
        self.started.load(Relaxed)
    }

    /// Whether the process was told to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Waits until the process is told to stop.
    pub async fn draining(&self) {
        // Made first, so that it is told of what comes after the look at the flag.
        let told = self.told_to_drain.notified();
        if !self.is_draining() {
            told.await;
        }
    }
}
