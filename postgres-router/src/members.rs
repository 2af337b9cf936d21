//! Finds the members and asks each of them four times a second.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::lookup_host,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, interval, sleep, timeout},
};
use tracing::{info, warn};

use crate::{
    moves::Moves,
    patroni::{self, Ports, Sight},
    targets::{Member, Targets},
};

/// How often a member is asked.
const ASK: Duration = Duration::from_millis(250);
/// And while nobody leads.
const ASK_SOON: Duration = Duration::from_millis(100);
/// How often the members' addresses are looked for.
const LOOK_UP: Duration = Duration::from_secs(1);
/// DNS may try several servers.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses that nobody names any more are asked until they have been silent for so many questions.
const FORGET: u32 = 8;
/// A database has fewer members.
const MOST_MEMBERS: usize = 100;

/// What a member said, or that it did not answer.
type News = (SocketAddr, Option<Sight>);

/// The members of a database.
pub(crate) struct Members {
    name: String,
    ports: Ports,
    most_lag: u64,
    known: BTreeMap<SocketAddr, Known>,
    moves: Arc<Mutex<Moves>>,
    paused: watch::Receiver<Option<Instant>>,
}

struct Known {
    member: Member,
    asking: JoinHandle<()>,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.asking.abort();
    }
}

impl Members {
    /// `moves` are noted, with whether PgBouncer was `paused` for them.
    pub(crate) fn new(
        name: String,
        ports: Ports,
        most_lag: u64,
        moves: Arc<Mutex<Moves>>,
        paused: watch::Receiver<Option<Instant>>,
    ) -> Self {
        Self { name, ports, most_lag, known: BTreeMap::new(), moves, paused }
    }

    /// Asks all members for ever, and publishes where connections may go.
    pub(crate) async fn follow(mut self, publish: &watch::Sender<Targets>) {
        let (found, mut lookups) = mpsc::channel(1);
        let (tell, mut news) = mpsc::channel(MOST_MEMBERS);
        let look_up = look_up(self.name.clone(), self.ports, publish.subscribe(), found);
        tokio::pin!(look_up);
        loop {
            tokio::select! {
                () = &mut look_up => return,
                Some(named) = lookups.recv() => self.meet(&named, publish, &tell),
                Some((address, sight)) = news.recv() => self.note(address, sight),
            }
            self.publish(publish);
        }
    }

    fn meet(&mut self, named: &BTreeSet<SocketAddr>, targets: &watch::Sender<Targets>, tell: &mpsc::Sender<News>) {
        self.known.retain(|address, known| named.contains(address) || known.member.misses < FORGET);
        for address in named.iter().take(MOST_MEMBERS) {
            self.known.entry(*address).or_insert_with(|| {
                info!(%address, "a member is found");
                let member = Member { address: *address, sight: Sight::Neither, misses: 0 };
                let asking = tokio::spawn(ask(*address, self.ports, targets.subscribe(), tell.clone()));
                Known { member, asking }
            });
        }
    }

    fn note(&mut self, address: SocketAddr, sight: Option<Sight>) {
        let Some(known) = self.known.get_mut(&address) else { return };
        match sight {
            Some(sight) => {
                known.member = Member { address, sight, misses: 0 };
                self.moves.lock().unwrap_or_else(PoisonError::into_inner).note(sight, *self.paused.borrow());
            }
            None => known.member.misses = known.member.misses.saturating_add(1),
        }
    }

    fn publish(&self, publish: &watch::Sender<Targets>) {
        let members: Vec<Member> = self.known.values().map(|known| known.member).collect();
        let targets = Targets::of(&members, self.most_lag);
        publish.send_if_modified(|known| {
            if *known == targets {
                return false;
            }
            if known.primary != targets.primary || known.replicas != targets.replicas {
                info!(primary = ?targets.primary, replicas = ?targets.replicas, "connections go elsewhere");
            }
            *known = targets;
            true
        });
    }
}

/// Asks one member for ever.
async fn ask(address: SocketAddr, ports: Ports, targets: watch::Receiver<Targets>, tell: mpsc::Sender<News>) {
    let patroni = SocketAddr::new(address.ip(), ports.patroni);
    loop {
        let sight = patroni::ask(patroni).await.ok();
        if tell.send((address, sight)).await.is_err() {
            return;
        }
        let somebody_leads = targets.borrow().primary.is_some();
        sleep(if somebody_leads { ASK } else { ASK_SOON }).await;
    }
}

/// Looks for members for ever: by DNS, and by what the primary says, who knows of a new one earlier.
async fn look_up(
    name: String,
    ports: Ports,
    targets: watch::Receiver<Targets>,
    found: mpsc::Sender<BTreeSet<SocketAddr>>,
) {
    let mut tick = interval(LOOK_UP);
    let mut by_dns: BTreeSet<IpAddr> = BTreeSet::new();
    loop {
        tick.tick().await;
        match timeout(LOOK_UP_TIMEOUT, lookup_host((&*name, ports.postgresql))).await {
            Ok(Ok(addresses)) => by_dns = addresses.map(|address| address.ip()).collect(),
            // Those that were known go on.
            Ok(Err(error)) => warn!(name, %error, "the members' name is not found"),
            Err(_) => warn!(name, "DNS does not answer"),
        }
        let mut named = by_dns.clone();
        // None but the primary: one that might just take the lock is not to be disturbed.
        let primary = targets.borrow().primary;
        if let Some(primary) = primary
            && let Ok(members) = patroni::members(SocketAddr::new(primary.ip(), ports.patroni)).await
        {
            named.extend(members);
        }
        let named = named.into_iter().map(|address| SocketAddr::new(address, ports.postgresql)).collect();
        if found.send(named).await.is_err() {
            return;
        }
    }
}
