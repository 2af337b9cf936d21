//! What happens when something that the API depends on is late, lags, goes away or comes back.
//!
//! These tests take services down, so they run one at a time, and `cargo test` runs this file apart from the others.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can not go on says so")]

mod common;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::{Method, StatusCode};
use common::{Api, Client, PASSWORD, Services, eventually, path, unique};
use futures::future::join_all;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};
use tokio_postgres::SimpleQueryMessage;

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// The longest that a client may wait for "not now": it is said after 8 s, and not after twice as long.
const PATIENCE: Duration = Duration::from_secs(13);

async fn services(test: &str) -> Option<(Services, MutexGuard<'static, ()>)> {
    let services = Services::find(test)?;
    Some((services, ONE_AT_A_TIME.lock().await))
}

/// "Not now": within the time that a client waits, and with a hint when to come back.
#[track_caller]
fn assert_unavailable(reply: common::Reply, began: Instant) -> Value {
    assert!(began.elapsed() < PATIENCE, "after {:?}", began.elapsed());
    assert_eq!(reply.header("retry-after"), "1");
    reply.expect(StatusCode::SERVICE_UNAVAILABLE)
}

/// What anybody is told of an instance that is not ready.
const NOT_READY: &str = "this instance can't do its work now; its log says why";

/// What is told on the port of the metrics.
async fn why(api: &Api) -> String {
    let ready = Client::new(api.metrics).get("/ready").await.expect(StatusCode::SERVICE_UNAVAILABLE);
    ready["detail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn eight_instances_migrate_at_once() {
    let Some((services, _turn)) = services("eight_instances_migrate_at_once").await else { return };
    let services = services.with_database("migrate").await;
    let instances = join_all((0..8).map(|_| Api::on(&services))).await;

    let log: String = instances.iter().map(Api::log).collect();
    assert!(!log.contains("waiting for the database"), "they wait for each other without failing\n{log}");
    let admin = services.admin_here().await;
    let one = |sql: &'static str| async {
        let row = admin.query_one(sql, &[]).await.unwrap();
        row.get::<_, i64>(0)
    };
    let migrations = usize::try_from(one("SELECT count(*) FROM schema_migrations").await).unwrap();
    assert!(migrations > 0);
    assert_eq!(log.matches("migrated the schema").count(), migrations, "each migration once\n{log}");
    // This month, three more, and the one for everything else.
    assert_eq!(one("SELECT count(*) FROM pg_inherits WHERE inhparent = 'tasks'::regclass").await, 5);
    for api in &instances {
        api.user().await.task("works").await;
    }
    let again = Api::on(&services).await;
    assert!(!again.log().contains("migrated the schema"), "nothing is left to do");
}

#[tokio::test]
async fn a_month_that_came_too_late_gets_its_tasks() {
    let Some((services, _turn)) = services("a_month_that_came_too_late_gets_its_tasks").await else { return };
    let services = services.with_database("months").await;
    let api = Api::on(&services).await;
    let user = api.user().await;
    let admin = services.admin_here().await;
    let month: String =
        admin.query_one("SELECT 'tasks_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')", &[]).await.unwrap().get(0);
    admin.batch_execute(&format!("DROP TABLE {month}")).await.unwrap();

    let task = user.task("nowhere else to go").await;
    let partition = async || {
        let row =
            admin.query_one("SELECT tableoid::regclass::text FROM tasks WHERE id = $1", &[&task["id"].as_i64()]).await;
        row.unwrap().get::<_, String>(0)
    };
    assert_eq!(partition().await, "tasks_default");
    assert_eq!(user.get(&path(&task)).await.expect(StatusCode::OK), task);

    let _upkeep = Api::on(&services).await;
    assert_eq!(partition().await, month);
    assert_eq!(user.get(&path(&task)).await.expect(StatusCode::OK), task);
    assert_eq!(user.get("/api/tasks").await.expect(StatusCode::OK)["items"], json!([task]));
}

