//! What instances keep in memory, against the real stores: it is what the database says, whoever wrote that and when.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can not go on says so")]

mod common;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use api_server::{app::App, config::Args};
use clap::Parser;
use common::{Services, eventually, unique};
use futures::future::join_all;
use serde_json::{Value, json};
use task_api_domain::{
    id::TaskId,
    mark::Mark,
    search::SearchQuery,
    task::{Filter, NewTask, Priority, Status, Task, TaskPatch},
    user::Registration,
    validation::Form,
};
use task_api_sessions::Token;
use task_api_store::{ListRequest, NewUser, Operation, Outcome, SearchRequest};

/// The most tasks that a user has here.
const ALL: i64 = 500;

/// An instance without its HTTP server.
struct Instance {
    app: Arc<App>,
    keeps: tokio::task::JoinHandle<()>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.keeps.abort();
    }
}

impl Instance {
    async fn new(args: &[String]) -> Self {
        let args = ["task-api".to_owned()].into_iter().chain(args.iter().cloned());
        let app = App::new(&Args::parse_from(args).into_config().unwrap()).unwrap();
        eventually("the store is prepared", async || {
            app.store.prepare().await.inspect_err(|error| eprintln!("{error}")).ok()
        })
        .await;
        let keeps = tokio::spawn({
            let app = Arc::clone(&app);
            async move { app.tasks.keep().await }
        });
        Self { app, keeps }
    }

    /// Waits until it hears other instances.
    async fn informed(self) -> Self {
        eventually("the instance hears the others", async || self.shows("cache_invalidations_heard 1")).await;
        self
    }

    fn shows(&self, line: &str) -> Option<()> {
        self.app.metrics.render(self.app.load()).lines().any(|found| found == line).then_some(())
    }

    /// A metric, summed over what differs in labels behind `prefix`.
    fn metric(&self, prefix: &str) -> u64 {
        let text = self.app.metrics.render(self.app.load());
        let lines = text.lines().filter(|line| line.starts_with(prefix));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
    }

    async fn user(&self) -> i64 {
        let email = format!("{}@example.com", unique("cached"));
        let body = json!({"email": email, "password": common::PASSWORD});
        let Registration { email, .. } = Registration::from_form(Form::body(body).unwrap()).unwrap();
        let user = NewUser { email, name: None, password_hash: "none".to_owned() };
        let written = self.app.store.create_user(&user).await.unwrap();
        self.app.sessions.remember(written.value.id, written.mark).await;
        written.value.id
    }

    async fn apply(&self, user: i64, operation: Operation) -> Outcome {
        self.app.tasks.apply(user, vec![operation], None).await.unwrap().value.pop().unwrap()
    }

    async fn create(&self, user: i64, title: &str) -> Task {
        match self.apply(user, Operation::Create(new_task(title))).await {
            Outcome::Created(task) => task,
            other => panic!("{other:?}"),
        }
    }

    async fn get(&self, user: i64, id: i64) -> Option<Value> {
        let found = self.app.tasks.get(user, TaskId::new(id).unwrap()).await.unwrap();
        found.map(|found| serde_json::from_slice(&found.body).unwrap())
    }

    /// Every task, as it is answered.
    async fn list(&self, user: i64) -> Vec<Value> {
        let all = ListRequest { filter: Filter::default(), after: None, limit: ALL };
        items(&self.app.tasks.list(user, &all, |_| panic!("there is more")).await.unwrap().body)
    }

    /// Every task, as it is in the database.
    async fn stored(&self, user: i64) -> Vec<Value> {
        let all = ListRequest { filter: Filter::default(), after: None, limit: ALL };
        // No replica shows this mark.
        let tasks = self.app.store.list_tasks(user, &all, Some(Mark(i64::MAX))).await.unwrap();
        tasks.tasks.iter().map(|task| serde_json::to_value(task).unwrap()).collect()
    }

    async fn search(&self, user: i64, word: &str) -> Vec<Value> {
        let request = SearchRequest { query: SearchQuery::parse(word).unwrap(), after: None, limit: 10 };
        items(&self.app.tasks.search(user, &request, |_| panic!("there is more")).await.unwrap().body)
    }
}

fn items(page: &[u8]) -> Vec<Value> {
    let page: Value = serde_json::from_slice(page).unwrap();
    assert_eq!(page["next_cursor"], Value::Null);
    page["items"].as_array().unwrap().clone()
}

fn new_task(title: &str) -> NewTask {
    let (status, priority) = (Status::Pending, Priority::Low);
    NewTask { title: title.to_owned(), description: None, status, priority, due_date: None }
}

fn random(below: usize) -> usize {
    usize::try_from(getrandom::u32().unwrap()).unwrap() % below
}

