//! An API server in memory: what it is asked, what a test tells it, and what has become of its objects.

use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::{Client, client::Body};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::{
    garbage,
    request::{Call, Refusal, Verb},
    store::{Answer, Key, Store},
    write,
};
use crate::world::lock;

/// How long a test waits for what must come, and how often it looks.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How many requests a failed test is told of.
const TOLD: usize = 40;

/// What happens to requests instead of their being carried out at once.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    /// They are refused with this code.
    Refuse(u16),
    /// They are never answered.
    Hang,
    /// They are carried out later.
    Delay(Duration),
}

/// The server. Clones are the same server.
#[derive(Clone, Default)]
pub(crate) struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    store: Store,
    calls: Vec<Call>,
    troubles: Vec<(Verb, String, Trouble)>,
    leaves_garbage: bool,
}

impl Server {
    /// A client of this server.
    pub(crate) fn client(&self) -> Client {
        let server = self.clone();
        Client::new(tower::service_fn(move |request| server.clone().answer(request)), "default")
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Answer>, Infallible> {
        let Some(call) = Call::read(request).await else {
            return Ok(response(404, "404 page not found\n".into()));
        };
        let trouble = {
            let mut state = self.state();
            state.calls.push(call.clone());
            state.troubles.iter().rfind(|(verb, kind, _)| *verb == call.verb && kind == call.resource.kind).cloned()
        };
        match trouble {
            Some((_, _, Trouble::Refuse(code))) => return Ok(refused(&Refusal::new(code, "the test says so"))),
            Some((_, _, Trouble::Hang)) => std::future::pending().await,
            Some((_, _, Trouble::Delay(time))) => sleep(time).await,
            None => {}
        }
        Ok(self.carry_out(&call))
    }

    fn carry_out(&self, call: &Call) -> Response<Answer> {
        let mut state = self.state();
        let done = match call.verb {
            Verb::Get => state.store.get(call),
            Verb::List => state.store.list(call),
            Verb::Watch => {
                let lines = state.store.watch(call).map(|line| Ok(Frame::data(line)));
                return Response::new(StreamBody::new(lines).boxed_unsync());
            }
            Verb::Create => write::create(&mut state.store, call),
            Verb::Update => write::replace(&mut state.store, call),
            Verb::Patch => write::patch(&mut state.store, call),
            Verb::Delete => write::delete(&mut state.store, call),
        };
        state.collect_garbage();
        match done {
            Ok(object) => response(if call.verb == Verb::Create { 201 } else { 200 }, object.to_string()),
            Err(refusal) => refused(&refusal),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// An object as it is now.
    pub(crate) fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        self.state().store.objects.get(&Key::new(kind, namespace, name)).cloned()
    }

    /// All objects of a kind.
    pub(crate) fn list(&self, kind: &str) -> Vec<Value> {
        let state = self.state();
        state.store.objects.iter().filter(|(key, _)| key.kind == kind).map(|(_, object)| object.clone()).collect()
    }

    /// Keeps an object as it is given, whatever an API server would say of it, and whether it exists or not.
    pub(crate) fn put(&self, object: Value) -> Value {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        let key = Key::new(&text(&object["kind"]), &text(&metadata["namespace"]), &text(&metadata["name"]));
        let mut state = self.state();
        let kept = if state.store.objects.contains_key(&key) {
            state.store.update(key, object)
        } else {
            state.store.create(key, object)
        };
        state.collect_garbage();
        kept
    }

    /// Changes an object.
    pub(crate) fn edit(&self, kind: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(kind, namespace, name).unwrap_or_else(|| panic!("no {kind} {name} to edit\n{self}"));
        change(&mut object);
        self.put(object);
    }

    /// Deletes an object as `kubectl delete --wait=false` does. The collector takes what it owned at once.
    pub(crate) fn delete(&self, kind: &str, namespace: &str, name: &str) {
        let key = Key::new(kind, namespace, name);
        let mut state = self.state();
        assert!(state.store.objects.contains_key(&key), "no {kind} {name} to delete");
        state.store.delete(&key, None);
        state.collect_garbage();
    }

    /// Whether the garbage collector sleeps; it catches up when it awakes.
    pub(crate) fn leave_garbage(&self, leave: bool) {
        let mut state = self.state();
        state.leaves_garbage = leave;
        state.collect_garbage();
    }

    /// Ends all watches. Those that go on from there learn what they have missed, or must list anew where that is forgotten.
    pub(crate) fn break_watches(&self, forget_changes: bool) {
        self.state().store.break_watches(forget_changes);
    }

    /// Makes trouble of requests, until it is healed; later trouble hides earlier.
    pub(crate) fn trouble(&self, verb: Verb, kind: &str, trouble: Trouble) {
        self.state().troubles.push((verb, kind.to_owned(), trouble));
    }

    /// Takes all trouble away. What hangs goes on hanging.
    pub(crate) fn heal(&self) {
        self.state().troubles.clear();
    }

    /// What was asked since the last [`Self::forget_calls`].
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// What of that would change something.
    pub(crate) fn writes(&self) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.verb.writes()).collect()
    }

    pub(crate) fn forget_calls(&self) {
        self.state().calls.clear();
    }

    /// Waits until something is so, and says what there is if it does not get so.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let waiting = async {
            while !is_so() {
                sleep(LOOK_AGAIN).await;
            }
        };
        assert!(timeout(PATIENCE, waiting).await.is_ok(), "not within {PATIENCE:?}: {what}\n{self}");
    }
}

impl State {
    fn collect_garbage(&mut self) {
        if !self.leaves_garbage {
            garbage::collect(&mut self.store);
        }
    }
}

/// What explains a failed test.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        writeln!(f, "The objects:")?;
        for (key, object) in &state.store.objects {
            write!(f, "  {} {}/{}", key.kind, key.namespace, key.name)?;
            for condition in object["status"]["conditions"].as_array().into_iter().flatten() {
                write!(
                    f,
                    "\n    {}={} {} {}",
                    condition["type"], condition["status"], condition["reason"], condition["message"]
                )?;
            }
            writeln!(f)?;
        }
        writeln!(f, "The last of {} requests:", state.calls.len())?;
        state.calls.iter().rev().take(TOLD).rev().try_for_each(|call| writeln!(f, "  {call}"))
    }
}

fn refused(refusal: &Refusal) -> Response<Answer> {
    response(refusal.code, refusal.status().to_string())
}

fn response(code: u16, body: String) -> Response<Answer> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    *response.status_mut() = http::StatusCode::from_u16(code).expect("a status code");
    response
}
