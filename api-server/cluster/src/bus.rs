//! The invalidation bus: instances tell each other which of what they keep in memory is no longer so.
//!
//! It goes through a sharded channel of the cache cluster (`SSUBSCRIBE`), whose messages pass through one node: the owner of the channel's
//! slot. So an instance that hears what it says itself hears the others too, and that is how it knows: it says something every
//! [`BEAT`]. If it hears nothing of its own for [`DEAF`], or a connection breaks, then something may have been missed. From then on it
//! answers from memory no more, until it has subscribed again and heard itself; and by then it has forgotten everything.
//!
//! An instance that is killed may have written what it has told nobody. Others notice within [`SILENT`] that they don't hear it any more, and
//! believe nothing that they have read before. One that is slow for so long costs them that, too.
//!
//! Whoever is answered that something was done may ask another instance next. So the answer waits until the news has left the channel's node
//! for all instances ([`InvalidationBus::announce`]); for [`PATIENCE`] at most, and not while this instance hears nothing.
//!
//! What can't be said is kept and said later. An instance that is cut off from a cluster that the others reach is the one case that
//! no one sees: what is written through it becomes known to the others when it is back, and at the latest when what they keep expires.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    future::pending,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use redis::{
    ProtocolVersion, PushInfo, PushKind, Value, cluster::ClusterClient, cluster_async::ClusterConnection, cmd,
};
use serde::{Deserialize, Serialize};
use task_api_domain::{mark::Mark, session::Digest};
use task_api_telemetry::metrics::BusMetrics;
use thiserror::Error;
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::{Instant, interval, sleep, timeout, timeout_at},
};

use crate::redis::RedisFailure;

const NAME: &str = "invalidations";
/// How often an instance says something, if only to hear itself.
const BEAT: Duration = Duration::from_millis(250);
/// An instance that did not hear itself for so long may have missed something.
const DEAF: Duration = Duration::from_secs(2);
/// One that was not heard for so long, and did not say that it leaves, has gone without a word.
const SILENT: Duration = Duration::from_secs(1);
/// The pause before it subscribes again.
const RETRY: Duration = Duration::from_millis(200);
/// What connecting, subscribing or saying something may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much can wait to be said; if there is more, the others are told to forget everything.
const QUEUE: usize = 10_000;
/// The most of it that is said at once.
const BATCH: usize = 500;

/// What is no longer so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// A user wrote.
    Wrote(i64, Mark),
    /// Nobody knows whether a user's write happened, or still will.
    Unsure(i64),
    /// A session has ended.
    Ended(Digest),
    /// All of a user's sessions have.
    EndedAll(i64),
    /// There was too much to say.
    Anything,
    /// Whoever says it says nothing any more.
    Leaving,
}

#[derive(Serialize, Deserialize)]
struct Message {
    /// Which instance says it.
    from: u64,
    news: Vec<News>,
}

/// What an instance learns on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Something that another instance says.
    News(News),
    /// From now on all that others say is heard; before that, something may have been missed.
    Everything,
    /// From now on something may be missed.
    Nothing,
    /// Another instance has gone without a word: it may have written what it has told nobody.
    Silence,
}

/// See the module.
pub struct InvalidationBus {
    url: String,
    /// What this instance calls itself.
    me: u64,
    say: mpsc::Sender<Saying>,
    too_much: AtomicBool,
    /// Whether this instance hears itself.
    informed: AtomicBool,
    queue: Mutex<Queue>,
    metrics: BusMetrics,
}

/// News, and who waits until it was said.
type Saying = (News, Option<oneshot::Sender<()>>);

/// What has to be said.
struct Queue {
    waiting: mpsc::Receiver<Saying>,
    /// Taken from there, and not yet known to have been said.
    saying: Vec<Saying>,
}

impl fmt::Debug for InvalidationBus {
    // The URL holds a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvalidationBus").field("me", &self.me).finish_non_exhaustive()
    }
}

