//! What only PostgreSQL has: events, months, shards.

use std::time::Duration;

use futures::future::join_all;
use task_api_domain::{
    mark::Mark,
    task::{TaskPatch, Version},
};
use task_api_store::{Operation, Outcome, Quota, Store, StoreError, Writes};

use crate::{
    WHOLE,
    bed::{Bed, create, id, idempotency, options, retitle},
    common::Services,
};

/// A database of its own.
async fn database(test: &str) -> Option<(Services, Vec<String>)> {
    let services = Services::find(test)?.with_database("store").await;
    let urls = vec![services.primary.clone()];
    Some((services, urls))
}

#[tokio::test]
async fn every_change_leaves_an_event_and_nothing_else_does() {
    let Some((services, urls)) = database("every_change_leaves_an_event_and_nothing_else_does").await else { return };
    let bed = Bed::on(Store::postgres(&options(&urls, None), Writes { events: true, ..Writes::default() }), 1).await;
    let user = bed.user().await;
    let key = idempotency(1);
    let mut task = None;
    for _ in 0..2 {
        let once = bed.store.apply(user, vec![create("once")], Some(&key)).await.unwrap();
        let [Outcome::Created(created)] = once.value.as_slice() else { panic!("{once:?}") };
        task = Some(created.clone());
    }
    let task = task.unwrap();
    let nothing = Operation::Update { id: id(&task), patch: TaskPatch::default(), expected: None };
    let stale = retitle(id(&task), "stale", Some(Version(9)));
    bed.apply(user, vec![nothing, stale, retitle(id(&task), "changed", None)]).await;
    bed.apply(user, vec![Operation::Delete { id: id(&task), expected: None }]).await;
    bed.apply(user, vec![Operation::Delete { id: id(&task), expected: None }]).await;

    let admin = services.admin_here().await;
    let sql = "SELECT kind, payload->>'title', payload->>'version' FROM outbox WHERE task_id = $1 AND user_id = $2 ORDER BY id";
    let rows = admin.query(sql, &[&task.id, &user]).await.unwrap();
    let events: Vec<(String, Option<String>, Option<String>)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let event = |kind: &str, title: Option<&str>| (kind.to_owned(), title.map(str::to_owned), None);
    let expected =
        [event("task.created", Some("once")), event("task.updated", Some("changed")), event("task.deleted", None)];
    assert_eq!(events, expected);

    let silent = Bed::on(Store::postgres(&options(&urls, None), Writes::default()), 1).await;
    silent.create(user, "untold").await;
    let count: i64 = admin.query_one("SELECT count(*) FROM outbox", &[]).await.unwrap().get(0);
    assert_eq!(count, 3, "without a broker nothing is kept for it");
}

#[tokio::test]
async fn who_can_not_be_written_fails_alone() {
    let Some(bed) = Bed::postgres("who_can_not_be_written_fails_alone").await else { return };
    let user = bed.user().await;
    let too_long = "x".repeat(256);
    let titles: Vec<_> = (0..60).map(|number| if number % 20 == 7 { &too_long } else { "fits" }).collect();
    let written = join_all(titles.iter().map(|title| bed.store.apply(user, vec![create(title)], None))).await;
    for (title, written) in titles.iter().zip(&written) {
        match written {
            Ok(_) => assert_eq!(*title, "fits"),
            Err(error) => assert!(matches!(error, StoreError::Broken(_)) && *title == too_long, "{error:?}"),
        }
    }
    let last = written.iter().flatten().filter_map(|written| written.mark).max();
    assert_eq!(bed.store.load_view(user, WHOLE, last).await.unwrap().piece.tasks.len(), 57, "once each");
}

