//! What a store promises, on each kind: SQLite, PostgreSQL through PgBouncer, and two databases there that share the users.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can not go on says so")]

#[path = "store/bed.rs"]
mod bed;
mod common;
#[path = "store/postgres.rs"]
mod postgres_only;

use std::collections::{BTreeSet, HashSet};

use bed::{Bed, create, id, idempotency, new_task, retitle};
use common::eventually;
use futures::future::join_all;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use task_api_domain::{
    id::TaskId,
    mark::Mark,
    search::SearchQuery,
    task::{Filter, Priority, Status, Task, TaskPatch, Version},
};
use task_api_store::{Bound, ListRequest, Operation, Outcome, PIECE_BYTES, SearchRequest, StoreError};

/// A view of all that the tests make.
const WHOLE: Bound = Bound { tasks: 500, bytes: 100 << 20 };

macro_rules! on_every_store {
    ($($test:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(&super::Bed::sqlite().await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                if let Some(bed) = super::Bed::postgres(concat!("postgres::", stringify!($test))).await {
                    super::$test(&bed).await;
                }
            })+
        }
        mod two_shards {
            $(#[tokio::test]
            async fn $test() {
                if let Some(bed) = super::Bed::two_shards(concat!("two_shards::", stringify!($test))).await {
                    super::$test(&bed).await;
                }
            })+
        }
    };
}

on_every_store!(
    operations_are_done_in_order_each_on_its_own,
    an_empty_patch_changes_nothing,
    of_two_changes_to_one_version_one_is_done,
    a_request_is_done_once,
    a_key_is_its_users_and_its_requests,
    the_same_request_many_times_at_once_is_done_once,
    many_users_write_at_once,
    later_writes_have_greater_marks,
    a_view_shows_every_write_up_to_its_version,
    a_view_says_whether_it_is_complete,
    a_piece_is_bounded_in_bytes,
    a_search_finds_what_english_leaves_out,
    a_search_finds_words_by_their_stem,
    pages_are_the_same_whatever_is_written_meanwhile,
    summaries_count,
    accounts_are_found_by_email,
);

async fn operations_are_done_in_order_each_on_its_own(bed: &Bed) {
    let (user, other) = (bed.user().await, bed.user().await);
    let first = bed.create(user, "first").await;
    let foreign = bed.create(other, "not yours").await;
    let stale = Some(Version(7));
    let written = bed
        .apply(
            user,
            vec![
                create("second"),
                retitle(id(&first), "changed", Some(Version(1))),
                retitle(id(&first), "not changed", stale),
                retitle(id(&first), "changed again", Some(Version(2))),
                retitle(id(&foreign), "stolen", None),
                Operation::Delete { id: id(&foreign), expected: stale },
                Operation::Delete { id: id(&first), expected: stale },
                Operation::Delete { id: id(&first), expected: Some(Version(3)) },
                Operation::Delete { id: id(&first), expected: None },
            ],
        )
        .await;
    let [Outcome::Created(second), Outcome::Updated(changed), rest @ ..] = written.as_slice() else {
        panic!("{written:?}")
    };
    assert_eq!((second.title.as_str(), second.version), ("second", Version(1)));
    assert_eq!((changed.title.as_str(), changed.version), ("changed", Version(2)));
    assert!(changed.updated_at >= changed.created_at && changed.created_at == first.created_at);
    let again = Task { title: "changed again".to_owned(), version: Version(3), ..changed.clone() };
    let [Outcome::Conflict, Outcome::Updated(third), rest @ ..] = rest else { panic!("{rest:?}") };
    assert_eq!(Task { updated_at: again.updated_at, ..third.clone() }, again);
    let gone = Outcome::Deleted(id(&first));
    let expected = [Outcome::NotFound, Outcome::NotFound, Outcome::Conflict, gone, Outcome::NotFound];
    assert_eq!(rest, expected);
    assert_eq!(bed.list(user).await, std::slice::from_ref(second));
    assert_eq!(bed.list(other).await, [foreign]);
}