/// One of several who change a user's tasks at once; each keeps to tasks of their own, so that they know what must be shown.
async fn write(here: &Instance, others: &[Instance], user: i64) {
    let mut mine: Vec<Task> = Vec::new();
    for turn in 0..25 {
        let word = unique("w").replace('-', "x");
        if mine.is_empty() || random(2) == 0 {
            let task = here.create(user, &word).await;
            assert_eq!(here.search(user, &word).await.len(), 1, "what was just made is found");
            mine.push(task);
        } else {
            let at = random(mine.len());
            let id = TaskId::new(mine[at].id).unwrap();
            if random(3) == 0 {
                assert_eq!(here.apply(user, Operation::Delete { id, expected: None }).await, Outcome::Deleted(id));
                let gone = mine.remove(at);
                assert_eq!(here.get(user, gone.id).await, None, "what was just deleted is gone");
                continue;
            }
            let patch = TaskPatch { title: Some(word), ..TaskPatch::default() };
            match here.apply(user, Operation::Update { id, patch, expected: None }).await {
                Outcome::Updated(task) => mine[at] = task,
                other => panic!("{other:?}"),
            }
        }
        let latest = mine.iter().max_by_key(|task| task.updated_at).unwrap();
        let expected = serde_json::to_value(latest).unwrap();
        assert_eq!(here.get(user, latest.id).await.as_ref(), Some(&expected), "what was just written is shown");
        assert!(here.list(user).await.contains(&expected));
        if turn % 5 == 0 {
            for other in others {
                let shown = async || (other.get(user, latest.id).await.as_ref() == Some(&expected)).then_some(());
                eventually("another instance shows it", shown).await;
            }
        }
    }
}

/// Many writers and readers of a few users at all instances at once.
async fn storm(instances: &[Instance]) {
    let users = join_all((0..3).map(|_| instances[0].user())).await;
    let over = AtomicBool::new(false);
    let readers = users.iter().flat_map(|user| instances.iter().map(move |instance| (instance, *user)));
    let reading = join_all(readers.map(async |(instance, user)| {
        while !over.load(Ordering::Relaxed) {
            instance.list(user).await;
            tokio::task::yield_now().await;
        }
    }));
    let writers = users.iter().flat_map(|user| instances.iter().flat_map(move |here| [(here, *user), (here, *user)]));
    let writing = async {
        join_all(writers.map(|(here, user)| write(here, instances, user))).await;
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(reading, writing);

    for user in users {
        let stored = instances[0].stored(user).await;
        for instance in instances {
            eventually("all show what is stored", async || (instance.list(user).await == stored).then_some(())).await;
            // One that does not hear the others for a moment tells what was counted before.
            eventually("it counts what is stored", async || {
                (instance.app.tasks.summary(user).await.unwrap().total() == stored.len() as u64).then_some(())
            })
            .await;
        }
    }
}

fn sqlite_file() -> String {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique("caches"));
    std::fs::create_dir_all(&directory).unwrap();
    format!("--database-url={}", directory.join("tasks.db").display())
}

