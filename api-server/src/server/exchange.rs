//! Requests and answers on a connection, from the first byte of a request until there is nothing more to do.
//!
//! A client has [`HEAD_TIMEOUT`] to send a request's head, `crate::http` gives it some seconds for the body, and it has
//! [`READ_TIMEOUT`] to take the answer: whoever is slower is cut off, so that no one can hold memory by being slow.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    http::{HeaderMap, HeaderValue, Request, Response, Version, header},
};
use futures::future::FusedFuture;
use http_body_util::{BodyExt, Limited};
use hyper::{
    body::{Buf, Frame, Incoming, SizeHint},
    rt,
    server::conn::http1,
    service::Service,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};

use crate::{
    http::body::KeptBody,
    server::admission::{Permit, TURN},
};

/// How long a connection may be idle. nginx closes idle connections to this side after 30 s: if this side were first, a request could
/// meet the closing one.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a request's head may take, from its first byte.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to read an answer that does not fit into the sockets' buffers.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may take to end after its last answer.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// The largest head; it is also the most that is read at once of a body.
const MAX_HEAD: usize = 64 << 10;

/// How much of a request's body is read, and for how long, when its handler did not: more is not worth keeping a connection for.
const MAX_LEFTOVER: usize = 64 << 10;
const LEFTOVER_TIMEOUT: Duration = Duration::from_secs(1);

/// What becomes of a connection when there is nothing more to do.
pub(super) enum After {
    /// It waits for the next request, of which these bytes are there already.
    Rest(TcpStream, Bytes),
    /// It has ended.
    Closed,
}

/// When the request at hand came, where it had to wait before it was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Came(pub(crate) Instant);

/// A request and its answer, and what the client sends meanwhile.
pub(super) struct Exchange<'c> {
    router: &'c Router,
    keep_alive: bool,
    permit: Option<Permit<'c>>,
    came: Option<Came>,
}

impl<'c> Exchange<'c> {
    /// Answers by `router`; without `keep_alive` the connection is closed then.
    pub(super) fn new(router: &'c Router, keep_alive: bool) -> Self {
        Self { router, keep_alive, permit: None, came: None }
    }

    /// It has a `permit`, and its turn for as long as it uses it.
    pub(super) fn with(self, permit: Permit<'c>) -> Self {
        Self { permit: Some(permit), ..self }
    }

    /// The request waits since it `came`.
    pub(super) fn since(self, came: Instant) -> Self {
        Self { came: Some(Came(came)), ..self }
    }

    /// Answers what comes on `stream`, of which `read` was read already. Once `closing` is over, the connection is closed after the
    /// request at hand.
    pub(super) async fn run(
        mut self,
        stream: TcpStream,
        read: Bytes,
        mut closing: Pin<&mut impl FusedFuture<Output = ()>>,
    ) -> After {
        let state = Arc::new(State { came: Mutex::new(self.came), ..State::default() });
        let io = Io { stream: TokioIo::new(stream), read, state: Arc::clone(&state) };
        let service = Tracked { router: self.router.clone(), state: Arc::clone(&state) };
        let connection =
            http1::Builder::new().keep_alive(self.keep_alive).max_buf_size(MAX_HEAD).serve_connection(io, service);
        let mut connection = Some(connection);
        let began = Instant::now();
        let mut turn = pin!(sleep(TURN));
        let mut limit: Option<(Waiting, Pin<Box<Sleep>>)> = None;
        poll_fn(|cx| {
            let Some(http) = connection.as_mut() else { return Poll::Ready(After::Closed) };
            if !closing.is_terminated() && closing.as_mut().poll(cx).is_ready() {
                Pin::new(&mut *http).graceful_shutdown();
            }
            if let Poll::Ready(result) = Pin::new(&mut *http).poll(cx) {
                if let Err(error) = result {
                    tracing::debug!("connection ended: {error}");
                }
                return Poll::Ready(After::Closed);
            }
            let waiting = state.waiting();
            // Others need the turn more than one that waits for its client, or for long.
            if let Some(permit) = self.permit.as_mut().filter(|permit| permit.has_turn())
                && (waiting != Waiting::Handler || turn.as_mut().poll(cx).is_ready())
            {
                permit.give_turn();
            }
            let timeout = match waiting {
                Waiting::Handler => return Poll::Pending,
                Waiting::Nothing => return Poll::Ready(rest(connection.take())),
                Waiting::Head => began + HEAD_TIMEOUT,
                Waiting::Reader => Instant::now() + READ_TIMEOUT,
                Waiting::End => Instant::now() + END_TIMEOUT,
            };
            if limit.as_ref().is_none_or(|(what, _)| *what != waiting) {
                limit = Some((waiting, Box::pin(sleep_until(timeout))));
            }
            if limit.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_pending()) {
                return Poll::Pending;
            }
            tracing::debug!("connection ended: the client is too slow ({waiting:?})");
            Poll::Ready(match rest(connection.take()) {
                // It woke, but nothing came.
                After::Rest(stream, read) if waiting == Waiting::Head && read.is_empty() => After::Rest(stream, read),
                _ => After::Closed,
            })
        })
        .await
    }
}

