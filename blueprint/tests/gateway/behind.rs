//! What is behind the gateway: instances of an API, and a DNS server that tells where they are.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    thread::{self, sleep},
    time::Duration,
};

use crate::bed::{MOMENT, eventually};

const NAMES: [&str; 4] = ["zero", "one", "two", "three"];

const LIVES: u8 = 0;
const FROZEN: u8 = 1;
const DEAD: u8 = 2;

/// An instance of the API: says its name, lives or does not.
pub(crate) struct Instance {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    state: AtomicU8,
    slow_ms: AtomicU64,
    seen: Mutex<Vec<String>>,
    /// Of the last request.
    head: Mutex<String>,
    connections: Mutex<Vec<TcpStream>>,
}

/// Instances on one port, as pods have it, each with an address of its own.
pub(crate) fn together(count: usize) -> Vec<Instance> {
    let process = std::process::id().to_be_bytes()[3];
    for _ in 0..20 {
        let first = TcpListener::bind((Ipv4Addr::new(127, 77, process, 1), 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        let more =
            (2..).take(count - 1).map(|number| TcpListener::bind((Ipv4Addr::new(127, 77, process, number), port)));
        if let Ok(more) = more.collect::<Result<Vec<_>, _>>() {
            return [first]
                .into_iter()
                .chain(more)
                .zip(NAMES)
                .map(|(listener, name)| Instance::new(listener, name))
                .collect();
        }
    }
    panic!("no port is free on {count} addresses")
}

impl Instance {
    fn new(listener: TcpListener, name: &'static str) -> Self {
        let shared = Shared {
            name,
            state: AtomicU8::new(LIVES),
            slow_ms: AtomicU64::new(0),
            seen: Mutex::default(),
            head: Mutex::default(),
            connections: Mutex::default(),
        };
        let instance = Self { address: listener.local_addr().unwrap(), shared: Arc::new(shared) };
        instance.accept(listener);
        instance
    }

    pub(crate) fn ip(&self) -> Ipv4Addr {
        let SocketAddr::V4(address) = self.address else { panic!("{} is not of IPv4", self.address) };
        *address.ip()
    }

    /// Whether it got this request.
    pub(crate) fn saw(&self, request: &str) -> bool {
        self.shared.seen.lock().unwrap().iter().any(|seen| seen == request)
    }

    /// What a header of the last request said.
    pub(crate) fn header(&self, name: &str) -> String {
        let head = self.shared.head.lock().unwrap();
        let found = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found.unwrap_or_default().to_owned()
    }

    pub(crate) fn be_slow(&self, time: Duration) {
        self.shared.slow_ms.store(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// As SIGSTOP does it: the kernel goes on accepting.
    pub(crate) fn freeze(&self) {
        self.shared.state.store(FROZEN, Ordering::Relaxed);
    }

    pub(crate) fn kill(&self) {
        self.shared.state.store(DEAD, Ordering::Relaxed);
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        eventually("nobody listens any more", || TcpStream::connect(self.address).is_err());
    }

    /// Starts a dead one, or lets a frozen one go on.
    pub(crate) fn start(&mut self) {
        if self.shared.state.swap(LIVES, Ordering::Relaxed) == DEAD {
            self.accept(TcpListener::bind(self.address).unwrap());
        }
    }

    fn accept(&self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        listener.set_nonblocking(true).unwrap();
        thread::spawn(move || {
            while shared.state.load(Ordering::Relaxed) != DEAD {
                let Ok((stream, _)) = listener.accept() else {
                    sleep(MOMENT / 5);
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                shared.connections.lock().unwrap().push(stream.try_clone().unwrap());
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.serve(stream));
            }
        });
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some((request, head)) = read_request(&mut reader) {
            let is_probe = request == "GET /api/health";
            if !is_probe {
                *self.head.lock().unwrap() = head;
            }
            self.seen.lock().unwrap().push(request);
            if !is_probe {
                sleep(Duration::from_millis(self.slow_ms.load(Ordering::Relaxed)));
            }
            while self.state.load(Ordering::Relaxed) == FROZEN {
                sleep(MOMENT);
            }
            let name = self.name;
            if write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()).is_err() {
                return;
            }
        }
    }
}

/// Method and path of the next request, none of which has a body, and its headers in lower case.
fn read_request(reader: &mut impl BufRead) -> Option<(String, String)> {
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let (request, _) = first.rsplit_once(' ')?;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && head != "\r\n" {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some((request.to_owned(), head.to_lowercase()))
}

/// What DNS says.
pub(crate) enum Records {
    Addresses(Vec<Ipv4Addr>),
    NoSuchName,
    Silence,
}

/// A DNS server for the name of the instances.
pub(crate) struct Dns {
    records: Arc<Mutex<Records>>,
    pub(crate) port: u16,
}

impl Dns {
    pub(crate) fn start(addresses: Vec<Ipv4Addr>) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let records = Arc::new(Mutex::new(Records::Addresses(addresses)));
        let answered = Arc::clone(&records);
        thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                if let Some(answer) = answer(&question[..length], &answered.lock().unwrap()) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { records, port }
    }

    pub(crate) fn set(&self, records: Records) {
        *self.records.lock().unwrap() = records;
    }
}

fn answer(question: &[u8], records: &Records) -> Option<Vec<u8>> {
    const NAME: &[u8] = b"\x13tasks-api-instances\x04shop\x03svc\x07cluster\x04test\0";
    let (header, asked) = question.split_at(12);
    let is_a = asked.strip_prefix(NAME)?.starts_with(&[0, 1]);
    let (code, addresses) = match records {
        Records::Silence => return None,
        Records::NoSuchName => (3, &[][..]),
        Records::Addresses(addresses) => (0, if is_a { &addresses[..] } else { &[] }),
    };
    let count = u8::try_from(addresses.len()).unwrap();
    let mut answer = [&header[..2], &[0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0], asked].concat();
    for address in addresses {
        // The name of the question, A, IN, 5 s, 4 bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
