//! What a user writes while parts of the platform may be lost, to be compared with what is there afterwards.

use std::{collections::BTreeSet, time::Instant};

use anyhow::{Result, ensure};

use crate::{
    eventually,
    http::{Attempt, User},
};

/// What has come of a user's writes.
pub struct Ledger {
    user: User,
    count: usize,
    /// Titles, each of which is written once.
    acknowledged: BTreeSet<String>,
    refused: BTreeSet<String>,
    failures: Vec<String>,
}

impl Ledger {
    /// Nothing is written yet.
    pub fn new(user: User) -> Self {
        Self { user, count: 0, acknowledged: BTreeSet::new(), refused: BTreeSet::new(), failures: Vec::new() }
    }

    /// Tries to create a task; whether it was acknowledged.
    ///
    /// # Errors
    /// When the answer is neither a success nor a problem that says to come again.
    pub async fn write(&mut self) -> Result<bool> {
        self.count += 1;
        let title = format!("Written meanwhile, {}", self.count);
        let began = Instant::now();
        match self.user.attempt(&title).await? {
            Attempt::Acknowledged => {
                self.acknowledged.insert(title);
                return Ok(true);
            }
            Attempt::Refused(answer) => {
                self.failures.push(format!("{title}: refused after {:?}: {answer}", began.elapsed()));
                self.refused.insert(title);
            }
            Attempt::Unknown(why) => {
                self.failures.push(format!("{title}: unknown after {:?}: {why}", began.elapsed()));
            }
        }
        Ok(false)
    }

    /// The writes that were not acknowledged, and why.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// How many writes were acknowledged: each of them is there, none is there twice, and none that was refused is.
    ///
    /// # Errors
    /// When something is not so, nothing was acknowledged, or the tasks cannot be read.
    pub async fn reconcile(self) -> Result<usize> {
        let there = eventually("the tasks are read", 60, async || self.user.all_titles().await).await?;
        let titles: BTreeSet<&String> = there.iter().collect();
        let lost: Vec<&String> = self.acknowledged.iter().filter(|title| !titles.contains(title)).collect();
        ensure!(lost.is_empty(), "{} of {} acknowledged tasks are lost: {lost:?}", lost.len(), self.acknowledged.len());
        let there_still: Vec<&String> = self.refused.iter().filter(|title| titles.contains(title)).collect();
        ensure!(there_still.is_empty(), "refused, and there all the same: {there_still:?}");
        ensure!(there.len() == titles.len(), "{} tasks of {} titles: some are there twice", there.len(), titles.len());
        ensure!(!self.acknowledged.is_empty(), "nothing was acknowledged");
        Ok(self.acknowledged.len())
    }
}
