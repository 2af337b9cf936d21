//! How far an import is: a bar on a terminal, now and then a line elsewhere.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// Says it on standard error, where it does not get among the report.
pub(super) struct Progress {
    what: &'static str,
    done: u64,
    total: u64,
    /// None where nobody watches it.
    bar: Option<ProgressBar>,
    /// How much was done when it was last said.
    said: u64,
}

impl Progress {
    pub(super) fn new(what: &'static str, total: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total).with_message(what);
            let style = ProgressStyle::with_template("{msg:10} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
            match style {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self { what, done: 0, total, bar, said: 0 }
    }

    pub(super) fn advance(&mut self, rows: usize) {
        self.done += rows as u64;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        } else if self.done == self.total || (self.done - self.said) * 100 >= self.total {
            self.said = self.done;
            // Nobody may be there to read it.
            let _ = writeln!(io::stderr(), "{}: {} of {}", self.what, self.done, self.total);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}
