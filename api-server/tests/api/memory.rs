//! What one user may have an instance hold: however much they store, ask for and hang up on, it takes no more memory than it is given.

use std::time::Duration;

use axum::http::StatusCode;
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::common::{Api, Client, Services};

/// What requests and answers may take.
const GIVEN: usize = 64 << 20;
/// What an instance takes with that, with all else that it needs.
const MOST: usize = 192 << 20;
/// How many tasks the user has.
const TASKS: usize = 120;

#[tokio::test]
async fn on_sqlite_one_user_takes_a_share() {
    one_user_takes_a_share(Api::alone_with(&given()).await).await;
}

#[tokio::test]
async fn on_postgres_one_user_takes_a_share() {
    if let Some(services) = Services::find("memory::on_postgres_one_user_takes_a_share") {
        one_user_takes_a_share(Api::on_with(&services, &given()).await).await;
    }
}

fn given() -> [(&'static str, String); 1] {
    [("MAX_IN_FLIGHT_BYTES", GIVEN.to_string())]
}

async fn one_user_takes_a_share(api: Api) {
    let user = api.user().await;
    let ids = fill(&user).await;

    let pages = join_all((0..40).map(|_| user.get("/api/tasks?limit=100"))).await;
    assert!(pages.iter().any(|page| page.status == StatusCode::OK));
    for page in &pages {
        assert!(is_bounded(page.status), "{} {}", page.status, page.body);
    }
    assert_eq!(all_ids(&user).await, ids.iter().rev().copied().collect::<Vec<_>>(), "page after page, all are there");

    let change = |status: &str| {
        let update = |id: &i64| json!({"op": "update", "id": id, "task": {"status": status}});
        json!({"operations": ids.iter().take(100).map(update).collect::<Vec<_>>()})
    };
    let changed = user.post("/api/tasks/batch", change("in_progress")).await;
    let changed = changed.expect(StatusCode::OK);
    let results = changed["results"].as_array().unwrap();
    assert!(results.iter().all(|result| result["status"] == 200 && result["etag"] == "\"2\""), "all are done");
    let told = results.iter().filter(|result| result["task"].is_object()).count();
    assert!((4..=6).contains(&told), "{told} of them are told whole");
    let alone = user.patch(&format!("/api/tasks/{}", ids[99]), json!({"status": "completed"})).await;
    assert!(alone.expect(StatusCode::OK)["description"].is_string(), "one alone is told whole");
    for reply in join_all((0..10).map(|_| user.post("/api/tasks/batch", change("completed")))).await {
        assert!(is_bounded(reply.status), "{} {}", reply.status, reply.body);
    }

    // Large changes that nobody waits for.
    let text = "x".repeat(65_536);
    let update = |id: &i64| json!({"op": "update", "id": id, "task": {"description": text}});
    let large = json!({"operations": ids.iter().take(15).map(update).collect::<Vec<_>>()});
    for _ in 0..8 {
        join_all((0..8).map(|_| timeout(Duration::from_millis(50), user.post("/api/tasks/batch", large.clone()))))
            .await;
    }

    let peak = api.peak_memory();
    assert!(peak < MOST, "{} MiB", peak >> 20);
    api.user().await.task("another user's").await;
}

/// As many tasks as large as any, and their ids.
async fn fill(user: &Client) -> Vec<i64> {
    let description = "\u{1F4A3}".repeat(65_000);
    let create = json!({"op": "create", "task": {"title": "large", "description": description}});
    let batch = json!({"operations": vec![create; 3]});
    let mut ids = Vec::new();
    while ids.len() < TASKS {
        let made = user.post("/api/tasks/batch", batch.clone()).await.expect(StatusCode::OK);
        ids.extend(made["results"].as_array().unwrap().iter().map(|result| result["task"]["id"].as_i64().unwrap()));
    }
    ids
}

async fn all_ids(user: &Client) -> Vec<i64> {
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = user.get(&format!("/api/tasks?limit=100{cursor}")).await.expect(StatusCode::OK);
        let items = page["items"].as_array().unwrap();
        let bytes: usize = items.iter().map(|item| item["description"].as_str().unwrap().len()).sum();
        assert!(bytes <= (1 << 20) + 260_000, "{bytes}");
        ids.extend(items.iter().map(|item| item["id"].as_i64().unwrap()));
        let Value::String(next) = &page["next_cursor"] else { return ids };
        cursor = format!("&cursor={next}");
    }
}

/// Done, or refused until there is room.
fn is_bounded(status: StatusCode) -> bool {
    [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status)
}
