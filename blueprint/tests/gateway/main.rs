//! What the gateway's configuration makes of a real nginx: whom it asks when instances of the API die, freeze, come and go.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod bed;
mod behind;

use std::{
    thread::{scope, sleep},
    time::Duration,
};

use serde_json::{Value, json};

use bed::{Answer, Bed, eventually};
use behind::{Instance, Records};

const A_SECOND: Duration = Duration::from_secs(1);
/// In which a frozen instance is left, and in which a question to it is asked elsewhere.
const SOON: Duration = Duration::from_secs(2);
/// For a busy machine.
const GRACE: Duration = Duration::from_millis(900);

#[test]
fn a_dead_instance_fails_no_request_and_is_asked_again_when_it_lives() {
    let mut bed = Bed::new(3, &json!({}));
    let answers = bed.under_load(3 * A_SECOND, |bed| {
        sleep(A_SECOND);
        bed.instances[0].kill();
    });
    assert!(
        answers.iter().all(|answer| answer.status == 200),
        "{:?}",
        answers.iter().find(|answer| answer.status != 200)
    );
    let last = &answers[answers.len() - 20..];
    assert!(["one", "two"].iter().all(|name| last.iter().any(|answer| answer.body == *name)), "{last:?}");
    assert!(last.iter().all(|answer| answer.took < A_SECOND), "{last:?}");

    bed.instances[0].start();
    eventually("it is asked again", || bed.get("/api/tasks").body == "zero");
}

#[test]
fn a_frozen_instance_holds_up_no_question_for_long_and_is_left() {
    let mut bed = Bed::new(3, &json!({}));
    bed.instances[0].freeze();
    let (questions, write) = scope(|scope| {
        let write = scope.spawn(|| bed.post_until_frozen_has_it());
        let questions: Vec<_> = (0..6).map(|_| scope.spawn(|| bed.get("/api/tasks"))).collect();
        (questions.into_iter().map(|question| question.join().unwrap()).collect::<Vec<_>>(), write.join().unwrap())
    });
    assert!(questions.iter().all(|answer| answer.status == 200 && answer.took < SOON + GRACE), "{questions:?}");
    assert!(questions.iter().any(|answer| answer.took >= SOON), "the frozen one was not asked: {questions:?}");

    let afterwards = bed.under_load(2 * A_SECOND, |_| {});
    assert!(afterwards.iter().all(|answer| answer.status == 200 && answer.took < A_SECOND), "somebody waited");
    assert!(bed.get_peers()["peers"][0]["state"] == "left out", "{}", bed.get_peers());

    let asked = bed.instances.iter().filter(|instance| instance.saw(&write)).count();
    assert_eq!(asked, 1, "what may have been written is not sent again");
    bed.instances[0].start();
    eventually("it is asked again", || bed.get("/api/tasks").body == "zero");
}

#[test]
fn traffic_goes_on_without_dns_and_new_instances_are_found() {
    let mut bed = Bed::new(4, &json!({}));
    let everybody = bed.addresses();
    for silence in [Records::Silence, Records::NoSuchName] {
        bed.dns.set(silence);
        let answers = bed.under_load(3 * A_SECOND, |_| {});
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        assert_eq!(bed.get_peers()["peers"].as_array().map(Vec::len), Some(4), "{}", bed.get_peers());
    }
    bed.dns.set(Records::Addresses(everybody[2..].to_vec()));
    eventually("only those that DNS names are asked", || {
        (0..10).all(|_| ["two", "three"].contains(&bed.get("/api/tasks").body.as_str()))
    });
    bed.dns.set(Records::Addresses(everybody[..1].to_vec()));
    eventually("a new address is found", || (0..10).all(|_| bed.get("/api/tasks").body == "zero"));
}

#[test]
fn nobody_answers_and_somebody_again() {
    let mut bed = Bed::new(2, &json!({}));
    bed.instances.iter().for_each(Instance::kill);
    for answer in [bed.get("/api/tasks"), bed.change("POST", "/api/tasks"), bed.change("DELETE", "/api/tasks/1")] {
        assert!(answer.status == 503 && detail(&answer).contains("try again"), "{answer:?}");
    }
    bed.instances[1].start();
    eventually("the one that lives is asked", || bed.get("/api/tasks").body == "one");
}

#[test]
fn a_change_whose_answer_is_lost_is_not_made_again_and_not_said_to_be_none() {
    for method in ["POST", "PATCH", "PUT", "DELETE"] {
        let bed = Bed::new(2, &json!({}));
        bed.instances.iter().for_each(|instance| instance.be_slow(SOON));
        let change = format!("{method} /api/tasks/1");
        let got = || bed.instances.iter().filter(|instance| instance.saw(&change));
        let answer = scope(|scope| {
            let answer = scope.spawn(|| bed.change(method, "/api/tasks/1"));
            eventually("an instance has got it", || got().count() == 1);
            got().for_each(Instance::kill);
            answer.join().unwrap()
        });
        assert!(answer.status == 503 && detail(&answer).contains("may or may not"), "{method}: {answer:?}");
        assert_eq!(got().count(), 1, "{method}");
    }
}