async fn an_empty_patch_changes_nothing(bed: &Bed) {
    let user = bed.user().await;
    let task = bed.create(user, "as it is").await;
    let nothing = |expected| Operation::Update { id: id(&task), patch: TaskPatch::default(), expected };
    let written =
        bed.store.apply(user, vec![nothing(None), nothing(Some(Version(1))), nothing(Some(Version(2)))], None).await;
    let written = written.unwrap();
    let same = Outcome::Updated(task);
    assert_eq!(written.value, [same.clone(), same, Outcome::Conflict]);
    assert_eq!(written.mark, None);
}

async fn of_two_changes_to_one_version_one_is_done(bed: &Bed) {
    let user = bed.user().await;
    let task = bed.create(user, "contended").await;
    let tries = (0..8).map(|number| bed.apply(user, vec![retitle(id(&task), &number.to_string(), Some(Version(1)))]));
    let outcomes: Vec<_> = join_all(tries).await.into_iter().flatten().collect();
    let done: Vec<_> = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Updated(_))).collect();
    let [Outcome::Updated(winner)] = done.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Conflict).count(), 7);
    assert_eq!(bed.list(user).await, std::slice::from_ref(winner));
}

async fn a_request_is_done_once(bed: &Bed) {
    let user = bed.user().await;
    let key = idempotency(1);
    let task = bed.create(user, "to be changed").await;
    let request =
        || vec![create("once"), retitle(id(&task), "twice?", None), retitle(id(&task), "no", Some(Version(9)))];
    let first = bed.store.apply(user, request(), Some(&key)).await.unwrap();
    assert!(!first.replayed);
    bed.apply(user, vec![retitle(id(&task), "later", None)]).await;
    let second = bed.store.apply(user, request(), Some(&key)).await.unwrap();
    assert!(second.replayed);
    assert_eq!(second.value, first.value, "what was answered then, not what is there now");
    let titles: Vec<_> = bed.list(user).await.into_iter().map(|task| task.title).collect();
    assert_eq!(titles, ["once", "later"]);
}

async fn a_key_is_its_users_and_its_requests(bed: &Bed) {
    let (user, other) = (bed.user().await, bed.user().await);
    let key = idempotency(2);
    bed.store.apply(user, vec![create("mine")], Some(&key)).await.unwrap();
    let another = task_api_store::Idempotency { fingerprint: [9; 32], ..key.clone() };
    let refused = bed.store.apply(user, vec![create("another")], Some(&another)).await;
    assert!(matches!(refused, Err(StoreError::KeyReused)), "{refused:?}");
    let theirs = bed.store.apply(other, vec![create("theirs")], Some(&key)).await.unwrap();
    assert!(!theirs.replayed);
    assert_eq!((bed.list(user).await.len(), bed.list(other).await.len()), (1, 1));
}

async fn the_same_request_many_times_at_once_is_done_once(bed: &Bed) {
    let user = bed.user().await;
    let key = idempotency(3);
    let all = join_all((0..8).map(|_| bed.store.apply(user, vec![create("once")], Some(&key)))).await;
    let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
    assert_eq!(all.iter().filter(|written| !written.replayed).count(), 1);
    assert!(all.iter().all(|written| written.value == all[0].value), "{all:?}");
    assert_eq!(bed.list(user).await.len(), 1);
}

async fn many_users_write_at_once(bed: &Bed) {
    let users = join_all((0..10).map(|_| bed.user())).await;
    let tasks = join_all((0..300).map(|number| bed.create(users[number % users.len()], "one of many"))).await;
    let ids: HashSet<_> = tasks.iter().map(|task| task.id).collect();
    assert_eq!(ids.len(), 300);
    for task in &tasks {
        assert_eq!(id(task).shard(), task.user_id % bed.shards, "an id says where its task is");
        let (from, to) = id(task).created_within();
        assert!(from <= task.created_at && task.created_at < to, "and when it was made");
    }
    for user in users {
        let here: BTreeSet<_> = bed.list(user).await.into_iter().map(|task| task.id).collect();
        let made: BTreeSet<_> = tasks.iter().filter(|task| task.user_id == user).map(|task| task.id).collect();
        assert_eq!(here, made);
    }
}