/// The point of carrying the second in the id.
#[tokio::test]
async fn a_look_up_by_id_visits_one_partition() {
    let Some((services, _turn)) = services("a_look_up_by_id_visits_one_partition").await else { return };
    let services = services.with_database("plan").await;
    let api = Api::on(&services).await;
    let task = api.user().await.task("planned").await;
    let id = task_api_domain::id::TaskId::new(task["id"].as_i64().unwrap()).unwrap();
    let (from, to) = id.created_within();
    let created: jiff::Timestamp = task["created_at"].as_str().unwrap().parse().unwrap();
    assert!(from <= created && created < to);

    let admin = services.admin_here().await;
    admin.batch_execute("SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan").await.unwrap();
    let explain =
        "EXPLAIN (ANALYZE, COSTS OFF) SELECT * FROM tasks WHERE id = $1 AND created_at >= $2 AND created_at < $3";
    let rows = admin.query(explain, &[&id.get(), &from, &to]).await.unwrap();
    let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let visited =
        plan.iter().filter(|line| line.contains("Scan")).filter(|line| !line.contains("never executed")).count();
    assert_eq!(visited, 1, "{}", plan.join("\n"));
}

#[tokio::test]
async fn users_read_what_they_wrote_though_the_replica_lags() {
    let Some((services, _turn)) = services("users_read_what_they_wrote_though_the_replica_lags").await else { return };
    let (here, there) = (Api::on(&services).await, Api::on(&services).await);
    let (writer, reader) = (here.user().await, here.user().await);
    let old = reader.task("before").await;
    let kept = writer.task("kept").await;
    let replica = services.replica_admin().await;
    let admin = services.admin("tasks").await;
    // A run that failed may have left it paused.
    replica.batch_execute("SELECT pg_wal_replay_resume()").await.unwrap();
    // So that the reader's own write no longer sends them to the primary.
    caught_up(&admin, &replica).await;
    replica.batch_execute("SELECT pg_wal_replay_pause()").await.unwrap();

    let result = async {
        // Past the API, so nobody is known to have written it: what the reader sees tells whom the API asked.
        let id = old["id"].as_i64().unwrap();
        admin.execute("UPDATE tasks SET title = 'after' WHERE id = $1", &[&id]).await.unwrap();
        // Not by an instance that has let one of them rest.
        eventually("replicas are read", async || {
            let task = reader.at(&there).get(&path(&old)).await.expect(StatusCode::OK);
            (task["title"] == "before").then_some(())
        })
        .await;

        // What the replica still shows of the writer's is old, and what it does not show yet is new.
        let writer_there = writer.at(&there);
        let list = async |query: &str| {
            writer_there.get(&format!("/api/tasks{query}")).await.expect(StatusCode::OK)["items"].clone()
        };
        let kept = writer.patch(&path(&kept), json!({"status": "completed"})).await.expect(StatusCode::OK);
        assert_eq!(writer_there.get(&path(&kept)).await.expect(StatusCode::OK), kept);
        assert_eq!(list("").await, json!([kept]));
        assert_eq!(list("?status=pending").await, json!([]));
        let fresh = writer.task("fresh").await;
        assert_eq!(writer_there.get(&path(&fresh)).await.expect(StatusCode::OK), fresh);
        assert_eq!(list("").await, json!([fresh, kept]));
        assert_eq!(list("?limit=1").await, json!([fresh]));
        writer_there.delete(&path(&kept)).await.expect(StatusCode::NO_CONTENT);
        writer.get(&path(&kept)).await.expect(StatusCode::NOT_FOUND);
        assert_eq!(list("").await, json!([fresh]));
        let newcomer = here.user().await;
        assert_eq!(newcomer.at(&there).get("/api/auth/me").await.expect(StatusCode::OK), newcomer.user);
    };
    result.await;

    replica.batch_execute("SELECT pg_wal_replay_resume()").await.unwrap();
    eventually("the replica shows the change", async || {
        let task = reader.at(&there).get(&path(&old)).await.expect(StatusCode::OK);
        (task["title"] == "after").then_some(())
    })
    .await;
}

