//! nginx with the configuration of the blueprint, and what is behind it.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::{self, scope, sleep},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use taskplatform_blueprint::{Facts, Kind, Platform, blueprint};
use taskplatform_crds::TaskPlatform;

use crate::behind::{Dns, Instance, together};

/// How often somebody who waits looks.
pub(crate) const MOMENT: Duration = Duration::from_millis(10);
const USERS: usize = 6;

/// `make test` installs it where it is missing.
fn assert_nginx() {
    let module = fs::exists("/usr/lib/nginx/modules/ngx_http_lua_module.so").unwrap();
    let found = module && Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_ok();
    assert!(found, "no nginx with Lua: apt-get install nginx-light libnginx-mod-http-lua lua-nginx-dns");
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        sleep(MOMENT);
    }
}

/// What came of a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) took: Duration,
}

/// All of it.
pub(crate) struct Bed {
    pub(crate) instances: Vec<Instance>,
    pub(crate) dns: Dns,
    nginx: Child,
    folder: PathBuf,
    /// The users', the status server's, and the operator's.
    ports: [u16; 3],
}

impl Bed {
    /// A gateway that knows its instances.
    pub(crate) fn new(instances: usize, spec: &Value) -> Self {
        assert_nginx();
        let instances = together(instances);
        let dns = Dns::start(instances.iter().map(Instance::ip).collect());
        let folder = std::env::temp_dir().join(format!("gateway-{}-{}", std::process::id(), dns.port));
        fs::create_dir(&folder).unwrap();
        // nginx' workers run as another user where this is root.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let ports = free_ports();
        configure(&folder, ports, instances[0].address.port(), dns.port, spec);
        let log = fs::File::create(folder.join("log")).unwrap();
        let nginx = Command::new("nginx")
            .args(["-c", folder.join("nginx.conf").to_str().unwrap(), "-g", "daemon off;"])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let bed = Self { instances, dns, nginx, folder, ports };
        eventually("nginx knows the instances", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, bed.ports[1])).is_ok()
                && bed.get_peers()["peers"].as_array().is_some_and(|peers| peers.len() == bed.instances.len())
        });
        bed
    }

    pub(crate) fn addresses(&self) -> Vec<Ipv4Addr> {
        self.instances.iter().map(Instance::ip).collect()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        request(self.ports[0], "GET", path).unwrap()
    }

    /// Asks over a connection that begins with `before`, if with anything, and with these headers.
    pub(crate) fn get_through(&self, before: &str, headers: &str) -> Answer {
        send(self.ports[0], &format!("{before}GET /api/tasks HTTP/1.0\r\nHost: tasks\r\n{headers}\r\n")).unwrap()
    }

    pub(crate) fn change(&self, method: &str, path: &str) -> Answer {
        request(self.ports[0], method, path).unwrap()
    }

    /// Sends a request and goes away after some time.
    pub(crate) fn give_up(&self, method: &str, path: &str, patience: Duration) {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports[0])).unwrap();
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: tasks\r\nContent-Length: 0\r\n\r\n").unwrap();
        sleep(patience);
    }

    /// What the head of an answer says over a connection that could go on.
    pub(crate) fn head(&self, path: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports[0])).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: tasks\r\n\r\n").unwrap();
        let head = BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        head.collect::<Vec<_>>().join("\n").to_lowercase()
    }

    /// Tells it that it is to go, and returns what it answers, later.
    pub(crate) fn leave(&self) -> thread::JoinHandle<Answer> {
        let port = self.ports[1];
        thread::spawn(move || request(port, "POST", "/leave").unwrap())
    }

    /// What is answered to a pod that tells it to go, and claims this address.
    pub(crate) fn leave_as(&self, address: &str) -> u16 {
        let request =
            format!("POST /leave HTTP/1.0\r\nHost: tasks\r\nContent-Length: 0\r\nX-Forwarded-For: {address}\r\n\r\n");
        send(self.ports[1], &request).unwrap().status
    }

    pub(crate) fn ask_as_operator(&self, path: &str) -> Answer {
        request(self.ports[2], "GET", path).unwrap()
    }

    pub(crate) fn get_peers(&self) -> Value {
        serde_json::from_str(&request(self.ports[1], "GET", "/peers").unwrap().body).unwrap()
    }

    /// For how many milliseconds somebody waited for a change, each time.
    pub(crate) fn get_write_pauses(&self) -> Vec<i64> {
        let pauses: Value = serde_json::from_str(&request(self.ports[1], "GET", "/writes").unwrap().body).unwrap();
        let time = |pause: &Value| pause["to"].as_i64().unwrap() - pause["from"].as_i64().unwrap();
        pauses.as_array().unwrap().iter().map(time).collect()
    }

    /// Writes until the first instance, which is frozen, has got one, and returns that one.
    pub(crate) fn post_until_frozen_has_it(&self) -> String {
        for number in 0..20 {
            let path = format!("/api/tasks/{number}");
            let port = self.ports[0];
            let writing = {
                let path = path.clone();
                thread::spawn(move || request(port, "POST", &path))
            };
            let write = format!("POST {path}");
            eventually("it is written", || self.instances.iter().any(|instance| instance.saw(&write)));
            if self.instances[0].saw(&write) {
                return write;
            }
            assert_eq!(writing.join().unwrap().unwrap().status, 200);
        }
        panic!("the first instance gets none")
    }

    /// Asks all the time, and does something meanwhile.
    pub(crate) fn under_load(&mut self, time: Duration, meanwhile: impl FnOnce(&mut Self)) -> Vec<Answer> {
        let (began, port) = (Instant::now(), self.ports[0]);
        let mut answers = scope(|scope| {
            let users: Vec<_> = (0..USERS)
                .map(|_| {
                    scope.spawn(move || {
                        let mut answers = Vec::new();
                        while began.elapsed() < time {
                            answers.push((Instant::now(), request(port, "GET", "/api/tasks").unwrap()));
                            sleep(MOMENT);
                        }
                        answers
                    })
                })
                .collect();
            meanwhile(self);
            users.into_iter().flat_map(|user| user.join().unwrap()).collect::<Vec<_>>()
        });
        answers.sort_by_key(|(at, _)| *at);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // SIGKILL would leave the workers behind.
        let _ = Command::new("kill").arg(self.nginx.id().to_string()).status();
        let _ = self.nginx.wait();
        if thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.folder.join("log")).unwrap_or_default());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The gateway's files as the blueprint has them, with this bed's ports and paths.
