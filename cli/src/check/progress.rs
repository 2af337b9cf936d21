//! What is being done, told on the standard error when it takes long.

use std::{io::Write, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

/// What takes less time is over before anybody has read what it is.
const LONG: Duration = Duration::from_secs(2);

/// Does something, and says so if it takes long.
pub(super) async fn shown<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    if let Ok(done) = tokio::time::timeout(LONG, &mut work).await {
        return done;
    }
    let bar = spinner(what);
    let done = work.await;
    bar.finish_and_clear();
    done
}

fn spinner(what: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    if bar.is_hidden() {
        let _ = writeln!(std::io::stderr(), "{what} …");
    }
    bar
}
