//! The load: thousands of connections on one thread, with two system calls a request.
//!
//! A generator that costs more than the server measures itself, so this is epoll without a runtime in between.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
    },
    io::Errno,
};
use thiserror::Error;

use crate::{
    account::{Account, Request, Wrong},
    http::{self, HttpError},
    measurement::{Cell, Cpu, Latency, Load},
    usage,
};

/// How long answers are waited for after the last request.
const GRACE: Duration = Duration::from_secs(5);
/// Answers fit; those that do not are collected.
const BUFFER: usize = 64 * 1024;
/// After so many connections the server has a moment to accept them: its queue holds about a thousand.
const CONNECT_BATCH: usize = 128;

/// Why there is no measurement.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The server is not there.
    #[error(
        "can't connect to {0}: {1}; does the server still run, and is `ulimit -n` above the number of connections?"
    )]
    Connect(SocketAddr, io::Error),
    /// The system.
    #[error("the system failed: {0}")]
    System(#[from] io::Error),
    /// The histogram.
    #[error("the histogram failed: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
}

impl From<Errno> for EngineError {
    fn from(errno: Errno) -> Self {
        Self::System(errno.into())
    }
}

/// Whom to load, and whose CPU time is counted.
#[derive(Debug)]
pub struct Target<'a> {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process.
    pub server: u32,
    /// The processes of its stores.
    pub stores: &'a [u32],
}

impl Target<'_> {
    fn cpu(&self) -> io::Result<Cpu> {
        let micros = |id| usage::cpu(id).map(|time| time.as_secs_f64() * 1e6);
        let stores = self.stores.iter().map(|id| micros(*id)).sum::<io::Result<f64>>()?;
        let server = micros(self.server)?;
        // The server is below the generator.
        Ok(Cpu { server, stores, generator: micros(std::process::id())? - server })
    }
}

/// When it is measured: after a time to warm up, for so long.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Not measured.
    pub warm_up: Duration,
    /// Measured.
    pub measured: Duration,
}

/// Loads the server and measures what it does.
pub fn measure(target: &Target<'_>, accounts: &mut [Account], load: Load, window: Window) -> Result<Cell, EngineError> {
    let mut engine = Engine::connect(target.address, accounts, load)?;
    let from = Instant::now() + window.warm_up;
    let until = from + window.measured;
    engine.counts.window = Some((from, until));

    engine.begin()?;
    engine.run_until(from)?;
    let before = target.cpu()?;
    engine.run_until(until)?;
    let after = target.cpu()?;
    let memory = usage::memory(target.server)?;
    engine.finish(until + GRACE)?;
    Ok(engine.counts.into_cell(load, window.measured, (before, after), memory))
}

/// A request on its way.
#[derive(Clone, Copy)]
struct Pending {
    request: Request,
    account: usize,
    due: Instant,
}

struct Connection {
    stream: TcpStream,
    pending: Option<Pending>,
    /// The beginning of an answer that came in pieces.
    partial: Vec<u8>,
    /// When requests were due that wait for the one before.
    late: VecDeque<Instant>,
}

struct Engine<'a> {
    address: SocketAddr,
    accounts: &'a mut [Account],
    /// The mean time that a user thinks, in an open loop.
    think: Option<Duration>,
    random: fastrand::Rng,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    /// Which connection's next request is due when.
    timetable: BinaryHeap<Reverse<(Instant, usize)>>,
    sending: bool,
    counts: Counts,
    buffer: Vec<u8>,
    outgoing: Vec<u8>,
}

impl<'a> Engine<'a> {
    fn connect(address: SocketAddr, accounts: &'a mut [Account], load: Load) -> Result<Self, EngineError> {
        let (connections, think) = match load {
            Load::Closed { connections } => (connections, None),
            Load::Open { rate, users } => (users, Some(Duration::from_secs(1) * users / rate)),
        };
        let mut engine = Self {
            address,
            accounts,
            think,
            random: fastrand::Rng::with_seed(4),
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            connections: Vec::new(),
            timetable: BinaryHeap::new(),
            sending: true,
            counts: Counts::new()?,
            buffer: vec![0; BUFFER],
            outgoing: Vec::new(),
        };
        for index in 0..connections as usize {
            let stream = engine.open(index)?;
            engine.connections.push(Connection { stream, pending: None, partial: Vec::new(), late: VecDeque::new() });
            if index % CONNECT_BATCH == CONNECT_BATCH - 1 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(engine)
    }

    fn open(&self, index: usize) -> Result<TcpStream, EngineError> {
        let stream = TcpStream::connect(self.address).map_err(|error| EngineError::Connect(self.address, error))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        // Once for each arrival: whoever has read a whole answer needs no second read to learn that there is no more.
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &stream, EventData::new_u64(index as u64), flags)?;
        Ok(stream)
    }

