//! The accounts that a run asks as: made before it, cleared up after each load.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use thiserror::Error;

use crate::{
    account::{Account, Request, TASKS, Wrong},
    http::{self, HttpError},
};

/// Tasks made at once: servers that write durably write for many at once.
const WRITERS: usize = 64;
/// Registrations at once: each takes a core for some 30 ms, and servers bound how many wait.
const REGISTRARS: usize = 4;
/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why there are no accounts.
#[derive(Debug, Error)]
pub enum PrepareError {
    /// The server does not answer.
    #[error("can't prepare accounts on {0}: {1}; its log may say why")]
    Connection(SocketAddr, io::Error),
    /// It answers no HTTP.
    #[error("can't prepare accounts: {0}")]
    Http(#[from] HttpError),
    /// It answers something else.
    #[error("can't prepare accounts: {method} is answered {wrong:?}: {body}")]
    Refused {
        /// What was asked.
        method: String,
        /// What is wrong about the answer.
        wrong: Wrong,
        /// The answer.
        body: String,
    },
}

/// Registers accounts with their tasks.
pub fn accounts(address: SocketAddr, count: usize) -> Result<Vec<Account>, PrepareError> {
    let mut accounts: Vec<_> = (0..count).map(|_| Account::default()).collect();
    for_each(REGISTRARS, address, &mut accounts, |client, number, account| {
        account.token = client.register(number)?;
        Ok(())
    })?;
    for_each(WRITERS, address, &mut accounts, |client, _, account| {
        for _ in 0..TASKS {
            let create = account.create();
            client.ask(account, create)?;
        }
        account.tasks.append(&mut account.made);
        Ok(())
    })?;
    Ok(accounts)
}

/// Deletes what a run has created, so that the next begins as it did.
pub fn clear_up(address: SocketAddr, accounts: &mut [Account]) -> Result<(), PrepareError> {
    for_each(WRITERS, address, accounts, |client, _, account| {
        for id in std::mem::take(&mut account.made) {
            client.ask(account, Request::Delete(id))?;
        }
        Ok(())
    })
}

/// Does something for each account, for so many at once.
fn for_each(
    threads: usize,
    address: SocketAddr,
    accounts: &mut [Account],
    work: impl Fn(&mut Client, usize, &mut Account) -> Result<(), PrepareError> + Sync,
) -> Result<(), PrepareError> {
    let queue = Mutex::new(accounts.iter_mut().enumerate());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        let worker = || {
            let mut client = Client::connect(address)?;
            while let Some((number, account)) = next() {
                work(&mut client, number, account)?;
            }
            Ok(())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let ended = |_| PrepareError::Connection(address, io::Error::other("a thread ended"));
        workers.into_iter().try_for_each(|worker| worker.join().map_err(ended)?)
    })
}

/// A connection that waits for each answer.
struct Client {
    address: SocketAddr,
    stream: TcpStream,
}

impl Client {
    fn connect(address: SocketAddr) -> Result<Self, PrepareError> {
        let connect = || {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            Ok(stream)
        };
        connect().map(|stream| Self { address, stream }).map_err(|error| PrepareError::Connection(address, error))
    }

    /// Registers an account; returns its token.
    fn register(&mut self, number: usize) -> Result<String, PrepareError> {
        let body = format!(r#"{{"email":"user{number}@bench.example","password":"correct horse"}}"#);
        let mut request = Vec::new();
        http::write(&mut request, "POST", format_args!("/api/auth/register"), "", &body);
        self.exchange(&request, |answer| match token(answer.body).filter(|_| answer.status == 201) {
            Some(token) => Ok(token),
            None => Err(refused("POST /api/auth/register", Wrong::Status(answer.status), answer.body)),
        })
    }

    fn ask(&mut self, account: &mut Account, request: Request) -> Result<(), PrepareError> {
        let mut bytes = Vec::new();
        account.write(request, &mut bytes);
        self.exchange(&bytes, |answer| {
            let settled = account.settle(request, answer);
            settled.map_err(|wrong| refused(&format!("{request:?}"), wrong, answer.body))
        })
    }

    fn exchange<T>(
        &mut self,
        request: &[u8],
        read: impl FnOnce(&http::Answer<'_>) -> Result<T, PrepareError>,
    ) -> Result<T, PrepareError> {
        let failed = |error| PrepareError::Connection(self.address, error);
        self.stream.write_all(request).map_err(failed)?;
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            if let Some(answer) = http::parse(&bytes)? {
                return read(&answer);
            }
            match self.stream.read(&mut buffer).map_err(failed)? {
                0 => return Err(failed(ErrorKind::UnexpectedEof.into())),
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

fn refused(method: &str, wrong: Wrong, body: &[u8]) -> PrepareError {
    PrepareError::Refused { method: method.to_owned(), wrong, body: String::from_utf8_lossy(body).into_owned() }
}

fn token(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    body.get("token")?.as_str().map(ToOwned::to_owned)
}
