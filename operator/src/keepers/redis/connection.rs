//! The Redis protocol: one connection a member, with tight timeouts.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use futures::future::join_all;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisError, ServerErrorKind, aio::MultiplexedConnection,
};

use super::{
    error::Error,
    slots::SlotSet,
    target::Member,
    topology::{Observed, Topology, View},
};

/// For a connection and for an answer. A node that needs longer for what is asked here is as good as down.
const TIMEOUT: Duration = Duration::from_secs(1);

/// For the answer to MIGRATE, which itself gives up after [`MIGRATE_TIMEOUT`] without progress.
const MIGRATE_ANSWER: Duration = Duration::from_secs(20);
/// See [`MIGRATE_ANSWER`].
pub(super) const MIGRATE_TIMEOUT: Duration = Duration::from_secs(5);

const NODE_TIMEOUT: &str = "cluster-node-timeout";

/// The password of a cluster's nodes, and the one before, as long as a node may know only that.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Passwords {
    pub(crate) current: String,
    pub(crate) former: Option<String>,
}

/// Connections to the members of one cluster, opened when they are first needed, and kept.
#[derive(Default)]
pub(crate) struct Connections {
    passwords: Passwords,
    open: HashMap<SocketAddr, MultiplexedConnection>,
}

impl Connections {
    /// From now on, connections are opened with these.
    pub(crate) fn expect(&mut self, passwords: Passwords) {
        if self.passwords != passwords {
            *self = Self { passwords, open: HashMap::new() };
        }
    }

    pub(super) fn password(&self) -> &str {
        &self.passwords.current
    }

    /// Sends one command.
    pub(super) async fn command<T: FromRedisValue>(&mut self, to: SocketAddr, command: &Cmd) -> Result<T, RedisError> {
        let mut connection = self.connection(to).await?;
        let answer = command.query_async(&mut connection).await;
        self.keep_if_sound(to, answer)
    }

    /// Sends several commands at once.
    pub(super) async fn pipeline<T: FromRedisValue>(
        &mut self,
        to: SocketAddr,
        commands: &Pipeline,
    ) -> Result<T, RedisError> {
        let mut connection = self.connection(to).await?;
        let answer = commands.query_async(&mut connection).await;
        self.keep_if_sound(to, answer)
    }

    /// Moves keys, which takes longer than anything else: on a connection of its own, so that the rest keeps its tight timeout.
    pub(super) async fn migrate(&self, from: SocketAddr) -> Result<MultiplexedConnection, RedisError> {
        connect(from, &self.passwords, MIGRATE_ANSWER).await
    }

    async fn connection(&mut self, to: SocketAddr) -> Result<MultiplexedConnection, RedisError> {
        if let Some(connection) = self.open.get(&to) {
            return Ok(connection.clone());
        }
        let connection = connect(to, &self.passwords, TIMEOUT).await?;
        self.open.insert(to, connection.clone());
        Ok(connection)
    }

    fn keep_if_sound<T>(&mut self, to: SocketAddr, answer: Result<T, RedisError>) -> Result<T, RedisError> {
        if answer.as_ref().is_err_and(|error| error.is_io_error() || error.is_timeout()) {
            self.open.remove(&to);
        }
        answer
    }

    /// Asks every member at once what it knows.
    pub(super) async fn observe(&mut self, pods: u32, members: &[(u32, Member)]) -> Result<Topology, Error> {
        self.open.retain(|address, _| members.iter().any(|(_, member)| member.address == *address));
        let missing =
            members.iter().map(|(_, member)| member.address).filter(|address| !self.open.contains_key(address));
        let passwords = &self.passwords;
        let connecting = missing.map(|address| async move { (address, connect(address, passwords, TIMEOUT).await) });
        let mut failures = HashMap::new();
        for (address, outcome) in join_all(connecting).await {
            match outcome {
                Ok(connection) => drop(self.open.insert(address, connection)),
                Err(error) => drop(failures.insert(address, error)),
            }
        }
        let views = join_all(members.iter().map(|(_, member)| {
            let connection = self.open.get(&member.address).cloned().ok_or_else(|| failures.remove(&member.address));
            async move {
                match connection {
                    Ok(connection) => ask(connection).await,
                    Err(failure) => Err(Silence::Error(failure.unwrap_or_else(not_connected))),
                }
            }
        }));
        let mut topology = Topology { pods, members: Vec::with_capacity(members.len()) };
        for ((ordinal, member), view) in members.iter().zip(views.await) {
            if view.is_err() {
                self.open.remove(&member.address);
            }
            let view = match view {
                Err(Silence::Error(source)) if is_refusal(&source) => {
                    return Err(Error::Refused { pod: member.pod.clone(), source });
                }
                view => view.map_err(Silence::reason),
            };
            topology.members.push(Observed { member: member.clone(), ordinal: *ordinal, view });
        }
        self.look_for_keys(&mut topology).await;
        Ok(topology)
    }