/// Why an instance may have missed something.
#[derive(Debug, Error)]
enum Deaf {
    #[error("{0}")]
    Redis(#[from] redis::RedisError),
    #[error("no answer in time")]
    Late(#[from] tokio::time::error::Elapsed),
    #[error("{0}")]
    Because(&'static str),
}

impl InvalidationBus {
    /// A bus in the cluster that the node at `url` belongs to. Nothing is heard or said before [`InvalidationBus::run`].
    pub fn new(url: &str, metrics: BusMetrics) -> Result<Self, RedisFailure> {
        let (say, waiting) = mpsc::channel(QUEUE);
        let queue = Mutex::new(Queue { waiting, saying: Vec::new() });
        // Two instances with one name would take each other's news for their own.
        let me = getrandom::u64().map_err(|error| RedisFailure::Unavailable(error.to_string()))?;
        let [too_much, informed] = [(); 2].map(|()| AtomicBool::new(false));
        let bus = Self { url: url.to_owned(), me, say, too_much, informed, queue, metrics };
        let (unused, _) = mpsc::unbounded_channel();
        // The error may quote the URL, which holds a password.
        bus.client(unused).map_err(|error| RedisFailure::Url(format!("{:?}", error.kind())))?;
        Ok(bus)
    }

    /// Has the others told.
    pub fn tell(&self, news: News) {
        self.say((news, None));
    }

    /// Tells the others, and waits until they have been told, as the module says.
    pub async fn announce(&self, news: News) {
        let (said, is_said) = oneshot::channel();
        self.say((news, Some(said)));
        if self.informed.load(Ordering::Acquire) {
            // Said late, or dropped since all is to be forgotten: nobody can wait for that.
            let _ = timeout(PATIENCE, is_said).await;
        }
    }

    fn say(&self, saying: Saying) {
        if self.say.try_send(saying).is_err() {
            self.too_much.store(true, Ordering::Release);
        }
    }

    /// Says and hears for as long as the process runs.
    pub async fn run(&self, hear: impl Fn(Heard)) {
        let mut queue = self.queue.lock().await;
        loop {
            let Err(deaf) = self.listen(&mut queue, &hear).await;
            hear(Heard::Nothing);
            self.metrics.informed.set(0);
            if self.informed.swap(false, Ordering::AcqRel) {
                tracing::warn!("other instances are not heard, so reads go to the database: {deaf}");
            } else {
                tracing::debug!("other instances are still not heard: {deaf}");
            }
            sleep(RETRY).await;
        }
    }

    async fn listen(&self, queue: &mut Queue, hear: &impl Fn(Heard)) -> Result<Infallible, Deaf> {
        let (pushes, heard) = mpsc::unbounded_channel();
        let client = self.client(pushes)?;
        let mut connection = timeout(PATIENCE, client.get_async_connection()).await??;
        timeout(PATIENCE, connection.ssubscribe(NAME)).await??;
        tokio::select! {
            deaf = self.hear(heard, hear) => deaf,
            dumb = self.speak(connection, queue) => dumb,
        }
    }

    fn client(&self, pushes: mpsc::UnboundedSender<PushInfo>) -> redis::RedisResult<ClusterClient> {
        ClusterClient::builder([self.url.as_str()])
            .use_protocol(ProtocolVersion::RESP3)
            .push_sender(pushes)
            .connection_timeout(PATIENCE)
            .response_timeout(PATIENCE)
            .retries(1)
            .build()
    }

    async fn hear(
        &self,
        mut heard: mpsc::UnboundedReceiver<PushInfo>,
        hear: &impl Fn(Heard),
    ) -> Result<Infallible, Deaf> {
        let mut heard_myself = Instant::now();
        let mut informed = false;
        let mut others: HashMap<u64, Instant> = HashMap::new();
        loop {
            let late = |_| Deaf::Because("this instance does not hear itself");
            let push = timeout_at(heard_myself + DEAF, heard.recv()).await.map_err(late)?;
            let push = push.ok_or(Deaf::Because("the connection has ended"))?;
            match push.kind {
                PushKind::SMessage => {}
                PushKind::Disconnection => return Err(Deaf::Because("a connection broke")),
                PushKind::SUnsubscribe => return Err(Deaf::Because("the channel has moved to another node")),
                _ => continue,
            }
            let message = read(&push).ok_or(Deaf::Because("a message can't be read"))?;
            if message.from == self.me {
                heard_myself = Instant::now();
                if !informed {
                    informed = true;
                    hear(Heard::Everything);
                    self.informed.store(true, Ordering::Release);
                    self.metrics.informed.set(1);
                    tracing::info!("other instances are heard: reads are answered from memory");
                }
                let there = others.len();
                others.retain(|_, heard| heard.elapsed() < SILENT);
                if others.len() < there {
                    tracing::info!("another instance has gone without a word: what is in memory is read anew");
                    hear(Heard::Silence);
                }
            } else {
                if message.news.contains(&News::Leaving) {
                    others.remove(&message.from);
                } else {
                    others.insert(message.from, Instant::now());
                }
                self.metrics.heard.inc_by(message.news.len() as u64);
                message.news.into_iter().for_each(|news| hear(Heard::News(news)));
            }
        }
    }

    async fn speak(&self, mut connection: ClusterConnection, queue: &mut Queue) -> Result<Infallible, Deaf> {
        let mut beat = interval(BEAT);
        loop {
            // What could not be said the last time goes first.
            if queue.saying.is_empty() {
                tokio::select! {
                    _ = beat.tick() => {}
                    _ = queue.waiting.recv_many(&mut queue.saying, BATCH) => {}
                }
            }
            if self.too_much.swap(false, Ordering::AcqRel) {
                queue.saying.push((News::Anything, None));
            }
            let news = queue.saying.iter().map(|(news, _)| *news).collect();
            let message = Message { from: self.me, news };
            let message = serde_json::to_string(&message).map_err(|_| Deaf::Because("news can't be written down"))?;
            timeout(PATIENCE, cmd("SPUBLISH").arg(NAME).arg(message).query_async::<()>(&mut connection)).await??;
            self.metrics.said.inc_by(queue.saying.len() as u64);
            let leaves = queue.saying.iter().any(|(news, _)| *news == News::Leaving);
            for (_, waits) in queue.saying.drain(..) {
                // Whoever waited may have gone.
                waits.map(|said| said.send(()));
            }
            if leaves {
                return pending().await;
            }
        }
    }
}

/// The message in a push: the channel's name comes first.
fn read(push: &PushInfo) -> Option<Message> {
    match push.data.get(1)? {
        Value::BulkString(bytes) => serde_json::from_slice(bytes).ok(),
        _ => None,
    }
}
