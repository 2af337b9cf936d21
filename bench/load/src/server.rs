//! The server under load: started by the generator, so that its start is timed and its process known.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    thread::sleep,
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::http;

/// How long it may take to its first answer.
const START: Duration = Duration::from_secs(30);
/// How often it is asked.
const PAUSE: Duration = Duration::from_micros(500);

/// Why there is no server.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The command.
    #[error("can't start {0}: {1}")]
    Start(String, io::Error),
    /// It ended.
    #[error("the server ended at once ({0}); what it said is in {1}")]
    Ended(ExitStatus, PathBuf),
    /// It is slow.
    #[error("the server does not answer GET /api/tasks on {0} with 401 within {limit} s", limit = START.as_secs())]
    Silent(SocketAddr),
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Server {
    process: Child,
    /// From the start of the process to its first answer.
    pub start: Duration,
}

impl Server {
    /// Starts it and waits until it asks who wants to see their tasks: then its store is there, too.
    pub fn start(command: &[String], address: SocketAddr, log: &Path) -> Result<Self, ServerError> {
        let begun = Instant::now();
        let process = spawn(command, log).map_err(|error| ServerError::Start(command.join(" "), error))?;
        let mut server = Self { process, start: Duration::ZERO };
        while !serves(address) {
            if let Ok(Some(status)) = server.process.try_wait() {
                return Err(ServerError::Ended(status, log.to_owned()));
            }
            if begun.elapsed() > START {
                return Err(ServerError::Silent(address));
            }
            sleep(PAUSE);
        }
        server.start = begun.elapsed();
        Ok(server)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(command: &[String], log: &Path) -> io::Result<Child> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let log = File::create(log)?;
    Command::new(program).args(arguments).stdout(log.try_clone()?).stderr(log).spawn()
}

fn serves(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(START))?;
        let mut request = Vec::new();
        http::write(&mut request, "GET", format_args!("/api/tasks"), "", "");
        stream.write_all(&request)?;
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer)?;
        io::Result::Ok(buffer[..read].starts_with(b"HTTP/1.1 401"))
    };
    ask().unwrap_or(false)
}