fn configure(folder: &Path, ports: [u16; 3], api_port: u16, dns_port: u16, spec: &Value) {
    let document = json!({
        "apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform",
        "metadata": {"name": "tasks", "namespace": "shop"}, "spec": spec,
    });
    let platform = Platform::new(&TaskPlatform::parse(document).unwrap()).unwrap();
    let objects = blueprint(&platform, &Facts::default());
    let map =
        objects.iter().find(|object| object.kind() == Kind::ConfigMap && object.name() == "tasks-gateway").unwrap();
    let file = |name: &str| map.value()["data"][name].as_str().unwrap().to_owned();
    let here = folder.to_str().unwrap();

    let mut nginx = replace(&file("nginx.conf"), "/tmp/", &format!("{here}/"));
    nginx = replace(&nginx, "/etc/nginx/", &format!("{here}/"));
    nginx = replace(&nginx, "\"shop\", 8080", &format!("\"shop\", {api_port}"));
    for (port, own) in ["8080", "8081", "8082"].iter().zip(ports) {
        nginx = replace(&nginx, &format!("listen {port}"), &format!("listen 127.0.0.1:{own}"));
    }
    let lines: Vec<&str> = nginx.lines().filter(|line| !line.contains("listen [::]")).collect();
    fs::write(folder.join("nginx.conf"), lines.join("\n")).unwrap();

    let peers = replace(&file("peers.lua"), "/etc/resolv.conf", &format!("{here}/resolv.conf"));
    let peers = replace(&peers, "DNS_PORT = 53", &format!("DNS_PORT = {dns_port}"));
    fs::write(folder.join("peers.lua"), peers).unwrap();
    fs::write(folder.join("writes.lua"), file("writes.lua")).unwrap();
    fs::write(folder.join("resolv.conf"), "search shop.svc.cluster.test svc.cluster.test\nnameserver 127.0.0.1\n")
        .unwrap();
}

fn replace(text: &str, what: &str, by: &str) -> String {
    assert!(text.contains(what), "{what} is not there");
    text.replace(what, by)
}

fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn request(port: u16, method: &str, path: &str) -> std::io::Result<Answer> {
    send(port, &format!("{method} {path} HTTP/1.0\r\nHost: tasks\r\nContent-Length: 0\r\n\r\n"))
}

fn send(port: u16, request: &str) -> std::io::Result<Answer> {
    let began = Instant::now();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(40)))?;
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(ErrorKind::InvalidData)?;
    Ok(Answer { status, body: body.to_owned(), took: began.elapsed() })
}