#[tokio::test]
async fn months_leave_by_policy_and_their_tables_stay() {
    let Some((services, urls)) = database("months_leave_by_policy_and_their_tables_stay").await else { return };
    let bed = Bed::on(Store::postgres(&options(&urls, None), Writes::default()), 1).await;
    let user = bed.user().await;
    let today = bed.create(user, "today").await;
    let admin = services.admin_here().await;
    let old_months = "CREATE TABLE tasks_2024_01 PARTITION OF tasks FOR VALUES FROM ('2024-01-01Z') TO ('2024-02-01Z');
        CREATE TABLE tasks_2024_02 PARTITION OF tasks FOR VALUES FROM ('2024-02-01Z') TO ('2024-03-01Z');";
    admin.batch_execute(old_months).await.unwrap();
    let insert = "INSERT INTO tasks (id, user_id, title, status, priority, created_at, updated_at)
        SELECT ((extract(epoch FROM at)::bigint - 1577836800) << 21), $1, 'old', 'pending', 'low', at, at
        FROM unnest(ARRAY['2024-01-10Z', '2024-02-10Z']::timestamptz[]) AS at";
    assert_eq!(admin.execute(insert, &[&user]).await.unwrap(), 2);
    bed.store.keep_up().await.unwrap();
    assert_eq!(bed.list(user).await.len(), 3, "without a policy everything stays");

    // Between the ends of the two months.
    let row =
        admin.query_one("SELECT extract(epoch FROM now() - '2024-02-15Z'::timestamptz)::float8", &[]).await.unwrap();
    let retention = Duration::from_secs_f64(row.get(0));
    let bed = Bed::on(Store::postgres(&options(&urls, Some(retention)), Writes::default()), 1).await;
    let titles: Vec<_> = bed.list(user).await.into_iter().map(|task| task.title).collect();
    assert_eq!(titles, ["today", "old"]);
    let detached: i64 = admin.query_one("SELECT count(*) FROM tasks_2024_01", &[]).await.unwrap().get(0);
    assert_eq!(detached, 1, "its table is left to an operator");
    let wrote = bed.store.task(user, id(&today), None).await.unwrap();
    assert_eq!(wrote, Some(today));
}

#[tokio::test]
async fn what_a_user_has_is_counted_when_they_write() {
    let Some((services, urls)) = database("what_a_user_has_is_counted_when_they_write").await else { return };
    let quota = Quota { tasks: Some(100), bytes: None };
    let bed = Bed::on(Store::postgres(&options(&urls, None), Writes { quota, ..Writes::default() }), 1).await;
    let user = bed.user().await;
    let admin = services.admin_here().await;
    let counted = async || {
        let row = admin.query_opt("SELECT tasks, bytes FROM task_usage WHERE user_id = $1", &[&user]).await.unwrap();
        row.map(|row| (row.get::<_, i64>(0), row.get::<_, i64>(1)))
    };
    let task = bed.create(user, "four").await;
    assert_eq!(counted().await, Some((1, 4)));
    // As if it was made by a release that did not count.
    admin.batch_execute("TRUNCATE task_usage").await.unwrap();
    bed.apply(user, vec![retitle(id(&task), "longer", None), create("é"), create("two")]).await;
    assert_eq!(counted().await, Some((3, 11)));
    bed.apply(
        user,
        vec![retitle(id(&task), "never", Some(Version(9))), Operation::Delete { id: id(&task), expected: None }],
    )
    .await;
    assert_eq!(counted().await, Some((2, 5)));
}

/// What instances of the release before send while they are replaced.
#[tokio::test]
async fn instances_of_the_release_before_go_on() {
    let Some((services, urls)) = database("instances_of_the_release_before_go_on").await else { return };
    let quota = Quota { tasks: Some(4), bytes: None };
    let bed = Bed::on(Store::postgres(&options(&urls, None), Writes { quota, ..Writes::default() }), 1).await;
    let user = bed.user().await;
    let admin = services.admin_here().await;
    let before = "SELECT o.operation, o.outcome, o.id, o.version, o.title, o.mark
        FROM apply_operations(false, ARRAY[$1::bigint, $1], ARRAY['create', 'create'], ARRAY[NULL, NULL]::bigint[],
            ARRAY[NULL, NULL]::bigint[], ARRAY['one', 'three'], ARRAY[true, true], ARRAY[NULL, 'text'], ARRAY['pending', 'pending'],
            ARRAY['low', 'low'], ARRAY[true, true], ARRAY[NULL, NULL]::timestamptz[], ARRAY[NULL, NULL]::text[]) AS o
        ORDER BY o.operation";
    let rows = admin.query(before, &[&user]).await.unwrap();
    let told: Vec<(String, String)> = rows.iter().map(|row| (row.get("outcome"), row.get("title"))).collect();
    assert_eq!(told, [("created", "one"), ("created", "three")].map(|(outcome, title)| (outcome.into(), title.into())));
    let mark: i64 = rows[0].get("mark");
    bed.remember(user, Some(Mark(mark)));
    assert_eq!(bed.list(user).await.len(), 2);
    // They keep no quota of their own, but what they do counts.
    bed.create(user, "the third").await;
    admin.query(before, &[&user]).await.unwrap();
    let refused = bed.store.apply(user, vec![create("too many")], None).await;
    assert!(matches!(refused, Err(StoreError::QuotaExceeded)), "{refused:?}");
    let row = admin.query_one("SELECT tasks, bytes FROM task_usage WHERE user_id = $1", &[&user]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (5, 33));
}