async fn later_writes_have_greater_marks(bed: &Bed) {
    let user = bed.user().await;
    let mut last = Mark::default();
    for round in 0..10 {
        let written = join_all((0..4).map(|_| bed.store.apply(user, vec![create("x")], None))).await;
        let marks: Vec<_> = written.into_iter().map(|written| written.unwrap().mark.unwrap()).collect();
        assert!(marks.iter().all(|mark| *mark > last), "round {round}: {marks:?} after {last:?}");
        last = marks.into_iter().max().unwrap();
    }
}

async fn a_view_shows_every_write_up_to_its_version(bed: &Bed) {
    let user = bed.user().await;
    let writer = async |count: usize| {
        let mut made = Vec::new();
        for _ in 0..count {
            let written = bed.store.apply(user, vec![create("raced")], None).await.unwrap();
            let [Outcome::Created(task)] = written.value.as_slice() else { panic!("{written:?}") };
            made.push((written.mark.unwrap(), task.id));
        }
        made
    };
    let reader = async || {
        let (mut views, mut wrote) = (Vec::new(), None);
        for _ in 0..30 {
            let view = bed.store.load_view(user, WHOLE, wrote).await.unwrap();
            assert!(wrote.is_none_or(|wrote| view.version >= wrote), "{:?} < {wrote:?}", view.version);
            wrote = Some(view.version);
            views.push(view);
        }
        views
    };
    let (a, b, c, d, views) = tokio::join!(writer(15), writer(15), writer(15), writer(15), reader());
    let made: Vec<_> = [a, b, c, d].concat();
    for view in views {
        let shown: HashSet<_> = view.piece.tasks.iter().map(|task| task.id).collect();
        let missing: Vec<_> = made.iter().filter(|(mark, id)| *mark <= view.version && !shown.contains(id)).collect();
        assert!(missing.is_empty(), "a view of {:?} lacks {missing:?}", view.version);
    }
    let last = made.iter().map(|(mark, _)| *mark).max();
    bed.remember(user, last);
    // While an older transaction of anybody goes on, the version stays below it.
    let view = eventually("no older transaction goes on", async || {
        Some(bed.store.load_view(user, WHOLE, last).await.unwrap()).filter(|view| Some(view.version) >= last)
    })
    .await;
    assert_eq!(view.piece.tasks, bed.list(user).await);
    assert!(!view.piece.more);
}

async fn a_view_says_whether_it_is_complete(bed: &Bed) {
    let user = bed.user().await;
    let bound = Bound { tasks: 2, ..WHOLE };
    let empty = bed.store.load_view(user, bound, None).await.unwrap();
    assert!(!empty.piece.more && empty.piece.tasks.is_empty());
    for expected in [(1, false), (2, false), (2, true)] {
        let mark = bed.store.apply(user, vec![create("x")], None).await.unwrap().mark;
        let piece = bed.store.load_view(user, bound, mark).await.unwrap().piece;
        assert_eq!((piece.tasks.len(), piece.more), expected);
    }
}

