//! Carries out the planned steps. Nothing is decided here.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use redis::{Cmd, Pipeline, RedisError, Value, aio::MultiplexedConnection};
use tokio::time::sleep;
use tracing::info;

use super::{
    connection::{Connections, MIGRATE_TIMEOUT},
    error::Error,
    plan::Step,
    slots::SlotSet,
    topology::Topology,
};

/// How often a condition that others bring about is looked at.
pub(super) const POLL: Duration = Duration::from_millis(100);

/// A manual failover gives up after 5 s by itself; asking again before that would only start it anew.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(6);

/// How many slots are open at a time. While a slot is open, clients are sent from one node to the other for each key.
const SLOTS_AT_A_TIME: usize = 32;

/// How many keys one MIGRATE moves: the source serves nobody else meanwhile.
const KEYS_AT_A_TIME: usize = 50;

/// Carries out the steps in order, up to the deadline. What is left is planned again.
pub(super) async fn execute(
    steps: &[Step],
    topology: &Topology,
    connections: &mut Connections,
    deadline: Instant,
) -> Result<(), Error> {
    for step in steps {
        if Instant::now() >= deadline {
            break;
        }
        let described = step.sentence(topology).to_string();
        info!(step = described, "changing the Redis cluster");
        let mut execution = Execution { topology, connections, deadline };
        execution.step(step).await.map_err(|source| Error::Step { step: described, source })?;
    }
    Ok(())
}

struct Execution<'a> {
    topology: &'a Topology,
    connections: &'a mut Connections,
    deadline: Instant,
}