fn detail(answer: &Answer) -> String {
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    problem["detail"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_slow_is_not_asked_twice_for_long() {
    let bed = Bed::new(2, &json!({}));
    // As long as a database takes to fail over; whoever lives says so meanwhile.
    bed.instances.iter().for_each(|instance| instance.be_slow(SOON + A_SECOND));
    let first = bed.get("/api/tasks/1");
    assert!(first.status == 200 && first.took > 2 * SOON, "{first:?}");
    let second = bed.get("/api/tasks/2");
    assert!(second.status == 200 && second.took < SOON + A_SECOND + GRACE, "{second:?}");
    let asked = |path: &str| bed.instances.iter().filter(|instance| instance.saw(path)).count();
    assert_eq!((asked("GET /api/tasks/1"), asked("GET /api/tasks/2")), (2, 1));
}

#[test]
fn what_stands_in_front_is_believed_where_it_is_trusted() {
    let claims = "X-Forwarded-For: 6.6.6.6, 203.0.113.7\r\nX-Forwarded-Proto: https\r\n";
    let told = |bed: &Bed, before: &str, headers: &str| {
        assert_eq!(bed.get_through(before, headers).status, 200);
        ["x-forwarded-for", "x-forwarded-proto"].map(|name| bed.instances[0].header(name))
    };
    let nobody = Bed::new(1, &json!({}));
    assert_eq!(told(&nobody, "", claims), ["127.0.0.1", "http"], "anybody can claim this");
    let others = Bed::new(1, &json!({"gateway": {"trustedProxies": ["10.0.0.0/8", "fd00::/8"]}}));
    assert_eq!(told(&others, "", claims), ["127.0.0.1", "http"]);
    let trusted = Bed::new(1, &json!({"gateway": {"trustedProxies": ["10.0.0.0/8", "127.0.0.0/8"]}}));
    assert_eq!(told(&trusted, "", claims), ["203.0.113.7", "https"], "what came before is the client's own claim");
    assert_eq!(told(&trusted, "", ""), ["127.0.0.1", "http"]);
    assert_eq!(trusted.leave_as("203.0.113.7"), 200, "where the pod is asked, nobody in front is believed");

    let protocol = Bed::new(1, &json!({"gateway": {"trustedProxies": ["127.0.0.1"], "proxyProtocol": true}}));
    let before = |port| format!("PROXY TCP4 203.0.113.7 192.0.2.1 5555 {port}\r\n");
    assert_eq!(told(&protocol, &before(443), ""), ["203.0.113.7", "https"]);
    assert_eq!(told(&protocol, &before(80), claims), ["203.0.113.7", "http"], "these are the client's own claims");
}

#[test]
fn the_rate_limits_count_the_users_behind_a_trusted_proxy() {
    let limits = json!({"api": {"rate": "5r/m", "burst": 1}});
    let bed = Bed::new(1, &json!({"gateway": {"trustedProxies": ["127.0.0.1"], "rateLimits": limits}}));
    let ask = |user: u8| bed.get_through("", &format!("X-Forwarded-For: 203.0.113.{user}\r\n")).status;
    assert_eq!([(); 3].map(|()| ask(1)), [200, 200, 429]);
    assert_eq!(ask(2), 200, "another user");
}

#[test]
fn the_rate_limits_do_not_count_what_the_operator_asks() {
    let bed = Bed::new(1, &json!({"gateway": {"rateLimits": {"api": {"rate": "5r/m", "burst": 1}}}}));
    let user: Vec<u16> = (0..10).map(|_| bed.get("/api/ready").status).collect();
    assert!(user.iter().filter(|status| **status == 429).count() >= 8, "{user:?}");
    let operator: Vec<u16> = (0..10).map(|_| bed.ask_as_operator("/api/ready").status).collect();
    assert_eq!(operator, [200; 10]);
    assert_eq!(bed.ask_as_operator("/api/tasks").status, 404, "it is no way round the limits");
}

#[test]
fn who_waited_for_a_change_and_for_how_long_is_remembered() {
    let bed = Bed::new(1, &json!({}));
    let write = || bed.change("POST", "/api/tasks/1").status;
    assert_eq!(write(), 200);
    assert_eq!(bed.get("/api/tasks/1").status, 200);
    sleep(A_SECOND / 2);
    assert_eq!(write(), 200);
    assert_eq!(bed.get_write_pauses(), [0; 0], "nobody has waited");
    bed.instances[0].be_slow(A_SECOND);
    assert_eq!(write(), 200);
    bed.instances[0].be_slow(Duration::ZERO);
    assert_eq!(write(), 200);
    let [pause] = bed.get_write_pauses()[..] else { panic!("{:?}", bed.get_write_pauses()) };
    assert!((900..2000).contains(&pause), "{pause}");
    bed.instances[0].be_slow(2 * A_SECOND);
    bed.give_up("POST", "/api/tasks/2", A_SECOND / 2);
    bed.instances[0].be_slow(Duration::ZERO);
    sleep(A_SECOND / 2);
    assert_eq!(write(), 200);
    let pauses = bed.get_write_pauses();
    assert!(pauses.len() == 2 && (900..2000).contains(&pauses[1]), "who gives up has waited, too: {pauses:?}");
    for _ in 0..11 {
        bed.instances[0].be_slow(A_SECOND / 4);
        assert_eq!(write(), 200);
    }
    let pauses = bed.get_write_pauses();
    assert!(pauses.len() == 10 && pauses.iter().all(|pause| *pause < 900), "{pauses:?}");
}

#[test]
fn a_gateway_that_is_to_go_has_its_clients_come_back_to_another_one() {
    let bed = Bed::new(1, &json!({}));
    assert!(!bed.head("/api/tasks").contains("connection: close"));
    let left = bed.leave();
    eventually("answers say so", || bed.head("/api/tasks").contains("connection: close"));
    assert!(bed.head("/nothing").contains("connection: close"), "its own answers, too");
    assert_eq!(bed.get("/api/tasks").status, 200, "it goes on answering");
    let left = left.join().unwrap();
    assert!(left.status == 200 && left.took >= 4 * A_SECOND, "{left:?}");
}