/// Takes the socket back from HTTP, which has nothing to do with it at the moment.
fn rest(connection: Option<http1::Connection<Io, Tracked>>) -> After {
    let Some(connection) = connection else { return After::Closed };
    let parts = connection.into_parts();
    let read = if parts.read_buf.is_empty() && parts.io.read.is_empty() {
        // An empty slice of a buffer would keep the buffer.
        Bytes::new()
    } else {
        [parts.read_buf, parts.io.read].concat().into()
    };
    After::Rest(parts.io.stream.into_inner(), read)
}

/// Whom an exchange waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// The client, to send the rest of a head.
    Head,
    /// This side, to answer.
    Handler,
    /// The client, to read the answer.
    Reader,
    /// HTTP, to end the connection.
    End,
    /// Nobody: everything is answered.
    Nothing,
}

/// What [`Io`] and [`Tracked`] see; one task owns them all, so the order of the changes is no matter.
#[derive(Debug, Default)]
struct State {
    handling: AtomicBool,
    answered: AtomicBool,
    blocked: AtomicBool,
    /// The answer at hand is the last.
    closing: AtomicBool,
    /// The body of the request at hand, if its handler did not read it.
    unread: Mutex<Option<Incoming>>,
    /// For the first request.
    came: Mutex<Option<Came>>,
}

impl State {
    /// Reads what the handler left of the request's body: it is in the way of the next request. False if that is not worth it.
    async fn read_to_the_end(&self) -> bool {
        let Some(body) = self.unread.lock().unwrap_or_else(PoisonError::into_inner).take() else { return true };
        let mut body = Limited::new(body, MAX_LEFTOVER);
        let read = timeout(LEFTOVER_TIMEOUT, async {
            while !body.is_end_stream() {
                match body.frame().await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) => return false,
                    None => return true,
                }
            }
            true
        });
        read.await.unwrap_or_default()
    }

    fn waiting(&self) -> Waiting {
        if self.blocked.load(Relaxed) {
            Waiting::Reader
        } else if self.handling.load(Relaxed) {
            Waiting::Handler
        } else if self.closing.load(Relaxed) {
            Waiting::End
        } else if self.answered.load(Relaxed) {
            Waiting::Nothing
        } else {
            Waiting::Head
        }
    }
}

/// The socket: gives what was read already first, and notices when the client doesn't read.
struct Io {
    stream: TokioIo<TcpStream>,
    read: Bytes,
    state: Arc<State>,
}

impl Io {
    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.state.blocked.store(result.is_pending(), Relaxed);
        result
    }
}

impl rt::Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let length = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..length]);
        self.read.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl rt::Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buffer);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The router, and whether a request is with it.
struct Tracked {
    router: Router,
    state: Arc<State>,
}

impl Service<Request<Incoming>> for Tracked {
    type Response = Response<KeptBody<Handling>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.state.handling.store(true, Relaxed);
        let handling = Handling(Arc::clone(&self.state));
        let may_rest = request.version() == Version::HTTP_11 && !closes(request.headers());
        let mut request = request.map(|body| RequestBody::wrap(body, &self.state));
        if let Some(came) = self.state.came.lock().unwrap_or_else(PoisonError::into_inner).take() {
            request.extensions_mut().insert(came);
        }
        let answer = tower_service::Service::call(&mut self.router.clone(), request);
        Box::pin(async move {
            let mut answer = answer.await?;
            let read = handling.0.read_to_the_end().await;
            if !read || !may_rest || closes(answer.headers()) {
                handling.0.closing.store(true, Relaxed);
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            // The answer is complete when its body is gone.
            Ok(answer.map(|body| KeptBody::new(body, handling)))
        })
    }
}

/// Whether this is the last that is said on a connection.
fn closes(headers: &HeaderMap) -> bool {
    headers.get(header::CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// A request is being answered for as long as this lives.
struct Handling(Arc<State>);

impl Drop for Handling {
    fn drop(&mut self) {
        self.0.handling.store(false, Relaxed);
        self.0.answered.store(true, Relaxed);
    }
}

/// A request's body, which is not lost when its handler does not read it.
struct RequestBody {
    body: Option<Incoming>,
    state: Arc<State>,
}

impl RequestBody {
    fn wrap(body: Incoming, state: &Arc<State>) -> Body {
        if body.is_end_stream() {
            return Body::empty();
        }
        Body::new(Self { body: Some(body), state: Arc::clone(state) })
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if frame.is_none() {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            *self.state.unread.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}
