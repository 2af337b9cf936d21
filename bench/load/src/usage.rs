//! CPU time and memory of processes, from /proc.

use std::{collections::HashMap, fs, io, time::Duration};

/// The CPU time that a process and everything below it has used since its start.
pub fn cpu(root: u32) -> io::Result<Duration> {
    let mut processes = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // It may have ended meanwhile.
        if let Some(process) = fs::read_to_string(format!("/proc/{id}/stat")).ok().as_deref().and_then(Process::parse) {
            processes.insert(id, process);
        }
    }
    let below = |id: &u32| {
        let parent = |id: &u32| processes.get(id).map(|process| process.parent);
        std::iter::successors(Some(*id), parent).any(|ancestor| ancestor == root)
    };
    let ticks = processes.iter().filter(|(id, _)| below(id)).map(|(_, process)| process.ticks).sum::<u64>();
    Ok(Duration::from_micros(ticks * 1_000_000 / rustix::param::clock_ticks_per_second()))
}

/// The memory that a process has resident, in bytes.
pub fn memory(process: u32) -> io::Result<u64> {
    let statm = fs::read_to_string(format!("/proc/{process}/statm"))?;
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    Ok(pages * rustix::param::page_size() as u64)
}

/// The number of processes that want to run, averaged over a minute.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default()
}

struct Process {
    parent: u32,
    /// Its own time, and that of its children that have ended.
    ticks: u64,
}

impl Process {
    /// Reads a line of /proc/PID/stat.
    fn parse(stat: &str) -> Option<Self> {
        // The name, in parentheses, may hold anything.
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().unwrap_or_default()).sum();
        Some(Self { parent: fields[1].parse().ok()?, ticks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat() {
        let line = "42 (a) b) S 7 42 42 0 -1 4194560 100 0 0 0 10 5 2 1 20 0 3 0 1 2 3";
        let process = Process::parse(line).unwrap();
        assert_eq!((process.parent, process.ticks), (7, 18));
    }

    #[test]
    fn this_process_uses_something() {
        let own = std::process::id();
        let before = cpu(own).unwrap();
        while cpu(own).unwrap() == before {}
        assert!(memory(own).unwrap() > 100_000);
        assert!(cpu(u32::MAX).unwrap().is_zero());
    }
}