async fn caught_up(primary: &tokio_postgres::Client, replica: &tokio_postgres::Client) {
    let lsn: String = primary.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
    eventually("the replica has replayed everything", async || {
        let sql = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
        replica.query_one(sql, &[&lsn]).await.unwrap().get::<_, bool>(0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn reads_go_to_the_primary_while_the_replicas_are_away() {
    let Some((mut services, _turn)) = services("reads_go_to_the_primary_while_the_replicas_are_away").await else {
        return;
    };
    services.replicas = "postgres://tasks:tasks@127.0.0.1:1/tasks_ro".to_owned();
    let api = Api::on(&services).await;
    let user = api.user().await;
    let task = user.task("still there").await;
    let began = Instant::now();
    assert_eq!(user.get(&path(&task)).await.expect(StatusCode::OK), task);
    user.get("/api/tasks").await.expect(StatusCode::OK);
    // They rest for 2 s each time.
    let most = 1 + usize::try_from(began.elapsed().as_secs() / 2).unwrap();
    let failures = api.log().matches("the replicas fail").count();
    assert!((1..=most).contains(&failures), "they are left alone for a while\n{}", api.log());
}

#[tokio::test]
async fn a_session_outlives_its_instance() {
    let Some((services, _turn)) = services("a_session_outlives_its_instance").await else { return };
    let first = Api::on(&services).await;
    let user = first.user().await;
    let page_cursor = {
        user.task("one").await;
        user.task("two").await;
        user.get("/api/tasks?limit=1").await.expect(StatusCode::OK)["next_cursor"].as_str().unwrap().to_owned()
    };
    first.kill().await;
    let second = Api::on(&services).await;
    let user = user.at(&second);
    assert_eq!(user.get("/api/auth/me").await.expect(StatusCode::OK), user.user);
    let page = user.get(&format!("/api/tasks?limit=1&cursor={page_cursor}")).await.expect(StatusCode::OK);
    assert_eq!(page["items"][0]["title"], "one", "so does a cursor");
}

#[tokio::test]
async fn an_instance_waits_for_its_database() {
    let Some((services, _turn)) = services("an_instance_waits_for_its_database").await else { return };
    Services::control("pooler", "stop").await;
    let api = Api::launch(&services.environment()).await;
    let client = api.client();
    eventually("it says what it waits for", async || api.log().contains("waiting for the database").then_some(()))
        .await;
    client.get("/api/health").await.expect(StatusCode::OK);
    let ready = assert_unavailable(client.get("/api/ready").await, Instant::now());
    assert_eq!(ready["detail"], NOT_READY, "what fails is none of its users' business");
    assert!(why(&api).await.starts_with("database:"));
    assert_unavailable(client.get("/api/tasks").await, Instant::now());
    Services::control("pooler", "start").await;
    api.ready().await;
    api.user().await.task("served").await;
}

/// Writes without a pause until told to stop; what was acknowledged, and how the rest was refused.
async fn write_until(user: Client, stop: Arc<AtomicBool>) -> (Vec<Value>, usize) {
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let reply = user.post("/api/tasks", json!({"title": unique("ledger")})).await;
        if reply.status == StatusCode::CREATED {
            acknowledged.push(reply.body);
        } else {
            assert_unavailable(reply, began);
            refused += 1;
        }
    }
    (acknowledged, refused)
}

#[tokio::test]
async fn the_pooler_dies_and_comes_back() {
    let Some((services, _turn)) = services("the_pooler_dies_and_comes_back").await else { return };
    let api = Api::on(&services).await;
    let stop = Arc::new(AtomicBool::new(false));
    let users = join_all((0..4).map(|_| api.user())).await;
    let writers: Vec<_> = users.iter().map(|user| tokio::spawn(write_until(user.clone(), Arc::clone(&stop)))).collect();
    let probe = api.user().await;
    for _ in 0..2 {
        Services::control("pooler", "stop").await;
        let began = Instant::now();
        let ready = eventually("readiness tells", async || {
            let reply = probe.get("/api/ready").await;
            (reply.status == StatusCode::SERVICE_UNAVAILABLE).then_some(reply)
        })
        .await;
        assert_eq!(assert_unavailable(ready, began)["detail"], NOT_READY);
        assert!(why(&api).await.contains("database:"));
        probe.get("/api/health").await.expect(StatusCode::OK);
        Services::control("pooler", "start").await;
        let task = eventually("writes succeed again", async || {
            let reply = probe.post("/api/tasks", json!({"title": "back"})).await;
            (reply.status == StatusCode::CREATED).then_some(reply.body)
        })
        .await;
        assert_eq!(probe.get(&path(&task)).await.expect(StatusCode::OK), task);
    }
    stop.store(true, Ordering::Relaxed);
    for (writer, user) in writers.into_iter().zip(&users) {
        let (acknowledged, refused) = writer.await.unwrap();
        assert!(!acknowledged.is_empty());
        assert!(refused <= 4, "{refused} refused: a write during an outage waits for its end, if that is near");
        for task in acknowledged {
            assert_eq!(user.get(&path(&task)).await.expect(StatusCode::OK), task, "what was acknowledged is there");
        }
    }
}

/// A server whose client is gone goes on with its statement, and commits: nobody knows then what became of it.
#[tokio::test]
async fn a_write_of_unknown_outcome_says_so_unless_it_can_be_repeated() {
    let Some((services, _turn)) = services("a_write_of_unknown_outcome_says_so_unless_it_can_be_repeated").await else {
        return;
    };
    let services = services.with_database("unknown").await;
    let api = Api::on(&services).await;
    let (plain, keyed) = (api.user().await, api.user().await);
    for user in [&plain, &keyed] {
        user.task("before").await;
    }
    let lock = services.admin_here().await;
    lock.batch_execute("BEGIN; LOCK TABLE tasks IN SHARE MODE").await.unwrap();
    // Beside the transaction: within one, pg_stat_activity never shows a server process that began after it was first read.
    let admin = services.admin_here().await;

    let outage = async {
        eventually("both writes wait for the table", async || {
            let sql = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND usename = 'tasks' AND wait_event_type = 'Lock'";
            (admin.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 2).then_some(())
        })
        .await;
        Services::control("pooler", "stop").await;
        let stopped = Instant::now();
        lock.batch_execute("COMMIT").await.unwrap();
        Services::control("pooler", "start").await;
        stopped
    };
    let once = json!({"title": "once"});
    let keyed_write = async || keyed.ask(Method::POST, "/api/tasks", &[("idempotency-key", "one")], Some(&once)).await;
    let (perhaps, made, stopped) =
        tokio::join!(plain.post("/api/tasks", json!({"title": "perhaps"})), keyed_write(), outage);

    let refused = assert_unavailable(perhaps, stopped);
    assert!(refused["detail"].as_str().unwrap().contains("may or may not be there"), "{refused}");
    let made = made.expect(StatusCode::CREATED);
    eventually("its server, which nobody told, has committed", async || {
        (walk_titles(&plain).await == ["perhaps", "before"]).then_some(())
    })
    .await;
    assert_eq!(walk_titles(&keyed).await, ["once", "before"], "its key made it repeatable");
    assert_eq!(keyed_write().await.expect(StatusCode::CREATED), made);
}

#[tokio::test]
async fn a_database_that_stays_away_is_not_waited_for_by_all() {
    let Some((services, _turn)) = services("a_database_that_stays_away_is_not_waited_for_by_all").await else { return };
    let api = Api::on(&services).await;
    let user = api.user().await;
    let write = async || {
        let began = Instant::now();
        assert_unavailable(user.post("/api/tasks", json!({"title": "away"})).await, began);
        began.elapsed()
    };
    let open = r#"database_circuit_breaker_open{pool="writes",shard="0"}"#;
    assert!(api.metric(open).await < 1.0);
    Services::control("pooler", "stop").await;
    eventually("the breaker opens", async || {
        join_all((0..8).map(|_| write())).await;
        (api.metric(open).await > 0.0).then_some(())
    })
    .await;
    let waited = join_all((0..4).map(|_| write())).await;
    let at_once = waited.iter().filter(|waited| **waited < Duration::from_secs(4)).count();
    assert!(at_once >= 3, "all but the one that tries are refused at once: {waited:?}");
    Services::control("pooler", "start").await;
    eventually("writes succeed again", async || {
        (user.post("/api/tasks", json!({"title": "back"})).await.status == StatusCode::CREATED).then_some(())
    })
    .await;
    assert!(api.metric(open).await < 1.0);
}

/// What a failover looks like from here: the primary takes no writes, then its connections break, then another one takes them.
#[tokio::test]
async fn a_primary_that_takes_no_writes_is_waited_for() {
    let Some((services, _turn)) = services("a_primary_that_takes_no_writes_is_waited_for").await else { return };
    let services = services.with_database("failover").await;
    let api = Api::on(&services).await;
    let user = api.user().await;
    let task = user.task("before").await;
    let admin = services.admin_here().await;
    let database: String = admin.query_one("SELECT current_database()::text", &[]).await.unwrap().get(0);
    let switch = async |change: &str| {
        admin.batch_execute(&format!("ALTER ROLE tasks IN DATABASE {database} {change}")).await.unwrap();
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND usename = 'tasks'";
        admin.query(end, &[]).await.unwrap();
    };

    switch("SET default_transaction_read_only = on").await;
    let began = Instant::now();
    assert_unavailable(user.patch(&path(&task), json!({"title": "no"})).await, began);
    assert_eq!(user.get(&path(&task)).await.expect(StatusCode::OK), task, "reads go on");

    // By a key: whoever is cut off in the middle of it may be done again.
    let (key, body) = ([("idempotency-key", "during")], json!({"title": "during"}));
    let (waiting, ()) = tokio::join!(user.ask(Method::POST, "/api/tasks", &key, Some(&body)), async {
        eventually("the write was refused by the database", async || {
            api.log().contains("read-only transaction").then_some(())
        })
        .await;
        switch("RESET default_transaction_read_only").await;
    });
    let during = waiting.expect(StatusCode::CREATED);
    assert_eq!(user.get("/api/tasks").await.expect(StatusCode::OK)["items"], json!([during, task]), "once, not twice");
}

/// Stands between an instance and the pooler. Frozen, it keeps what is open and lets nothing through there, as a pooler on a node that stands still
/// does; who comes anew gets through, as to a pooler on another node.
struct Relay {
    address: std::net::SocketAddr,
    frozen: tokio::sync::watch::Sender<bool>,
}

impl Relay {
    async fn to(target: String) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, frozen) = (listener.local_addr().unwrap(), tokio::sync::watch::Sender::new(false));
        let freezes = frozen.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (target, mut frozen) = (target.clone(), freezes.subscribe());
                tokio::spawn(async move {
                    let mut server = tokio::net::TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = frozen.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { address, frozen }
    }

    /// Nothing goes any more over what is open now.
    fn freeze(&self) {
        self.frozen.send_replace(true);
    }
}

/// A pooler's node stands still: what is open to it costs one wait, and not one a connection.
#[tokio::test]
async fn connections_to_a_pooler_that_stands_still_are_left_together() {
    let Some((mut services, _turn)) = services("connections_to_a_pooler_that_stands_still_are_left_together").await
    else {
        return;
    };
    let at = services.primary.find('@').unwrap() + 1;
    let end = at + services.primary[at..].find('/').unwrap();
    let relay = Relay::to(services.primary[at..end].to_owned()).await;
    services.primary.replace_range(at..end, &relay.address.to_string());
    services.replicas = String::new();
    let api = Api::on(&services).await;
    let user = api.user().await;
    // Every connection for writes is made, one after another.
    for number in 0..24 {
        user.task(&format!("before {number}")).await;
    }
    relay.freeze();
    let began = Instant::now();
    let write = async || user.post("/api/tasks", json!({"title": "after"})).await.status;
    let mut refused = 0;
    while write().await != StatusCode::CREATED {
        refused += 1;
        assert!(began.elapsed() < PATIENCE, "{refused} writes were refused\n{}", api.log());
    }
    for _ in 0..24 {
        assert_eq!(write().await, StatusCode::CREATED, "every connection is another one\n{}", api.log());
    }
    assert!(refused <= 1, "{refused} writes were refused, each after a wait of its own");
}

/// A pooler that is to end refuses whoever waits, and ends their connections: what was sent after the statement that is refused was not carried out,
/// either, and is sent again over another connection.
#[tokio::test]
async fn a_pooler_that_sees_its_clients_off_leaves_no_write_unknown() {
    let Some((services, _turn)) = services("a_pooler_that_sees_its_clients_off_leaves_no_write_unknown").await else {
        return;
    };
    let api = Api::on(&services).await;
    let user = api.user().await;
    // Every connection for writes is made.
    for number in 0..24 {
        user.task(&format!("before {number}")).await;
    }
    let console = format!("{}/pgbouncer", services.primary.rsplit_once('/').unwrap().0);
    let (console, connection) = tokio_postgres::connect(&console, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let tell = async |command: &str| console.batch_execute(command).await.unwrap();
    // Those that wait, by what tells one client from another.
    let waiting = async || {
        let clients = console.simple_query("SHOW CLIENTS").await.unwrap();
        let waits = clients.iter().filter_map(|client| match client {
            SimpleQueryMessage::Row(client) if client.get("state") == Some("waiting") => {
                client.get("ptr").map(str::to_owned)
            }
            _ => None,
        });
        waits.collect::<HashSet<String>>()
    };
    tell("PAUSE").await;
    // More of them than there are connections: some wait behind others.
    let (_, ()) = tokio::join!(join_all((0..9).map(|_| api.user())), async {
        let waited =
            eventually("every connection waits", async || Some(waiting().await).filter(|waiting| waiting.len() >= 6))
                .await;
        tell("SET query_wait_timeout = '0.1'").await;
        eventually("they have left", async || waiting().await.is_disjoint(&waited).then_some(())).await;
        tell("SET query_wait_timeout = '120'").await;
        tell("RESUME").await;
    });
}

#[tokio::test]
async fn the_session_store_dies_and_comes_back() {
    let Some((services, _turn)) = services("the_session_store_dies_and_comes_back").await else { return };
    let api = Api::on(&services).await;
    let user = api.user().await;
    let email = user.user["email"].clone();
    // Nobody asks this one anything while the store is away.
    let idle = Api::on(&services).await;
    user.at(&idle).get("/api/auth/me").await.expect(StatusCode::OK);
    Services::control("sessions", "stop").await;
    for _ in 0..2 {
        let began = Instant::now();
        assert_unavailable(user.get("/api/auth/me").await, began);
        let began = Instant::now();
        let login = json!({"email": email, "password": PASSWORD});
        assert_unavailable(user.post("/api/auth/login", login).await, began);
    }
    let unlucky = json!({"email": format!("{}@example.com", unique("unlucky")), "password": PASSWORD});
    assert_unavailable(api.client().post("/api/auth/register", unlucky.clone()).await, Instant::now());
    api.client().get("/api/health").await.expect(StatusCode::OK);
    let ready = eventually("readiness tells", async || {
        let reply = api.client().get("/api/ready").await;
        (reply.status == StatusCode::SERVICE_UNAVAILABLE).then_some(reply.body)
    })
    .await;
    assert_eq!(ready["detail"], NOT_READY);
    assert!(why(&api).await.contains("sessions:"));

    Services::control("sessions", "start").await;
    eventually("log-ins succeed again", async || {
        let login = json!({"email": email, "password": PASSWORD});
        let reply = user.post("/api/auth/login", login).await;
        (reply.status == StatusCode::OK).then_some(())
    })
    .await;
    // The store came back empty, as it would without its disk.
    user.at(&idle).get("/api/auth/me").await.expect(StatusCode::UNAUTHORIZED);
    user.get("/api/auth/me").await.expect(StatusCode::UNAUTHORIZED);
    api.client().post("/api/auth/register", unlucky).await.expect(StatusCode::CREATED);
    assert!(user.try_send(Method::GET, "/api/ready", &[], vec![]).await.is_some());
}

/// Nothing was lost, and nobody was told that it was: writes that met no server waited for one.
#[tokio::test]
async fn the_primary_restarts() {
    let Some((services, _turn)) = services("the_primary_restarts").await else { return };
    let api = Api::on(&services).await;
    let user = api.user().await;
    let before = user.task("before").await;
    // So that there is little to recover: a write waits 8 s for that.
    services.admin("tasks").await.batch_execute("CHECKPOINT").await.unwrap();
    Services::control("primary", "stop").await;
    // Finds its connection broken, and then no server.
    assert_unavailable(user.post("/api/tasks", json!({"title": "lost"})).await, Instant::now());
    eventually("the replica goes on answering", async || {
        (user.get(&path(&before)).await.status == StatusCode::OK).then_some(())
    })
    .await;
    let (waiting, ()) =
        tokio::join!(user.post("/api/tasks", json!({"title": "during"})), Services::control("primary", "start"));
    let during = waiting.expect(StatusCode::CREATED);
    let titles: Vec<_> = walk_titles(&user).await;
    assert!(titles == ["during", "before"], "once, and not what was refused: {titles:?}");
    assert_eq!(user.get(&path(&during)).await.expect(StatusCode::OK), during);
}

async fn walk_titles(user: &Client) -> Vec<String> {
    let list = user.get("/api/tasks").await.expect(StatusCode::OK);
    list["items"].as_array().unwrap().iter().map(|task| task["title"].as_str().unwrap().to_owned()).collect()
}

/// An instance whose cache can go away without its sessions: those are in the process.
async fn cached(services: &Services) -> Api {
    let mut environment = services.environment();
    environment.retain(|(name, _)| *name != "SESSIONS_URL");
    environment.push(("CACHE_URL", services.sessions.clone()));
    let api = Api::launch(&environment).await;
    api.ready().await;
    api
}

/// Waits until it hears other instances, or knows that it does not.
async fn hears(api: &Api, hears: bool) {
    let line = format!("\ncache_invalidations_heard {}\n", u8::from(hears));
    let metrics = Client::new(api.metrics);
    eventually("it knows whether it hears the others", async || {
        let text = metrics.get("/metrics").await.body;
        text.as_str().unwrap().contains(&line).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_cache_that_goes_away_costs_no_answer() {
    let Some((services, _turn)) = services("a_cache_that_goes_away_costs_no_answer").await else { return };
    let api = cached(&services).await;
    hears(&api, true).await;
    let user = api.user().await;
    let mut tasks = vec![user.task("with it").await];
    let shows = async |tasks: &[Value]| {
        let newest_first: Vec<_> = tasks.iter().rev().cloned().collect();
        assert_eq!(user.get("/api/tasks").await.expect(StatusCode::OK)["items"], json!(newest_first));
    };
    shows(&tasks).await;

    Services::control("sessions", "stop").await;
    for known in [false, true] {
        if known {
            hears(&api, false).await;
        }
        tasks.push(user.task("without it").await);
        shows(&tasks).await;
        // Nobody has read for this user yet.
        let other = api.user().await;
        other.task("theirs").await;
        other.get("/api/tasks").await.expect(StatusCode::OK);
    }

    Services::control("sessions", "start").await;
    hears(&api, true).await;
    tasks.push(user.task("with it again").await);
    shows(&tasks).await;
}

#[tokio::test]
async fn a_cache_that_hangs_costs_no_answer() {
    let Some((services, _turn)) = services("a_cache_that_hangs_costs_no_answer").await else { return };
    let api = cached(&services).await;
    hears(&api, true).await;
    let client = redis::cluster::ClusterClient::new(vec![services.sessions.as_str()]).unwrap();
    let mut connection = client.get_async_connection().await.unwrap();
    let everywhere = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
    let mut pause = redis::cmd("CLIENT");
    connection.route_command(pause.arg("PAUSE").arg(10_000).arg("ALL").clone(), everywhere).await.unwrap();

    let user = api.user().await;
    let task = user.task("as if nothing were wrong").await;
    for _ in 0..3 {
        assert_eq!(user.get("/api/tasks").await.expect(StatusCode::OK)["items"], json!([task]));
    }
    hears(&api, false).await;
    assert_eq!(user.get("/api/tasks").await.expect(StatusCode::OK)["items"], json!([task]));
    hears(&api, true).await;
    assert_eq!(user.get("/api/tasks").await.expect(StatusCode::OK)["items"], json!([task]));
}
