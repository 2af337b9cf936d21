//! What a worker does beside the API: tells RabbitMQ of every change, makes the summaries anew.
//!
//! All of them tell the same exchange, and one takes the broker down, so these tests run one at a time.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can not go on says so")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex as SyncMutex,
        atomic::{AtomicBool, Ordering},
    },
};

use api_server::worker::broker::EXCHANGE;
use axum::http::{Method, StatusCode};
use common::{Api, Client, Services, eventually, path, unique};
use futures::{StreamExt, future::join_all};
use lapin::{
    Channel, Connection, ConnectionProperties, ExchangeKind,
    message::Delivery,
    options::{
        BasicAckOptions, BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::FieldTable,
};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

async fn services(test: &str) -> Option<(Services, MutexGuard<'static, ()>)> {
    let services = Services::find(test)?;
    let turn = ONE_AT_A_TIME.lock().await;
    assert!(!services.broker.is_empty(), "these test services have no broker; start them again: dev/test-services.sh");
    Some((services.with_database("events").await, turn))
}

fn environment(services: &Services) -> Vec<(&'static str, String)> {
    [services.environment(), vec![("AMQP_URL", services.broker.clone()), ("SUMMARY_INTERVAL", "1s".to_owned())]]
        .concat()
}

/// A durable queue that gets every event, and what came out of it so far.
struct Listener {
    url: String,
    queue: String,
    messages: Arc<SyncMutex<Vec<Message>>>,
    connection: Connection,
}

#[derive(Clone, Debug)]
struct Message {
    id: String,
    routing_key: String,
    content_type: String,
    traceparent: Option<String>,
    body: Value,
}

impl Listener {
    async fn start(services: &Services) -> Self {
        let url = services.broker.clone();
        let queue = unique("events");
        let messages = Arc::default();
        let connection = listen(&url, &queue, Arc::clone(&messages)).await.unwrap();
        Self { url, queue, messages, connection }
    }

    /// Listens again after the broker was away.
    async fn resume(&mut self) {
        self.connection = eventually("the broker takes connections", async || {
            listen(&self.url, &self.queue, Arc::clone(&self.messages)).await.ok()
        })
        .await;
    }

    /// What was told about each task, without what was told again.
    fn told(&self) -> BTreeMap<i64, Vec<Message>> {
        let mut seen = BTreeSet::new();
        let mut told = BTreeMap::<_, Vec<_>>::new();
        for message in self.messages.lock().unwrap().iter().filter(|message| seen.insert(message.id.clone())) {
            told.entry(message.body["task_id"].as_i64().unwrap()).or_default().push(message.clone());
        }
        told
    }

    /// How much was told, without what was told again.
    fn count(&self) -> usize {
        self.messages.lock().unwrap().iter().map(|message| &message.id).collect::<BTreeSet<_>>().len()
    }

    async fn end(self) {
        let channel = self.connection.create_channel().await.unwrap();
        channel.queue_delete(self.queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    }
}

async fn listen(url: &str, queue: &str, messages: Arc<SyncMutex<Vec<Message>>>) -> lapin::Result<Connection> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    declare(&channel, queue).await?;
    let consumer = channel
        .basic_consume(queue.into(), "test".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await?;
    tokio::spawn(consumer.for_each(move |delivery| {
        let messages = Arc::clone(&messages);
        async move {
            if let Ok(delivery) = delivery {
                messages.lock().unwrap().push(read(&delivery));
                let _ = delivery.ack(BasicAckOptions::default()).await;
            }
        }
    }));
    Ok(connection)
}

async fn declare(channel: &Channel, queue: &str) -> lapin::Result<()> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, durable, FieldTable::default()).await?;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), durable, FieldTable::default()).await?;
    let bind = QueueBindOptions::default();
    channel.queue_bind(queue.into(), EXCHANGE.into(), "task.*".into(), bind, FieldTable::default()).await
}

fn read(delivery: &Delivery) -> Message {
    let properties = &delivery.properties;
    assert_eq!(properties.delivery_mode(), &Some(2), "it outlives a restart of the broker");
    assert!(properties.timestamp().is_some());
    let body: Value = serde_json::from_slice(&delivery.data).unwrap();
    let id = properties.message_id().as_ref().unwrap().to_string();
    assert_eq!(body["id"], id);
    assert_eq!(body["event"], delivery.routing_key.as_str());
    assert_eq!(properties.kind().as_ref().unwrap().as_str(), delivery.routing_key.as_str());
    Message {
        id,
        routing_key: delivery.routing_key.to_string(),
        content_type: properties.content_type().as_ref().unwrap().to_string(),
        traceparent: properties
            .headers()
            .as_ref()
            .and_then(|headers| headers.inner().get("traceparent")?.as_long_string().map(ToString::to_string)),
        body,
    }
}

