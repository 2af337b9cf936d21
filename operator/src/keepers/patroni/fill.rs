//! How fast the volumes of members fill up.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use super::cluster::{Member, Volume};

/// How often it is noted how full a volume is, and for how long that is remembered.
const INTERVAL: Duration = Duration::from_mins(10);
const REMEMBERED: Duration = Duration::from_hours(24);
/// What was seen for less than this tells no rate, and neither does less growth than these thousandths: a checkpoint frees as much.
const LEAST_TIME: Duration = Duration::from_hours(1);
const LEAST_GROWTH: u16 = 10;
/// Nobody plans further ahead, in days.
const HORIZON: u64 = 1000;

/// How full the volumes were within the last day, by their pods.
#[derive(Debug, Default)]
pub(super) struct Fill(BTreeMap<String, Volumes>);

/// How full one volume was: its size, and what was used when, in thousandths.
#[derive(Debug, Default)]
struct Volumes {
    size: u64,
    used: VecDeque<(Instant, u16)>,
}

impl Fill {
    /// Notes how full the volumes of these members are, and tells them in how many days that will be all.
    pub(super) fn note(&mut self, members: &mut [Member]) {
        self.0.retain(|pod, _| members.iter().any(|member| member.pod == *pod));
        for member in members {
            if let Some(volume) = &mut member.volume {
                let known = self.0.entry(member.pod.clone()).or_default();
                known.note(volume);
                volume.full_in_days = known.full_in_days(volume.used);
            }
        }
    }
}

impl Volumes {
    fn note(&mut self, volume: &Volume) {
        if volume.size != self.size {
            // What was used of another size tells nothing.
            *self = Self { size: volume.size, used: VecDeque::new() };
        }
        if self.used.back().is_none_or(|(at, _)| at.elapsed() >= INTERVAL) {
            self.used.push_back((Instant::now(), volume.used));
        }
        while self.used.front().is_some_and(|(at, _)| at.elapsed() > REMEMBERED) {
            self.used.pop_front();
        }
    }

    fn full_in_days(&self, used: u16) -> Option<u32> {
        let (since, before) = *self.used.front()?;
        let growth = used.checked_sub(before).filter(|growth| *growth >= LEAST_GROWTH)?;
        let elapsed = Some(since.elapsed()).filter(|elapsed| *elapsed >= LEAST_TIME)?;
        let left = u64::from(1000_u16.saturating_sub(used));
        let days = left * elapsed.as_secs() / u64::from(growth) / Duration::from_hours(24).as_secs();
        u32::try_from(days).ok().filter(|_| days <= HORIZON)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(fill: &mut Fill, size: u64, used: u16) -> Option<u32> {
        let volume = Some(Volume { size, used, ..Volume::default() });
        let mut members = [Member { pod: "a-0".to_owned(), volume, ..Member::default() }];
        fill.note(&mut members);
        members[0].volume.as_ref()?.full_in_days
    }

    #[tokio::test(start_paused = true)]
    async fn the_days_that_are_left_follow_from_the_rate_of_the_last_day() {
        let mut fill = Fill::default();
        assert_eq!(days(&mut fill, 1000, 400), None, "nothing is known of its rate");
        tokio::time::advance(Duration::from_mins(30)).await;
        assert_eq!(days(&mut fill, 1000, 420), None, "half an hour tells no rate");
        tokio::time::advance(Duration::from_mins(90)).await;
        assert_eq!(days(&mut fill, 1000, 405), None, "so little comes and goes");
        // 100 within two hours, 500 are left: ten hours.
        assert_eq!(days(&mut fill, 1000, 500), Some(0));
        tokio::time::advance(Duration::from_hours(22)).await;
        assert_eq!(days(&mut fill, 1000, 500), Some(5), "100 within a day, 500 are left");
        for _ in 0..200 {
            tokio::time::advance(INTERVAL).await;
            assert!(fill.0["a-0"].used.len() <= 146);
            days(&mut fill, 1000, 500);
        }
        assert_eq!(days(&mut fill, 1000, 500), None, "it has not grown for a day");
        assert_eq!(days(&mut fill, 2000, 900), None, "of another size nothing is known");
    }
}