/// An instance on the services of the tests, and with a cache at `cache`.
fn on(services: &Services, cache: &str) -> Vec<String> {
    let environment = services.environment().into_iter().filter(|(_, value)| !value.is_empty());
    let mut args: Vec<_> =
        environment.map(|(name, value)| format!("--{}={value}", name.replace('_', "-").to_lowercase())).collect();
    args.push(format!("--cache-url={cache}"));
    args
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_every_write_is_shown_at_once() {
    let instance = Instance::new(&[sqlite_file()]).await;
    storm(&[instance]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn also_where_views_have_hardly_any_room() {
    let instance = Instance::new(&[sqlite_file(), "--cache-local-bytes=20000".to_owned()]).await;
    let instances = [instance];
    storm(&instances).await;
    // It is measured every few seconds.
    let measured = async || Some(instances[0].metric("cache_bytes{level=\"l2\"}")).filter(|bytes| *bytes > 0);
    let bytes = eventually("the views are measured", measured).await;
    // The views of the storm's three users may be beyond it while they are in use.
    assert!(bytes <= 20_000 + 3 * 16_000, "{bytes} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_show_each_others_writes() {
    let Some(services) = Services::find("two_instances_show_each_others_writes") else { return };
    let args = on(&services, &services.sessions);
    let instances = [Instance::new(&args).await.informed().await, Instance::new(&args).await.informed().await];
    storm(&instances).await;
    assert!(instances.iter().all(|one| one.metric("cache_requests_total{level=\"l2\",result=\"hit\"}") > 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_answered_when_the_others_have_been_told() {
    let Some(services) = Services::find("a_write_is_answered_when_the_others_have_been_told") else { return };
    let one = Instance::new(&on(&services, &services.sessions)).await.informed().await;
    let user = one.user().await;
    let told = || one.metric("cache_invalidations_total{direction=\"sent\"}");
    for _ in 0..20 {
        let before = told();
        one.create(user, "told").await;
        assert!(told() > before, "it was answered before");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_with_many_tasks_are_answered_by_the_store() {
    let instance = Instance::new(&[sqlite_file()]).await;
    let user = instance.user().await;
    let many = (0..510).map(|number| Operation::Create(new_task(&format!("task {number}")))).collect();
    instance.app.tasks.apply(user, many, None).await.unwrap();
    let page = ListRequest { filter: Filter::default(), after: None, limit: 10 };
    let mut titles = Vec::new();
    for _ in 0..2 {
        let body = instance.app.tasks.list(user, &page, |_| "next".to_owned()).await.unwrap().body;
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["next_cursor"], "next");
        titles.push(body["items"][0]["title"].clone());
        instance.create(user, "newest").await;
    }
    assert_eq!(titles, ["task 509", "newest"]);
    assert_eq!(instance.app.tasks.summary(user).await.unwrap().total(), 512);
    assert_eq!(instance.metric("cache_requests_total{level=\"l2\",result=\"hit\"}"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_instance_finds_the_view_in_the_cache_cluster() {
    let Some(services) = Services::find("another_instance_finds_the_view_in_the_cache_cluster") else { return };
    let args = on(&services, &services.sessions);
    let (one, two) = (Instance::new(&args).await.informed().await, Instance::new(&args).await.informed().await);
    let hits = || two.metric("cache_requests_total{level=\"l3\",result=\"hit\"}");
    // A view that was loaded while another user's transaction went on is not shared: nobody can tell what it shows.
    eventually("the view was shared", async || {
        // A user of its own for each try: an instance that has a view changes it, and shares none anew.
        let user = one.user().await;
        let task = serde_json::to_value(one.create(user, "shared").await).unwrap();
        one.list(user).await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert_eq!(two.list(user).await, [task]);
        (hits() > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_instance_has_written_that_is_killed_is_shown_by_the_others() {
    let Some(services) = Services::find("what_an_instance_has_written_that_is_killed_is_shown_by_the_others") else {
        return;
    };
    let args = on(&services, &services.sessions);
    let (one, two) = (Instance::new(&args).await.informed().await, Instance::new(&args).await.informed().await);
    let user = two.user().await;
    two.create(user, "before").await;
    two.list(user).await;
    let other = one.user().await;
    eventually("the one hears the other", async || {
        one.create(other, "heard").await;
        (two.metric("cache_invalidations_total{direction=\"received\"}") > 0).then_some(())
    })
    .await;
    // As one does that is killed between the commit and the news.
    let untold = one.app.store.apply(user, vec![Operation::Create(new_task("untold"))], None).await.unwrap();
    assert!(untold.mark.is_some());
    drop(one);
    eventually("the write is shown", async || (two.list(user).await == two.stored(user).await).then_some(())).await;
    assert_eq!(two.list(user).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_lacked_that_took_over_is_shown_by_nobody() {
    let Some(services) = Services::find("what_a_member_lacked_that_took_over_is_shown_by_nobody") else { return };
    let services = services.with_database("timelines").await;
    let args = on(&services, &services.sessions);
    let (one, two) = (Instance::new(&args).await.informed().await, Instance::new(&args).await.informed().await);
    let (user, other) = (one.user().await, one.user().await);
    one.create(user, "lost").await;
    for instance in [&one, &two] {
        assert_eq!(instance.list(user).await.len(), 1);
    }
    // As it is after the takeover, when somebody writes.
    let admin = services.admin_here().await;
    let lose = format!("DELETE FROM tasks WHERE user_id = {user}; UPDATE write_timeline SET timeline = timeline + 1");
    admin.batch_execute(&lose).await.unwrap();
    one.create(other, "on the next timeline").await;
    for instance in [&one, &two] {
        let shows_none = async || instance.list(user).await.is_empty().then_some(());
        eventually("it is shown no more", shows_none).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_anywhere_ends_everywhere() {
    let Some(services) = Services::find("a_session_that_ends_anywhere_ends_everywhere") else { return };
    let args = on(&services, &services.sessions);
    let (one, two) = (Instance::new(&args).await.informed().await, Instance::new(&args).await.informed().await);
    let token = Token::new(1).unwrap();
    one.app.sessions.begin(&token).await.unwrap();
    for _ in 0..3 {
        assert!(two.app.sessions.find(&token).await.unwrap().is_some());
        assert!(one.app.sessions.find(&token).await.unwrap().is_some());
    }
    assert_eq!(two.metric("cache_requests_total{level=\"session\",result=\"hit\"}"), 2, "it was asked for once");
    one.app.sessions.end(&token).await.unwrap();
    assert!(one.app.sessions.find(&token).await.unwrap().is_none());
    let told = async || (two.metric("cache_invalidations_total{direction=\"received\"}") > 0).then_some(());
    eventually("the other instance is told", told).await;
    let gone = async || two.app.sessions.find(&token).await.unwrap().is_none().then_some(());
    eventually("it has forgotten the session", gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_cache_an_instance_works_all_the_same() {
    let Some(services) = Services::find("without_its_cache_an_instance_works_all_the_same") else { return };
    // Nobody listens there.
    let instance = Instance::new(&on(&services, "redis://127.0.0.1:1")).await;
    let user = instance.user().await;
    for number in 1..4 {
        instance.create(user, "there").await;
        assert_eq!(instance.list(user).await.len(), number);
    }
    assert_eq!(instance.metric("cache_requests_total{level=\"l2\""), 0, "it can't know what others write");
}