/// A task's changes as they were acknowledged: what kind, and the title after it.
type History = Vec<(&'static str, Option<String>)>;

/// Makes a task, changes it from two sides at once, deletes it if it is to be, and says what should be told of that.
async fn live(user: &Client, changes: usize, dies: bool) -> (i64, History) {
    let task = user.task(&unique("title")).await;
    let mut history = vec![("task.created", task["title"].as_str().map(str::to_owned))];
    let side = async || {
        let mut done = Vec::new();
        for _ in 0..changes {
            done.push(user.patch(&path(&task), json!({"title": unique("title")})).await.expect(StatusCode::OK));
        }
        done
    };
    let (one, other) = tokio::join!(side(), side());
    let mut updated = [one, other].concat();
    updated.sort_by_key(|task| task["updated_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
    history.extend(updated.iter().map(|task| ("task.updated", task["title"].as_str().map(str::to_owned))));
    if dies {
        user.delete(&path(&task)).await.expect(StatusCode::NO_CONTENT);
        history.push(("task.deleted", None));
    }
    (task["id"].as_i64().unwrap(), history)
}

/// Makes a task in a trace.
async fn task_of_trace(user: &Client, traceparent: &str, key: Option<&str>) -> i64 {
    let authorization = format!("Bearer {}", user.token.as_ref().unwrap());
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
        ("traceparent", traceparent),
        ("idempotency-key", key.unwrap_or_default()),
    ];
    let headers = if key.is_some() { &headers[..] } else { &headers[..3] };
    let body = json!({"title": "traced"}).to_string().into_bytes();
    user.send(Method::POST, "/api/tasks", headers, body).await.expect(StatusCode::CREATED)["id"].as_i64().unwrap()
}

/// Several users at work until told to stop.
async fn work(api: &Api, stop: &AtomicBool) -> BTreeMap<i64, History> {
    let users = join_all((0..4).map(|_| api.user())).await;
    let histories = join_all(users.iter().map(async |user| {
        let mut histories = Vec::new();
        for round in 0.. {
            histories.push(live(user, 2, round % 2 == 0).await);
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        histories
    }));
    histories.await.into_iter().flatten().collect()
}

/// Waits until as much was told as was done, and compares.
async fn assert_told(listener: &Listener, done: &BTreeMap<i64, History>) {
    let changes: usize = done.values().map(Vec::len).sum();
    eprintln!("{changes} changes were made, {} are told so far", listener.count());
    let mut count = listener.count();
    while count < changes {
        // However many there are: as long as they come.
        let more = async || Some(listener.count()).filter(|now| *now > count);
        count = eventually("every change is told", more).await;
    }
    let told: BTreeMap<i64, History> = listener
        .told()
        .into_iter()
        .map(|(task, messages)| {
            let kind =
                |key: &str| ["task.created", "task.updated", "task.deleted"].into_iter().find(|kind| *kind == key);
            let one = |message: Message| {
                (kind(&message.routing_key).unwrap(), message.body["task"]["title"].as_str().map(str::to_owned))
            };
            (task, messages.into_iter().map(one).collect())
        })
        .collect();
    assert_eq!(&told, done, "each change of each task, in order");
}

/// It saw nothing worth a warning.
fn assert_calm(worker: &Api) {
    let log = worker.log();
    assert!(!log.to_lowercase().contains(r#""warn""#) && !log.to_lowercase().contains(r#""error""#), "{log}");
}

async fn outbox_is_empty(services: &Services) {
    let admin = services.admin_here().await;
    eventually("the outbox is empty", async || {
        let row = admin.query_one("SELECT count(*) FROM outbox", &[]).await.unwrap();
        (row.get::<_, i64>(0) == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_change_is_told_as_it_was_answered() {
    let Some((services, _turn)) = services("a_change_is_told_as_it_was_answered").await else { return };
    let listener = Listener::start(&services).await;
    let api = Api::launch(&environment(&services)).await;
    api.ready().await;
    let worker = Api::worker(&environment(&services)).await;
    let user = api.user().await;
    let body = json!({"title": "Ünïcode \u{1f980}", "description": "\"quoted\"\n", "due_date": "2030-01-01T00:00:00Z"});
    let task = user.post("/api/tasks", body).await.expect(StatusCode::CREATED);
    user.delete(&path(&task)).await.expect(StatusCode::NO_CONTENT);
    eventually("both were told", async || (listener.count() == 2).then_some(())).await;

    let told = listener.told();
    let [created, deleted] = told[&task["id"].as_i64().unwrap()].as_slice() else { panic!("{told:?}") };
    assert_eq!(created.content_type, "application/json");
    assert_eq!(created.body["user_id"], user.user["id"]);
    assert_eq!(created.body["task"], task, "it is told as it was answered");
    assert!(created.body["occurred_at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    assert_eq!((deleted.routing_key.as_str(), &deleted.body["task"]), ("task.deleted", &Value::Null));
    outbox_is_empty(&services).await;
    eventually("the metric counts both", async || (worker.metric("outbox_published_total").await >= 2.0).then_some(()))
        .await;
    listener.end().await;
}

#[tokio::test]
async fn a_change_is_told_with_its_callers_trace() {
    let Some((services, _turn)) = services("a_change_is_told_with_its_callers_trace").await else { return };
    let listener = Listener::start(&services).await;
    let api = Api::launch(&environment(&services)).await;
    api.ready().await;
    let _worker = Api::worker(&environment(&services)).await;
    let user = api.user().await;
    let traces = [1, 2].map(|number| format!("00-4bf92f3577b34da6a3ce929d0e0e473{number}-00f067aa0ba902b7-01"));
    let tasks = [
        task_of_trace(&user, &traces[0], None).await,
        task_of_trace(&user, &traces[1], Some("a-key")).await,
        user.task("of no trace").await["id"].as_i64().unwrap(),
    ];
    eventually("all were told", async || (listener.count() == 3).then_some(())).await;
    let told = listener.told();
    let [one, two] = traces;
    for (task, traceparent) in tasks.into_iter().zip([Some(one), Some(two), None]) {
        assert_eq!(told[&task][0].traceparent, traceparent);
    }
    listener.end().await;
}

#[tokio::test]
async fn every_change_is_told_in_order_though_a_worker_dies() {
    let Some((services, _turn)) = services("every_change_is_told_in_order_though_a_worker_dies").await else { return };
    let listener = Listener::start(&services).await;
    let api = Api::launch(&environment(&services)).await;
    api.ready().await;
    let environment = environment(&services);
    let (victim, survivor) = tokio::join!(Api::worker(&environment), Api::worker(&environment));
    let stop = AtomicBool::new(false);
    let (done, ()) = tokio::join!(work(&api, &stop), async {
        eventually("some changes were told", async || (listener.count() > 50).then_some(())).await;
        victim.kill().await;
        let before = listener.count();
        eventually("the other worker goes on", async || (listener.count() > before + 50).then_some(())).await;
        stop.store(true, Ordering::Relaxed);
    });
    assert_told(&listener, &done).await;
    outbox_is_empty(&services).await;
    assert_calm(&survivor);
    listener.end().await;
}

#[tokio::test]
async fn nothing_is_lost_while_the_broker_is_away() {
    let Some((services, _turn)) = services("nothing_is_lost_while_the_broker_is_away").await else { return };
    let mut listener = Listener::start(&services).await;
    let api = Api::launch(&environment(&services)).await;
    api.ready().await;
    let worker = Api::worker(&environment(&services)).await;
    let stop = AtomicBool::new(false);
    let (done, ()) = tokio::join!(work(&api, &stop), async {
        eventually("some changes were told", async || (listener.count() > 20).then_some(())).await;
        Services::control("broker", "stop").await;
        eventually("events wait", async || (worker.metric("outbox_pending").await > 20.0).then_some(())).await;
        assert!(worker.metric("outbox_oldest_seconds").await > 0.0);
        worker.client().get("/api/ready").await.expect(StatusCode::OK);
        Services::control("broker", "start").await;
        listener.resume().await;
        stop.store(true, Ordering::Relaxed);
    });
    assert_told(&listener, &done).await;
    outbox_is_empty(&services).await;
    let relayed = |log: &str| log.matches("events are relayed").count();
    eventually("it says that events are relayed again", async || (relayed(&worker.log()) > 1).then_some(())).await;
    let log = worker.log();
    assert_eq!(log.matches("events wait in the outbox").count(), 1, "it is said once\n{log}");
    assert_eq!(relayed(&log), 2, "at the start, and when the broker came back\n{log}");
    listener.end().await;
}

#[tokio::test]
async fn a_worker_goes_on_after_its_database_was_away() {
    let Some((services, _turn)) = services("a_worker_goes_on_after_its_database_was_away").await else { return };
    let listener = Listener::start(&services).await;
    let api = Api::launch(&environment(&services)).await;
    api.ready().await;
    let worker = Api::worker(&environment(&services)).await;
    let client = worker.client();
    Services::control("pooler", "stop").await;
    let away = eventually("readiness tells", async || {
        let reply = client.get("/api/ready").await;
        (reply.status == StatusCode::SERVICE_UNAVAILABLE).then_some(reply)
    })
    .await;
    let away = away.expect(StatusCode::SERVICE_UNAVAILABLE);
    assert!(away["detail"].as_str().unwrap().starts_with("database:"), "{away}");
    client.get("/api/health").await.expect(StatusCode::OK);
    Services::control("pooler", "start").await;
    worker.ready().await;
    let done = work(&api, &AtomicBool::new(true)).await;
    assert_told(&listener, &done).await;
    outbox_is_empty(&services).await;
    listener.end().await;
}

#[tokio::test]
async fn every_shard_is_worked_on() {
    let Some((services, _turn)) = services("every_shard_is_worked_on").await else { return };
    let other = Services::find("every_shard_is_worked_on").unwrap().with_database("events_other").await;
    let mut both = services.clone();
    both.primary = format!("{},{}", services.primary, other.primary);
    let listener = Listener::start(&services).await;
    let api = Api::launch(&environment(&both)).await;
    api.ready().await;
    let _worker = Api::worker(&environment(&both)).await;
    let mut done = BTreeMap::new();
    // Users are spread by a hash of their e-mails: some more, and both have one.
    while [0, 1].into_iter().any(|shard| !done.values().any(|(of, _)| *of == shard)) {
        let user = api.user().await;
        let (task, history) = live(&user, 1, true).await;
        done.insert(task, (user.user["id"].as_i64().unwrap() % 2, history));
    }
    assert_told(&listener, &done.iter().map(|(task, (_, history))| (*task, history.clone())).collect()).await;
    for (task, messages) in listener.told() {
        let shard = done[&task].0;
        assert!(messages.iter().all(|message| message.id.starts_with(&format!("{shard}-"))), "{messages:?}");
    }
    for services in [services, other] {
        outbox_is_empty(&services).await;
        let admin = services.admin_here().await;
        eventually("its summaries were made", async || {
            let row = admin.query_one("SELECT count(*) FROM summary_refresh WHERE changes > 0", &[]).await.unwrap();
            (row.get::<_, i64>(0) == 1).then_some(())
        })
        .await;
    }
    listener.end().await;
}

#[tokio::test]
async fn without_a_broker_nothing_is_queued() {
    let Some((services, _turn)) = services("without_a_broker_nothing_is_queued").await else { return };
    let api = Api::on(&services).await;
    let worker = Api::worker(&services.environment()).await;
    let user = api.user().await;
    live(&user, 2, true).await;
    let admin = services.admin_here().await;
    let was_used: bool = admin.query_one("SELECT is_called FROM outbox_id_seq", &[]).await.unwrap().get(0);
    assert!(!was_used, "no row was ever written");
    assert!(!worker.log().contains("events"), "{}", worker.log());
}

#[tokio::test]
async fn summaries_follow_changes() {
    let Some((services, _turn)) = services("summaries_follow_changes").await else { return };
    let api = Api::launch(&environment(&services)).await;
    api.ready().await;
    let workers = join_all([(); 2].map(async |()| Api::worker(&environment(&services)).await)).await;
    let refreshes = async || {
        let counts = workers.iter().map(|worker| worker.metric("summary_refreshes_total"));
        join_all(counts).await.iter().sum::<f64>()
    };
    let user = api.user().await;
    let id = user.user["id"].as_i64().unwrap();
    let admin = services.admin_here().await;
    let counted = async || {
        let sql = "SELECT coalesce(sum(count) FILTER (WHERE status = 'pending'), 0)::bigint,
            coalesce(sum(count) FILTER (WHERE status = 'completed'), 0)::bigint FROM task_summaries WHERE user_id = $1";
        let row = admin.query_one(sql, &[&id]).await.unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    };
    let (one, other) = (user.task("one").await, user.task("other").await);
    eventually("both are counted", async || (counted().await == (2, 0)).then_some(())).await;
    user.patch(&path(&one), json!({"status": "completed"})).await.expect(StatusCode::OK);
    user.delete(&path(&other)).await.expect(StatusCode::NO_CONTENT);
    eventually("the change and the end are counted", async || (counted().await == (0, 1)).then_some(())).await;

    assert!(refreshes().await >= 2.0);
    workers.iter().for_each(assert_calm);
    join_all(workers.into_iter().map(Api::kill)).await;
    // The statistics of the last changes may be under way.
    eventually("without a change nobody counts again", async || {
        let row = admin.query_one("SELECT refresh_task_summaries()", &[]).await.unwrap();
        (!row.get::<_, bool>(0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_worker_finishes_when_it_is_told_to() {
    let Some((services, _turn)) = services("a_worker_finishes_when_it_is_told_to").await else { return };
    let mut worker = Api::worker(&environment(&services)).await;
    let client = worker.client();
    client.get("/api/health").await.expect(StatusCode::OK);
    client.get("/api/tasks").await.expect(StatusCode::NOT_FOUND);
    eventually("it relays", async || worker.log().contains("events are relayed").then_some(())).await;
    worker.terminate();
    assert!(worker.ended().await.success());
    assert!(worker.log().contains("stopped"), "{}", worker.log());
    assert!(!worker.log().contains("tasks:tasks"), "no password\n{}", worker.log());
}