    /// Sends the first requests, or sets the time when each is due.
    fn begin(&mut self) -> Result<(), EngineError> {
        let now = Instant::now();
        for index in 0..self.connections.len() {
            match self.think {
                None => self.send(index, now)?,
                Some(think) => {
                    let due = now + thinking(think, &mut self.random);
                    self.timetable.push(Reverse((due, index)));
                }
            }
        }
        Ok(())
    }

    fn run_until(&mut self, end: Instant) -> Result<(), EngineError> {
        while self.turn(end)? {}
        Ok(())
    }

    /// Sends nothing new, and waits for the answers that are missing.
    fn finish(&mut self, end: Instant) -> Result<(), EngineError> {
        self.sending = false;
        self.timetable.clear();
        let busy = |engine: &Self| engine.connections.iter().any(|connection| connection.pending.is_some());
        while busy(self) && self.turn(end)? {}
        for connection in std::mem::take(&mut self.connections) {
            let unanswered = connection.pending.map(|pending| pending.due).into_iter().chain(connection.late);
            for due in unanswered {
                self.counts.failed(due, "no answer");
            }
        }
        Ok(())
    }

    /// Waits for whatever is next, and does it; false after `end`.
    fn turn(&mut self, end: Instant) -> Result<bool, EngineError> {
        let now = Instant::now();
        if now >= end {
            return Ok(false);
        }
        let next = self.timetable.peek().map_or(end, |Reverse((due, _))| end.min(*due));
        let wait = next.saturating_duration_since(now);
        let wait = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() };
        let mut events = Vec::with_capacity(1024);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in events {
            let index = usize::try_from(event.data.u64()).unwrap_or_default();
            let flags = event.flags;
            self.receive(index, flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR))?;
        }
        self.send_due()?;
        Ok(true)
    }

    fn send_due(&mut self) -> Result<(), EngineError> {
        let (Some(think), now) = (self.think, Instant::now()) else { return Ok(()) };
        while let Some(Reverse((due, index))) = self.timetable.peek().copied().filter(|Reverse((due, _))| *due <= now) {
            self.timetable.pop();
            self.timetable.push(Reverse((due + thinking(think, &mut self.random), index)));
            if self.connections[index].pending.is_some() {
                self.connections[index].late.push_back(due);
            } else {
                self.send(index, due)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, index: usize, due: Instant) -> Result<(), EngineError> {
        // In the open loop a connection is a user; in the closed one a hundred connections serve all of them.
        let account = match self.think {
            Some(_) => index % self.accounts.len(),
            None => self.random.usize(..self.accounts.len()),
        };
        let request = self.accounts[account].next(&mut self.random);
        self.outgoing.clear();
        self.accounts[account].write(request, &mut self.outgoing);
        let connection = &mut self.connections[index];
        connection.pending = Some(Pending { request, account, due });
        // A request is smaller than the buffer of a connection that waits for nothing.
        match connection.stream.write_all(&self.outgoing) {
            Ok(()) => Ok(()),
            Err(error) => self.broken(index, &error.to_string()),
        }
    }

    fn receive(&mut self, index: usize, hung_up: bool) -> Result<(), EngineError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let received = self.read_answer(index, &mut buffer);
        self.buffer = buffer;
        match received {
            Received::Nothing => Ok(()),
            Received::End(why) => self.broken(index, &why),
            Received::Answer => {
                if hung_up {
                    self.reopen(index)?;
                }
                self.send_next(index)
            }
        }
    }

    fn send_next(&mut self, index: usize) -> Result<(), EngineError> {
        if let Some(due) = self.connections[index].late.pop_front() {
            self.send(index, due)
        } else if self.sending && self.think.is_none() {
            self.send(index, Instant::now())
        } else {
            Ok(())
        }
    }

    fn read_answer(&mut self, index: usize, buffer: &mut [u8]) -> Received {
        loop {
            let connection = &mut self.connections[index];
            let read = match connection.stream.read(buffer) {
                Ok(0) => return Received::End("the server closed the connection".to_owned()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Received::Nothing,
                Err(error) => return Received::End(error.to_string()),
            };
            let Some(pending) = connection.pending else {
                return Received::End("an answer to no request".to_owned());
            };
            let mut partial = std::mem::take(&mut connection.partial);
            let bytes = if partial.is_empty() {
                &buffer[..read]
            } else {
                partial.extend_from_slice(&buffer[..read]);
                &partial
            };
            match http::parse(bytes) {
                Ok(Some(answer)) => {
                    let settled = self.accounts[pending.account].settle(pending.request, &answer);
                    self.connections[index].pending = None;
                    self.counts.answered(pending.due, settled);
                    return Received::Answer;
                }
                Ok(None) => self.connections[index].partial = bytes.to_vec(),
                Err(error @ (HttpError::Malformed(_) | HttpError::NoLength)) => {
                    return Received::End(error.to_string());
                }
            }
        }
    }

    /// Counts the request that was on its way as failed, and goes on with a new connection.
    fn broken(&mut self, index: usize, why: &str) -> Result<(), EngineError> {
        let pending = self.connections[index].pending.take();
        if let Some(pending) = pending {
            self.counts.failed(pending.due, why);
        }
        self.reopen(index)?;
        if pending.is_some() { self.send_next(index) } else { Ok(()) }
    }

    fn reopen(&mut self, index: usize) -> Result<(), EngineError> {
        let stream = self.open(index)?;
        let connection = &mut self.connections[index];
        connection.stream = stream;
        connection.partial.clear();
        Ok(())
    }
}

enum Received {
    Answer,
    Nothing,
    End(String),
}

/// How long a user thinks: exponentially distributed, so that all users together ask at random times.
fn thinking(mean: Duration, random: &mut fastrand::Rng) -> Duration {
    mean.mul_f64(-(1.0 - random.f64()).ln())
}

/// What is counted: requests that were due in the measured time, and answers that came in it.
struct Counts {
    window: Option<(Instant, Instant)>,
    /// Microseconds.
    latencies: Histogram<u64>,
    errors: BTreeMap<String, u64>,
    answers: u64,
}

impl Counts {
    fn new() -> Result<Self, EngineError> {
        let latencies = Histogram::new_with_max(60_000_000, 3)?;
        Ok(Self { window: None, latencies, errors: BTreeMap::new(), answers: 0 })
    }

    fn answered(&mut self, due: Instant, settled: Result<(), Wrong>) {
        if self.covers(Instant::now()) {
            self.answers += 1;
        }
        match settled {
            Ok(()) => self.took(due),
            Err(Wrong::Status(status)) => self.failed(due, &format!("status {status}")),
            Err(Wrong::Body(why)) => self.failed(due, why),
        }
    }

    /// A request that fails has a latency, too: to fail fast is not to be fast.
    fn failed(&mut self, due: Instant, why: &str) {
        if self.covers(due) {
            *self.errors.entry(why.to_owned()).or_default() += 1;
        }
        self.took(due);
    }

    fn took(&mut self, due: Instant) {
        if self.covers(due) {
            self.latencies.saturating_record(u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
    }

    fn covers(&self, at: Instant) -> bool {
        self.window.is_some_and(|(from, until)| (from..until).contains(&at))
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn into_cell(self, load: Load, measured: Duration, (before, after): (Cpu, Cpu), memory: u64) -> Cell {
        let quantile = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1e3;
        let answers = self.answers.max(1) as f64;
        let wrong = self.errors.values().sum::<u64>() as f64;
        Cell {
            load,
            throughput: self.answers as f64 / measured.as_secs_f64(),
            latency: Latency { p50: quantile(0.5), p95: quantile(0.95), p99: quantile(0.99), max: quantile(1.0) },
            errors: self.errors,
            error_rate: wrong / self.latencies.len().max(1) as f64,
            cpu: Cpu {
                server: (after.server - before.server) / answers,
                stores: (after.stores - before.stores) / answers,
                generator: (after.generator - before.generator) / answers,
            },
            memory: memory as f64 / 1_048_576.0,
        }
    }
}