/// However much text tasks have, a page takes no more memory than the bound and a task, and the next goes on after it.
async fn a_piece_is_bounded_in_bytes(bed: &Bed) {
    let user = bed.user().await;
    // As large as a description may be: 256 KiB.
    let large = "\u{1F4A3}".repeat(task_api_domain::task::MAX_DESCRIPTION);
    for number in 0..12 {
        let description = (number != 3).then(|| large.clone());
        let task = task_api_domain::task::NewTask { description, ..new_task(&format!("boom {number}")) };
        bed.apply(user, vec![Operation::Create(task)]).await;
    }
    let view = bed.store.load_view(user, Bound { bytes: 600 << 10, ..WHOLE }, bed.wrote(user)).await.unwrap();
    assert_eq!((view.piece.tasks.len(), view.piece.more), (3, true));
    let (mut listed, mut found, mut after) = (Vec::new(), Vec::new(), None);
    let query = SearchQuery::parse("boom").unwrap();
    loop {
        let request = ListRequest { filter: Filter::default(), after, limit: 100 };
        let piece = bed.store.list_tasks(user, &request, bed.wrote(user)).await.unwrap();
        let bytes: usize = piece.tasks.iter().map(Task::text_bytes).sum();
        assert!(bytes < PIECE_BYTES + (257 << 10), "{bytes}");
        let search = SearchRequest { query: query.clone(), after, limit: 100 };
        found.extend(bed.store.search_tasks(user, &search, bed.wrote(user)).await.unwrap().tasks);
        after = piece.tasks.last().map(Task::position);
        listed.extend(piece.tasks);
        if !piece.more {
            break;
        }
    }
    let titles: Vec<_> = listed.iter().map(|task| task.title.clone()).collect();
    assert_eq!(titles, (0..12).rev().map(|number| format!("boom {number}")).collect::<Vec<_>>());
    assert!(listed.iter().all(|task| task.description.is_none() == (task.title == "boom 3")), "each is whole");
    assert_eq!(found, listed);
}

async fn a_search_finds_words_by_their_stem(bed: &Bed) {
    let (user, other) = (bed.user().await, bed.user().await);
    let described = Operation::Create(task_api_domain::task::NewTask {
        description: Some("before the Run".to_owned()),
        ..new_task("Buy shoes")
    });
    bed.apply(user, vec![described, create("Running late tomorrow"), create("Sit still")]).await;
    bed.apply(other, vec![create("run away")]).await;
    let found = async |query: &str| {
        let search = SearchRequest { query: SearchQuery::parse(query).unwrap(), after: None, limit: 10 };
        let found = bed.store.search_tasks(user, &search, bed.wrote(user)).await.unwrap();
        found.tasks.into_iter().map(|task| task.title).collect::<Vec<_>>()
    };
    assert_eq!(found("run").await, ["Running late tomorrow", "Buy shoes"], "newest first, and nobody else's");
    assert_eq!(found("runs shoe").await, ["Buy shoes"]);
    assert_eq!(found("run -shoes").await, ["Running late tomorrow"]);
    assert_eq!(found("\"late tomorrow\"").await, ["Running late tomorrow"]);
    assert_eq!(found("\"tomorrow late\"").await, [""; 0]);
    assert_eq!(found("' & | ! ( ) : * \\ run").await, ["Running late tomorrow", "Buy shoes"]);
    let task = bed.list(user).await.pop().unwrap();
    bed.apply(user, vec![retitle(id(&task), "Sell boots", None)]).await;
    assert_eq!(found("shoes").await, [""; 0], "a change is found, and what was there before is not");
    assert_eq!(found("boot").await, ["Sell boots"]);
    bed.apply(user, vec![Operation::Delete { id: id(&task), expected: None }]).await;
    assert_eq!(found("boot").await, [""; 0]);
}

async fn a_search_finds_what_english_leaves_out(bed: &Bed) {
    let user = bed.user().await;
    let described = Operation::Create(task_api_domain::task::NewTask {
        description: Some("Ask IT about it".to_owned()),
        ..new_task("New laptop")
    });
    bed.apply(user, vec![create("牛乳を買う"), create("My to do list"), create("Totally done items"), described]).await;
    let found = async |query: &str| {
        let search = SearchRequest { query: SearchQuery::parse(query).unwrap(), after: None, limit: 10 };
        let found = bed.store.search_tasks(user, &search, bed.wrote(user)).await.unwrap();
        found.tasks.into_iter().map(|task| task.title).collect::<Vec<_>>()
    };
    assert_eq!(found("IT").await, ["New laptop"]);
    assert_eq!(found("to do").await, ["My to do list"]);
    assert_eq!(found("\"to do\" list").await, ["My to do list"]);
    assert_eq!(found("牛乳").await, ["牛乳を買う"]);
    assert_eq!(found("牛乳 買う").await, ["牛乳を買う"]);
    assert_eq!(found("牛乳 -買う").await, [""; 0]);
    assert_eq!(found("-牛乳 -to -it").await, ["Totally done items"]);
    assert_eq!(found("about laptop").await, ["New laptop"]);
    assert_eq!(found("\"do to\"").await, [""; 0]);
}