#[tokio::test]
async fn marks_tell_the_timeline() {
    let Some((services, urls)) = database("marks_tell_the_timeline").await else { return };
    let bed = Bed::on(Store::postgres(&options(&urls, None), Writes::default()), 1).await;
    let user = bed.user().await;
    let mark = async || bed.store.apply(user, vec![create("x")], None).await.unwrap().mark.unwrap();
    let before = mark().await;
    assert!(before.timeline() > 0);
    services.admin_here().await.batch_execute("UPDATE write_timeline SET timeline = timeline + 1").await.unwrap();
    let after = mark().await;
    assert_eq!(after.timeline(), before.timeline() + 1);
    let seen = bed.store.load_view(user, WHOLE, Some(after)).await.unwrap();
    assert_eq!((seen.piece.tasks.len(), seen.version.timeline()), (2, after.timeline()));
}

#[tokio::test]
async fn no_statement_goes_on_for_ever() {
    let Some((services, urls)) = database("no_statement_goes_on_for_ever").await else { return };
    Store::postgres(&options(&urls, None), Writes::default()).prepare().await.unwrap();
    let sql = "SELECT setconfig FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase
        WHERE d.datname = current_database()";
    let rows = services.admin_here().await.query(sql, &[]).await.unwrap();
    let settings: Vec<String> = rows.iter().flat_map(|row| row.get::<_, Vec<String>>(0)).collect();
    assert_eq!(settings, ["statement_timeout=10s"]);
}

#[tokio::test]
async fn keys_are_forgotten_after_a_day() {
    let Some((services, urls)) = database("keys_are_forgotten_after_a_day").await else { return };
    let bed = Bed::on(Store::postgres(&options(&urls, None), Writes::default()), 1).await;
    let (early, late) = (bed.user().await, bed.user().await);
    for user in [early, late] {
        bed.store.apply(user, vec![create("once")], Some(&idempotency(1))).await.unwrap();
    }
    let age = "UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 second' WHERE user_id = $1";
    services.admin_here().await.execute(age, &[&early]).await.unwrap();
    bed.store.keep_up().await.unwrap();
    for (user, replayed) in [(early, false), (late, true)] {
        let written = bed.store.apply(user, vec![create("once")], Some(&idempotency(1))).await.unwrap();
        assert_eq!(written.replayed, replayed);
    }
}

#[tokio::test]
async fn a_database_is_one_shard_for_good() {
    let Some((_, first)) = database("a_database_is_one_shard_for_good").await else { return };
    let Some((_, second)) = database("a_database_is_one_shard_for_good").await else { return };
    let both = [first.clone(), second.clone()].concat();
    Store::postgres(&options(&both, None), Writes::default()).prepare().await.unwrap();
    let swapped = [second, first.clone()].concat();
    for wrong in [swapped, first] {
        let refused =
            Store::postgres(&options(&wrong, None), Writes::default()).prepare().await.unwrap_err().to_string();
        assert!(refused.contains("of 2, and DATABASE_URL says shard"), "{refused}");
    }
    Store::postgres(&options(&both, None), Writes::default()).prepare().await.unwrap();
}