impl Execution<'_> {
    async fn step(&mut self, step: &Step) -> Result<(), RedisError> {
        match step {
            Step::Meet { on, peer } => {
                let peer = self.address(*peer)?;
                self.send(*on, cluster("MEET").arg(peer.ip().to_string()).arg(peer.port())).await
            }
            Step::Release { on, slots } => self.send(*on, &with_ranges("DELSLOTSRANGE", slots)).await,
            Step::Assign { on, slots } => self.send(*on, &with_ranges("ADDSLOTSRANGE", slots)).await,
            Step::Replicate { replica, master } => {
                let master = self.id(*master)?.to_owned();
                self.send(*replica, cluster("REPLICATE").arg(master)).await
            }
            Step::Forget { on, id } => self.send(*on, cluster("FORGET").arg(&id.0)).await,
            Step::Failover { replica } => self.fail_over(*replica).await,
            Step::TakeOver { replica } => self.send(*replica, cluster("FAILOVER").arg("TAKEOVER")).await,
            Step::SetNodeTimeout { on, milliseconds } => {
                let command = redis::cmd("CONFIG").arg("SET").arg("cluster-node-timeout").arg(*milliseconds).clone();
                self.send(*on, &command).await
            }
            Step::Close { on, slots } => {
                let commands = set_slots(slots.iter(), &["STABLE"]);
                self.connections.pipeline(self.address(*on)?, &commands).await
            }
            Step::Migrate { from, to, slots } => self.migrate(*from, *to, slots).await,
        }
    }

    fn address(&self, index: usize) -> Result<SocketAddr, RedisError> {
        self.topology.members.get(index).map(|observed| observed.member.address).ok_or_else(no_such_member)
    }

    fn id(&self, index: usize) -> Result<&str, RedisError> {
        self.topology.view(index).map(|view| view.myself.id.0.as_str()).ok_or_else(no_such_member)
    }

    async fn send(&mut self, to: usize, command: &Cmd) -> Result<(), RedisError> {
        self.connections.command(self.address(to)?, command).await
    }

    async fn fail_over(&mut self, replica: usize) -> Result<(), RedisError> {
        let address = self.address(replica)?;
        self.send(replica, &cluster("FAILOVER")).await?;
        let give_up = Instant::now() + FAILOVER_TIMEOUT;
        while Instant::now() < give_up {
            let role: Vec<Value> = self.connections.command(address, &redis::cmd("ROLE")).await?;
            if role.first() == Some(&Value::BulkString(b"master".to_vec())) {
                return Ok(());
            }
            sleep(POLL).await;
        }
        // The plan comes to it again.
        Ok(())
    }

    async fn migrate(&mut self, from: usize, to: usize, slots: &SlotSet) -> Result<(), RedisError> {
        let slots: Vec<u16> = slots.iter().collect();
        let mut mover = self.connections.migrate(self.address(from)?).await?;
        for batch in slots.chunks(SLOTS_AT_A_TIME) {
            if Instant::now() >= self.deadline || !self.migrate_batch(from, to, batch, &mut mover).await? {
                break;
            }
        }
        Ok(())
    }

    /// Moves some slots; false where the deadline came first, which leaves them open.
    async fn migrate_batch(
        &mut self,
        from: usize,
        to: usize,
        batch: &[u16],
        mover: &mut MultiplexedConnection,
    ) -> Result<bool, RedisError> {
        let (source, destination) = (self.address(from)?, self.address(to)?);
        let (source_id, destination_id) = (self.id(from)?.to_owned(), self.id(to)?.to_owned());
        let slots = || batch.iter().copied();
        // The destination first: a client that the source sends over must be served there.
        self.connections.pipeline::<()>(destination, &set_slots(slots(), &["IMPORTING", &source_id])).await?;
        self.connections.pipeline::<()>(source, &set_slots(slots(), &["MIGRATING", &destination_id])).await?;
        for (slot, count) in self.connections.count_keys(source, &slots().collect()).await? {
            if count > 0 && !self.move_keys(slot, source, destination, mover).await? {
                return Ok(false);
            }
        }
        // The destination first again: were the source told first and the destination then to fail, nobody would own the slot.
        let settled = set_slots(slots(), &["NODE", &destination_id]);
        self.connections.pipeline::<()>(destination, &settled).await?;
        self.connections.pipeline::<()>(source, &settled).await?;
        for (index, observed, view) in self.topology.reachable() {
            if view.serves() && index != from && index != to {
                self.connections.pipeline::<()>(observed.member.address, &settled).await?;
            }
        }
        Ok(true)
    }

    /// Moves the keys of a slot. The source serves a key until it is moved, so where a crash left a copy on the destination, the
    /// source's is the newer: REPLACE.
    async fn move_keys(
        &mut self,
        slot: u16,
        source: SocketAddr,
        destination: SocketAddr,
        mover: &mut MultiplexedConnection,
    ) -> Result<bool, RedisError> {
        loop {
            let keys: Vec<Vec<u8>> =
                self.connections.command(source, cluster("GETKEYSINSLOT").arg(slot).arg(KEYS_AT_A_TIME)).await?;
            if keys.is_empty() {
                return Ok(true);
            }
            if Instant::now() >= self.deadline {
                return Ok(false);
            }
            let timeout = u64::try_from(MIGRATE_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
            let mut command = redis::cmd("MIGRATE");
            command.arg(destination.ip().to_string()).arg(destination.port()).arg("").arg(0).arg(timeout);
            command.arg("REPLACE").arg("AUTH").arg(self.connections.password()).arg("KEYS").arg(keys);
            command.exec_async(mover).await?;
        }
    }
}

fn cluster(subcommand: &str) -> Cmd {
    let mut command = redis::cmd("CLUSTER");
    command.arg(subcommand);
    command
}

fn with_ranges(subcommand: &str, slots: &SlotSet) -> Cmd {
    let mut command = cluster(subcommand);
    for (start, end) in slots.ranges() {
        command.arg(start).arg(end);
    }
    command
}

fn set_slots(slots: impl Iterator<Item = u16>, state: &[&str]) -> Pipeline {
    let mut commands = redis::pipe();
    for slot in slots {
        commands.cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(state).ignore();
    }
    commands
}

fn no_such_member() -> RedisError {
    RedisError::from((redis::ErrorKind::Client, "the plan names a member that was not observed"))
}