/// Whatever the sizes of the pages and wherever tasks are made and deleted in between, what was there all the time is seen once, in order.
async fn pages_are_the_same_whatever_is_written_meanwhile(bed: &Bed) {
    let strategy = (1i64..7, proptest::collection::vec(any::<bool>(), 12));
    let mut runner = TestRunner::deterministic();
    for _ in 0..6 {
        let (limit, deletes) = strategy.new_tree(&mut runner).unwrap().current();
        let user = bed.user().await;
        bed.apply(user, (0..12).map(|number| create(&number.to_string())).collect()).await;
        let there = bed.list(user).await;
        let mut deletes = deletes.into_iter();
        let (mut seen, mut gone, mut after) = (Vec::new(), HashSet::new(), None);
        loop {
            let request = ListRequest { filter: Filter::default(), after, limit };
            let page = bed.store.list_tasks(user, &request, bed.wrote(user)).await.unwrap().tasks;
            let Some(last) = page.last() else { break };
            after = Some(last.position());
            if deletes.next() == Some(true) {
                // The very one that the next page begins after.
                gone.insert(last.id);
                bed.apply(user, vec![Operation::Delete { id: id(last), expected: None }]).await;
            }
            bed.create(user, "newer than all that follows").await;
            seen.extend(page);
        }
        assert_eq!(seen, there, "pages of {limit}, deleted {gone:?}");
    }
}

async fn summaries_count(bed: &Bed) {
    let user = bed.user().await;
    let made =
        [(Status::Pending, Priority::Low), (Status::Pending, Priority::High), (Status::Completed, Priority::Low)];
    let tasks = made.map(|(status, priority)| {
        Operation::Create(task_api_domain::task::NewTask { status, priority, ..new_task("counted") })
    });
    let nobody = bed.store.summary(user).await.unwrap();
    assert_eq!(nobody.total(), 0);
    bed.apply(user, tasks.to_vec()).await;
    // On PostgreSQL the counts are made from time to time, and only when the server's statistics say that something was written.
    let mut upkeep = bed.store.summaries();
    let summary = eventually("the tasks are counted", async || {
        for summaries in &mut upkeep {
            summaries.refresh().await.unwrap();
        }
        Some(bed.store.summary(user).await.unwrap()).filter(|summary| summary.total() > 0)
    })
    .await;
    assert_eq!(
        (summary.total(), summary.with_status(Status::Pending), summary.with_priority(Priority::Low)),
        (3, 2, 2)
    );
    assert_eq!((summary.with_status(Status::Completed), summary.with_priority(Priority::Urgent)), (1, 0));
    assert!(summary.as_of >= nobody.as_of);
}

async fn accounts_are_found_by_email(bed: &Bed) {
    for _ in 0..6 {
        let (user, email) = bed.account().await;
        let (found, hash) = bed.store.credentials(&email.key()).await.unwrap().unwrap();
        assert_eq!((found.id, found.email.as_str(), hash.as_str()), (user, email.as_str(), "a hash"));
        assert_eq!(bed.store.user(user, bed.wrote(user)).await.unwrap().unwrap(), found);
        let again = bed.register(email).await;
        assert!(matches!(again, Err(StoreError::EmailTaken)), "{again:?}");
    }
    assert!(bed.store.credentials("nobody@example.com").await.unwrap().is_none());
    let nobody = TaskId::new(1 << 30).unwrap();
    assert_eq!(bed.store.task(bed.user().await, nobody, None).await.unwrap(), None);
}
