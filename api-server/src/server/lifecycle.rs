//! Where the process stands between its start and its end.

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stage {
    started: bool,
    draining: bool,
}

/// Starting, serving, draining.
#[derive(Debug)]
pub struct Lifecycle(watch::Sender<Stage>);

impl Default for Lifecycle {
    fn default() -> Self {
        Self(watch::Sender::new(Stage::default()))
    }
}

impl Lifecycle {
    /// The schema is there: requests may come.
    pub fn start(&self) {
        self.0.send_modify(|stage| stage.started = true);
    }

    /// The process was told to stop.
    pub fn drain(&self) {
        self.0.send_modify(|stage| stage.draining = true);
    }

    /// Whether the schema is there.
    pub fn is_started(&self) -> bool {
        self.0.borrow().started
    }

    /// Whether the process was told to stop.
    pub fn is_draining(&self) -> bool {
        self.0.borrow().draining
    }

    /// Waits until the process is told to stop.
    pub async fn draining(&self) {
        // Fails only when the sender is gone, and it is `self`.
        let _ = self.0.subscribe().wait_for(|stage| stage.draining).await;
    }
}
