//! The process itself, under the names that Prometheus' own client libraries use.

use std::fmt;

use procfs::{
    ProcResult, boot_time_secs, page_size,
    process::{LimitValue, Process},
    ticks_per_second,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// Reads what the kernel knows whenever it is asked.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Without /proc there is nothing to tell.
        let Ok(seen) = Seen::now() else { return Ok(()) };
        let counter = ConstCounter::new(seen.cpu_seconds);
        let described = encoder.encode_descriptor(
            "process_cpu",
            "User and system CPU time",
            Some(&Unit::Seconds),
            counter.metric_type(),
        )?;
        counter.encode(described)?;
        for (name, help, unit, value) in [
            ("process_resident_memory", "Resident memory", Some(Unit::Bytes), seen.resident_bytes),
            ("process_open_fds", "Open file descriptors", None, seen.open_fds),
            ("process_max_fds", "Most file descriptors that may be open", None, seen.max_fds),
            ("process_start_time", "Start of the process since the epoch", Some(Unit::Seconds), seen.start_seconds),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, unit.as_ref(), gauge.metric_type())?)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Seen {
    cpu_seconds: f64,
    resident_bytes: u64,
    open_fds: u64,
    max_fds: u64,
    start_seconds: u64,
}

impl Seen {
    fn now() -> ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks = ticks_per_second();
        let limit = process.limits()?.max_open_files.soft_limit;
        Ok(Self {
            cpu_seconds: jiff::SignedDuration::from_millis(
                i64::try_from((stat.utime + stat.stime) * 1000 / ticks).unwrap_or(i64::MAX),
            )
            .as_secs_f64(),
            resident_bytes: stat.rss * page_size(),
            open_fds: process.fd_count()? as u64,
            max_fds: if let LimitValue::Value(limit) = limit { limit } else { u64::MAX },
            start_seconds: boot_time_secs()? + stat.starttime / ticks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells() {
        let seen = Seen::now().unwrap();
        assert!(seen.resident_bytes > 1 << 20, "{seen:?}");
        assert!((3..=seen.max_fds).contains(&seen.open_fds), "{seen:?}");
        let started = jiff::Timestamp::from_second(i64::try_from(seen.start_seconds).unwrap()).unwrap();
        assert!(started <= jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1), "{seen:?}");
    }
}
