//! The engine against a server that answers as slowly and as brokenly as the test wants: what it counts must be what was there.

#![expect(clippy::unwrap_used, reason = "a test that can not go on says so")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use load::{
    account::Account,
    engine::{Target, Window, measure},
    measurement::{Cell, Load},
};

const TASK: &str = r#"{"id":7,"user_id":1,"title":"invoice report meeting release backup contract budget survey customer harbour garden ticket schedule review payment window printer travel training archive","status":"pending in_progress completed"}"#;

/// What the server does with the `number`th request of a connection: its answer, or none and the connection ends.
type Behaviour = fn(number: u32, request: &str) -> Option<String>;

fn serve(behaviour: Behaviour) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || answer(&stream, behaviour));
        }
    });
    address
}

fn answer(mut stream: &TcpStream, behaviour: Behaviour) {
    let mut reader = BufReader::new(stream);
    for number in 0.. {
        let (mut request, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
            request += &line;
        }
        reader.read_exact(&mut vec![0; length]).unwrap();
        let Some(answer) = behaviour(number, &request) else { return };
        // In two pieces: the engine has to put them together.
        let (first, second) = answer.split_at(answer.len() / 2);
        if stream.write_all(first.as_bytes()).and_then(|()| stream.write_all(second.as_bytes())).is_err() {
            return;
        }
    }
}

/// The right answer to every request of the mix.
fn right(request: &str) -> String {
    let status = if request.starts_with("POST") { "201 Created" } else { "200 OK" };
    let body = match request {
        list if list.starts_with("GET /api/tasks HTTP") => format!(r#"{{"items":[{}]}}"#, [TASK; 20].join(",")),
        // A change shows the status that was asked for, whichever it was.
        patch if patch.starts_with("PATCH") => {
            r#"{"id":7,"was":[{"status":"pending"},{"status":"in_progress"},{"status":"completed"}]}"#.to_owned()
        }
        _ => TASK.to_owned(),
    };
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn cell(behaviour: Behaviour, load: Load) -> Cell {
    let mut account = Account::default();
    account.tasks.push(7);
    let target = Target { address: serve(behaviour), server: std::process::id(), stores: &[] };
    let window = Window { warm_up: Duration::from_millis(20), measured: Duration::from_millis(500) };
    measure(&target, &mut [account], load, window).unwrap()
}

#[test]
fn right_answers_are_no_errors() {
    for load in [Load::Closed { connections: 3 }, Load::Open { rate: 500, users: 20 }] {
        let cell = cell(|_, request| Some(right(request)), load);
        assert!(cell.errors.is_empty(), "{load}: {:?}", cell.errors);
        assert!(cell.throughput > 0.0 && cell.latency.p50 <= cell.latency.max, "{load}: {cell:?}");
    }
}

#[test]
fn every_wrong_answer_is_an_error() {
    let busy = |_, _: &str| Some("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_owned());
    let cell = cell(busy, Load::Closed { connections: 2 });
    assert_eq!(cell.errors.keys().collect::<Vec<_>>(), ["status 503"]);
    assert!((cell.error_rate - 1.0).abs() < f64::EPSILON, "{cell:?}");
}

#[test]
fn a_connection_that_ends_costs_its_request_and_no_other() {
    let cell = cell(|number, request| (number < 3).then(|| right(request)), Load::Closed { connections: 2 });
    assert_eq!(cell.errors.keys().collect::<Vec<_>>(), ["the server closed the connection"]);
    assert!((0.1..0.5).contains(&cell.error_rate), "about one of four: {cell:?}");
}

#[test]
fn latency_counts_from_when_a_request_was_due() {
    // One user, whose every request takes longer than the user thinks: the requests queue up.
    let slow = |_, request: &str| {
        thread::sleep(Duration::from_millis(40));
        Some(right(request))
    };
    let cell = cell(slow, Load::Open { rate: 100, users: 1 });
    assert!(cell.latency.max > 120.0, "later requests wait for those before them: {cell:?}");
}
