//! Single tasks.

use std::collections::HashSet;

use axum::http::StatusCode;
use futures::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    common::{Api, path},
    lists::walk,
};

on_both_stores!(
    a_task_lives,
    a_patch_changes_what_it_names,
    tasks_are_their_users_alone,
    many_tasks_at_once,
    titles_of_any_script,
);

async fn a_task_lives(api: Api) {
    let user = api.user().await;
    let reply = user.post("/api/tasks", json!({"title": "plain"})).await;
    let location = reply.header("location").to_owned();
    let plain = reply.expect(StatusCode::CREATED);
    assert_eq!(location, path(&plain));
    assert_eq!(plain["user_id"], user.user["id"]);
    assert_eq!(plain["created_at"], plain["updated_at"]);
    for (field, value) in [
        ("description", Value::Null),
        ("status", json!("pending")),
        ("priority", json!("medium")),
        ("due_date", Value::Null),
    ] {
        assert_eq!(plain[field], value, "{field}");
    }
    assert!(plain["id"].as_i64().unwrap() < 1 << 53, "JavaScript can hold it");

    let body = json!({"title": "full", "description": "all of it", "status": "in_progress", "priority": "urgent",
        "due_date": "2030-01-31T12:00:00.5+02:00"});
    let full = user.post("/api/tasks", body).await.expect(StatusCode::CREATED);
    assert_eq!(full["due_date"], "2030-01-31T10:00:00.5Z");
    assert_eq!(user.get(&path(&full)).await.expect(StatusCode::OK), full);

    user.delete(&path(&full)).await.expect(StatusCode::NO_CONTENT);
    for gone in [user.get(&path(&full)).await, user.delete(&path(&full)).await] {
        gone.expect(StatusCode::NOT_FOUND);
    }
    user.patch(&path(&full), json!({"title": "back"})).await.expect(StatusCode::NOT_FOUND);
    let list = user.get("/api/tasks").await.expect(StatusCode::OK);
    assert_eq!(list, json!({"items": [plain], "next_cursor": null}));
}

async fn a_patch_changes_what_it_names(api: Api) {
    let user = api.user().await;
    let body = json!({"title": "before", "description": "text", "due_date": "2030-01-01T00:00:00Z"});
    let before = user.post("/api/tasks", body).await.expect(StatusCode::CREATED);
    let patch = async |body: Value| user.patch(&path(&before), body).await.expect(StatusCode::OK);

    let after = patch(json!({"title": "after", "status": "completed", "priority": "low"})).await;
    assert_eq!(
        (&after["title"], &after["status"], &after["priority"]),
        (&json!("after"), &json!("completed"), &json!("low"))
    );
    assert_eq!((&after["description"], &after["due_date"]), (&before["description"], &before["due_date"]));
    assert_eq!(after["created_at"], before["created_at"]);
    let updated_at = |task: &Value| task["updated_at"].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert!(updated_at(&after) > updated_at(&before));

    let cleared = patch(json!({"description": null, "due_date": null})).await;
    assert_eq!(
        (&cleared["description"], &cleared["due_date"], &cleared["title"]),
        (&Value::Null, &Value::Null, &json!("after"))
    );
    assert_eq!(patch(json!({})).await, cleared, "nothing changes, not even updated_at");
    assert_eq!(
        patch(json!({"id": 1, "user_id": 1, "created_at": "x"})).await,
        cleared,
        "what can't be changed is ignored"
    );
    let emptied = patch(json!({"description": ""})).await;
    assert_eq!(emptied["description"], "");
    assert_eq!(user.get(&path(&before)).await.expect(StatusCode::OK), emptied);
    assert_eq!(
        user.patch(&path(&before), json!({"title": null, "status": 1})).await.wrong_fields(),
        ["title", "status"]
    );
}

async fn tasks_are_their_users_alone(api: Api) {
    let (mine, theirs) = (api.user().await, api.user().await);
    let task = theirs.task("theirs").await;
    mine.get(&path(&task)).await.expect(StatusCode::NOT_FOUND);
    mine.patch(&path(&task), json!({"title": "mine"})).await.expect(StatusCode::NOT_FOUND);
    mine.patch(&path(&task), json!({})).await.expect(StatusCode::NOT_FOUND);
    mine.delete(&path(&task)).await.expect(StatusCode::NOT_FOUND);
    assert_eq!(mine.get("/api/tasks").await.expect(StatusCode::OK)["items"], json!([]));
    assert_eq!(theirs.get(&path(&task)).await.expect(StatusCode::OK), task);
    api.client().get(&path(&task)).await.expect(StatusCode::UNAUTHORIZED);
}

async fn many_tasks_at_once(api: Api) {
    let user = api.user().await;
    let made = join_all((0..60).map(|number| {
        let user = user.clone();
        async move { user.task(&format!("{number}")).await["id"].as_i64().unwrap() }
    }));
    let made: HashSet<i64> = made.await.into_iter().collect();
    assert_eq!(made.len(), 60);
    let listed = walk(&user, "limit=7").await;
    assert_eq!(listed.len(), 60);
    assert_eq!(listed.iter().map(|task| task["id"].as_i64().unwrap()).collect::<HashSet<_>>(), made);
    let order: Vec<_> =
        listed.iter().map(|task| (task["created_at"].as_str().unwrap().to_owned(), task["id"].as_i64())).collect();
    assert!(order.is_sorted_by(|a, b| instant(&a.0) > instant(&b.0) || (instant(&a.0) == instant(&b.0) && a.1 > b.1)));
}

async fn titles_of_any_script(api: Api) {
    let user = api.user().await;
    for title in ["日本語のタスク", "👩‍👩‍👧 \"quoted\" \\ back\tslash\n", "'; DROP TABLE tasks; --", "\u{202e}rtl", "ß$1%s"]
    {
        let task = user.task(title).await;
        assert_eq!(user.get(&path(&task)).await.expect(StatusCode::OK)["title"], title);
    }
    let longest = user.task(&"👍".repeat(255)).await;
    assert_eq!(longest["title"].as_str().unwrap().chars().count(), 255);
    let words: Vec<_> = (0..16_000).map(|number| format!("{number:x}")).collect();
    let mut text = words.join(" ");
    text.truncate(65_536);
    let body = json!({"title": "long", "description": text});
    assert_eq!(user.post("/api/tasks", body).await.expect(StatusCode::CREATED)["description"], json!(text));
}

fn instant(text: &str) -> jiff::Timestamp {
    text.parse().unwrap()
}
