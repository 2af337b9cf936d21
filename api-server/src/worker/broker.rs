//! Tells events to RabbitMQ: each is confirmed by the broker before it counts as told.

use std::time::Duration;

use jiff::Timestamp;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
    options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions},
    types::{AMQPValue, FieldTable},
    uri::AMQPUri,
};
use serde::Serialize;
use serde_json::value::RawValue;
use task_api_store::{Event, StoreError};
use thiserror::Error;
use tokio::time::timeout;

/// Where events go: a durable topic exchange. The routing key is the kind of change: `task.created`, `task.updated` or `task.deleted`.
pub const EXCHANGE: &str = "task-events";

/// How long the broker may take to accept a connection, and to open a channel.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the broker may take to confirm a batch. It takes no message at all while it is short of memory or disk.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(20);
/// The broker notices that a worker vanished, and a worker that the broker did, after about so many seconds.
const HEARTBEAT_SECONDS: u16 = 15;
/// Written to disk before it is confirmed, in a durable queue.
const PERSISTENT: u8 = 2;

/// Why events were not told.
#[derive(Debug, Error)]
pub enum RelayError {
    /// The outbox can't be read, or what was told not be forgotten.
    #[error("the outbox: {0}")]
    Store(#[from] StoreError),
    /// No connection, or it broke.
    #[error("RabbitMQ at {at}: {cause}")]
    Broker {
        /// The broker's host and port.
        at: String,
        /// What is wrong.
        cause: String,
    },
}

/// An event as consumers see it.
#[derive(Serialize)]
struct Message<'a> {
    /// The message's id too. What is told twice has the same one.
    id: &'a str,
    event: &'a str,
    task_id: i64,
    user_id: i64,
    task: Option<&'a RawValue>,
    occurred_at: Timestamp,
}

/// A connection to the broker, on which events travel one after the other.
pub(super) struct Publisher {
    /// Closes when it is dropped.
    connection: Connection,
    channel: Channel,
    at: String,
}

impl Publisher {
    /// Connects, and makes the exchange if it is not there.
    pub(super) async fn connect(uri: &AMQPUri) -> Result<Self, RelayError> {
        let at = format!("{}:{}", uri.authority.host, uri.authority.port);
        let connected = timeout(CONNECT_TIMEOUT, open(uri)).await;
        match connected {
            Ok(Ok((connection, channel))) => Ok(Self { connection, channel, at }),
            Ok(Err(error)) => Err(RelayError::Broker { at, cause: error.to_string() }),
            Err(_) => Err(RelayError::Broker { at, cause: format!("no connection within {CONNECT_TIMEOUT:?}") }),
        }
    }

    /// Whether there is still a connection.
    pub(super) fn is_connected(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    /// Whether the broker takes no messages for now.
    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Publishes the events of a shard in order, and waits until the broker has all of them.
    pub(super) async fn publish(&self, shard: usize, events: &[Event]) -> Result<(), RelayError> {
        let failed = |cause| RelayError::Broker { at: self.at.clone(), cause };
        if self.is_blocked() {
            return Err(failed("it takes no messages, it is short of memory or disk".to_owned()));
        }
        match timeout(CONFIRM_TIMEOUT, self.publish_all(shard, events)).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(failed("it refused a message; its log says why".to_owned())),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("messages were not confirmed within {CONFIRM_TIMEOUT:?}"))),
        }
    }

    /// Whether all of them were confirmed.
    async fn publish_all(&self, shard: usize, events: &[Event]) -> lapin::Result<bool> {
        let mut confirmations = Vec::with_capacity(events.len());
        for event in events {
            let id = format!("{shard}-{}", event.id);
            let payload = payload(&id, event).map_err(std::io::Error::other)?;
            let sent = self.channel.basic_publish(
                EXCHANGE.into(),
                event.kind.as_str().into(),
                BasicPublishOptions::default(),
                &payload,
                properties(&id, event),
            );
            confirmations.push(sent.await?);
        }
        for confirmation in confirmations {
            if !matches!(confirmation.await?, Confirmation::Ack(_)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

async fn open(uri: &AMQPUri) -> lapin::Result<(Connection, Channel)> {
    let mut uri = uri.clone();
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    let properties = ConnectionProperties::default().with_connection_name("task-api worker".into());
    let connection = Connection::connect_uri(uri, properties).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, durable, FieldTable::default()).await?;
    Ok((connection, channel))
}

fn payload(id: &str, event: &Event) -> serde_json::Result<Vec<u8>> {
    let Event { task_id, user_id, occurred_at, .. } = *event;
    serde_json::to_vec(&Message { id, event: &event.kind, task_id, user_id, task: event.task.as_deref(), occurred_at })
}

fn properties(id: &str, event: &Event) -> BasicProperties {
    let mut headers = FieldTable::default();
    if let Some(traceparent) = &event.traceparent {
        headers.insert("traceparent".into(), AMQPValue::LongString(traceparent.as_str().into()));
    }
    BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(id.into())
        .with_type(event.kind.as_str().into())
        .with_content_type("application/json".into())
        .with_timestamp(u64::try_from(event.occurred_at.as_second()).unwrap_or_default())
        .with_headers(headers)
}