    /// Which of the slots in question the masters hold keys of. What cannot be asked makes the member one that does not answer: to
    /// take it for empty would be to risk its keys.
    async fn look_for_keys(&mut self, topology: &mut Topology) {
        let slots = topology.slots_in_question();
        if slots.is_empty() {
            return;
        }
        for observed in &mut topology.members {
            let Ok(view) = &mut observed.view else { continue };
            if !view.is_master() || view.keys == 0 {
                continue;
            }
            match self.held(observed.member.address, &slots).await {
                Ok(held) => view.held = held,
                Err(error) => observed.view = Err(Silence::Error(error).reason()),
            }
        }
    }

    async fn held(&mut self, address: SocketAddr, slots: &SlotSet) -> Result<SlotSet, RedisError> {
        let counts = self.count_keys(address, slots).await?;
        Ok(counts.into_iter().filter(|(_, count)| *count > 0).map(|(slot, _)| slot).collect())
    }

    /// How many keys of each of these slots a node holds.
    pub(super) async fn count_keys(
        &mut self,
        address: SocketAddr,
        slots: &SlotSet,
    ) -> Result<Vec<(u16, u64)>, RedisError> {
        let mut pipeline = redis::pipe();
        for slot in slots.iter() {
            pipeline.cmd("CLUSTER").arg("COUNTKEYSINSLOT").arg(slot);
        }
        let counts: Vec<u64> = self.pipeline(address, &pipeline).await?;
        Ok(slots.iter().zip(counts).collect())
    }
}

/// Why a member has no view.
enum Silence {
    Error(RedisError),
    Unreadable(String),
}

impl Silence {
    fn reason(self) -> String {
        match self {
            Self::Error(error) if error.kind() == ErrorKind::Server(ServerErrorKind::BusyLoading) => {
                "it is loading its data".to_owned()
            }
            Self::Error(error) => error.to_string(),
            Self::Unreadable(reason) => reason,
        }
    }
}

/// A node that was told of a new password by nobody yet takes the one before.
async fn connect(to: SocketAddr, passwords: &Passwords, answer: Duration) -> Result<MultiplexedConnection, RedisError> {
    match (connect_with(to, &passwords.current, answer).await, &passwords.former) {
        (Err(error), Some(former)) if is_refusal(&error) => connect_with(to, former, answer).await,
        (connection, _) => connection,
    }
}

async fn connect_with(to: SocketAddr, password: &str, answer: Duration) -> Result<MultiplexedConnection, RedisError> {
    let settings = RedisConnectionInfo::default().set_password(password).set_skip_set_lib_name();
    let info = ConnectionAddr::Tcp(to.ip().to_string(), to.port()).into_connection_info()?.set_redis_settings(settings);
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(TIMEOUT)).set_response_timeout(Some(answer));
    Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await
}

async fn ask(mut connection: MultiplexedConnection) -> Result<View, Silence> {
    let mut questions = redis::pipe();
    questions.cmd("CLUSTER").arg("NODES").cmd("CLUSTER").arg("INFO").cmd("INFO").cmd("DBSIZE");
    questions.cmd("CONFIG").arg("GET").arg(NODE_TIMEOUT);
    let (nodes, cluster, info, keys, settings): (String, String, String, u64, HashMap<String, u64>) =
        questions.query_async(&mut connection).await.map_err(Silence::Error)?;
    let mut view = View::parse(&nodes, &cluster, &info, keys).map_err(Silence::Unreadable)?;
    view.node_timeout = settings.get(NODE_TIMEOUT).copied().unwrap_or_default();
    Ok(view)
}

fn is_refusal(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed || matches!(error.code(), Some("WRONGPASS" | "NOAUTH"))
}

fn not_connected() -> RedisError {
    RedisError::from((ErrorKind::Io, "not connected"))
}
