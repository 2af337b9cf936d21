//! Lists, searches and counts.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::common::{Api, Client, path};

on_both_stores!(
    lists_go_on_where_they_ended,
    lists_filter,
    searches_find_words,
    searches_go_on_where_they_ended,
    summaries_count,
);

async fn lists_go_on_where_they_ended(api: Api) {
    let (user, other) = (api.user().await, api.user().await);
    let mut made = Vec::new();
    for number in 0..7 {
        made.insert(0, user.task(&format!("task {number}")).await);
    }
    for limit in [1, 2, 3, 6, 7, 100] {
        assert_eq!(walk(&user, &format!("limit={limit}")).await, made, "limit {limit}");
    }

    let first = user.get("/api/tasks?limit=3").await.expect(StatusCode::OK);
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = format!("/api/tasks?limit=100&cursor={cursor}");
    user.task("newer").await;
    user.delete(&path(&made[2])).await.expect(StatusCode::NO_CONTENT);
    let rest_items = user.get(&rest).await.expect(StatusCode::OK)["items"].clone();
    assert_eq!(rest_items, json!(made[3..]), "neither newer tasks nor the end of the page gone move it");

    other.get(&rest).await.expect(StatusCode::BAD_REQUEST);
    user.get(&format!("{rest}&status=pending")).await.expect(StatusCode::BAD_REQUEST);
    user.get(&format!("{rest}A")).await.expect(StatusCode::BAD_REQUEST);
    user.get("/api/tasks?cursor=made-up").await.expect(StatusCode::BAD_REQUEST);
}

async fn lists_filter(api: Api) {
    let user = api.user().await;
    let mut made = Vec::new();
    for (status, priority) in
        [("pending", "low"), ("pending", "urgent"), ("completed", "low"), ("in_progress", "low"), ("pending", "low")]
    {
        let body = json!({"title": "x", "status": status, "priority": priority});
        made.insert(0, user.post("/api/tasks", body).await.expect(StatusCode::CREATED));
    }
    for (query, status, priority) in [
        ("", None, None),
        ("status=pending", Some("pending"), None),
        ("status=completed", Some("completed"), None),
        ("priority=low", None, Some("low")),
        ("priority=high", None, Some("high")),
        ("status=pending&priority=low", Some("pending"), Some("low")),
        ("status=completed&priority=urgent", Some("completed"), Some("urgent")),
    ] {
        let fits = |task: &&Value| {
            status.is_none_or(|status| task["status"] == status)
                && priority.is_none_or(|priority| task["priority"] == priority)
        };
        let expected: Vec<_> = made.iter().filter(fits).cloned().collect();
        assert_eq!(walk(&user, &format!("{query}&limit=1")).await, expected, "{query}");
    }
}

/// Reads a list to its end.
pub(crate) async fn walk(user: &Client, query: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut rest = String::new();
    loop {
        let page = user.get(&format!("/api/tasks?{query}{rest}")).await.expect(StatusCode::OK);
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => rest = format!("&cursor={next}"),
            None => return items,
        }
    }
}

async fn searches_find_words(api: Api) {
    let user = api.user().await;
    let titles = ["Buy oat milk", "Buy soy milk", "Milk the cows", "Sell the farm"];
    for title in titles {
        user.task(title).await;
    }
    user.post("/api/tasks", json!({"title": "Plain", "description": "with milk in the description"})).await;
    api.user().await.task("Milk of another user").await;
    let found = async |query: &str| {
        let page = user.get(&format!("/api/tasks/search?q={query}")).await.expect(StatusCode::OK);
        let titles: Vec<_> = page["items"].as_array().unwrap().iter().map(|task| task["title"].clone()).collect();
        (titles, page["next_cursor"].clone())
    };
    for (query, expected) in [
        ("milk", json!(["Plain", "Milk the cows", "Buy soy milk", "Buy oat milk"])),
        ("buy%20milk", json!(["Buy soy milk", "Buy oat milk"])),
        ("buy+milk+-soy", json!(["Buy oat milk"])),
        ("%22oat+milk%22", json!(["Buy oat milk"])),
        ("%22milk+oat%22", json!([])),
        ("FARM", json!(["Sell the farm"])),
        ("!!!", json!([])),
    ] {
        assert_eq!(found(query).await, (expected.as_array().unwrap().clone(), Value::Null), "{query}");
    }
    let wrong = async |query: &str| user.get(&format!("/api/tasks/search?{query}")).await.wrong_fields();
    assert_eq!(wrong("").await, ["q"]);
    assert_eq!(user.get("/api/tasks?status=&priority=").await.wrong_fields(), ["status", "priority"]);
    assert_eq!(wrong("q=&limit=0").await, ["q", "limit"]);
    assert_eq!(wrong(&format!("q={}", "x".repeat(201))).await, ["q"]);
}

async fn searches_go_on_where_they_ended(api: Api) {
    let user = api.user().await;
    let mut made = Vec::new();
    for number in 0..5 {
        made.insert(0, user.task(&format!("wood {number}")).await);
        user.task("iron").await;
    }
    let mut found = Vec::new();
    let mut path = "/api/tasks/search?q=wood&limit=2".to_owned();
    loop {
        let page = user.get(&path).await.expect(StatusCode::OK);
        found.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        let elsewhere = [format!("/api/tasks/search?q=iron&cursor={cursor}"), format!("/api/tasks?cursor={cursor}")];
        for elsewhere in elsewhere {
            user.get(&elsewhere).await.expect(StatusCode::BAD_REQUEST);
        }
        path = format!("/api/tasks/search?q=wood&limit=2&cursor={cursor}");
    }
    assert_eq!(found, made);
}

async fn summaries_count(api: Api) {
    let user = api.user().await;
    let empty = user.get("/api/tasks/summary").await.expect(StatusCode::OK);
    assert_eq!(empty["total"], 0);
    assert_eq!(empty["by_status"], json!({"pending": 0, "in_progress": 0, "completed": 0}));
    assert_eq!(empty["by_priority"], json!({"low": 0, "medium": 0, "high": 0, "urgent": 0}));
    let _: jiff::Timestamp = empty["as_of"].as_str().unwrap().parse().unwrap();
}

/// On PostgreSQL the counts are as old as the last refresh, which is a worker's to do.
#[tokio::test]
async fn summaries_are_exact_alone() {
    let api = Api::alone().await;
    let user = api.user().await;
    for (status, priority) in [("pending", "low"), ("completed", "low"), ("completed", "urgent")] {
        user.post("/api/tasks", json!({"title": "x", "status": status, "priority": priority})).await;
    }
    api.user().await.task("another user's").await;
    let counts = user.get("/api/tasks/summary").await.expect(StatusCode::OK);
    assert_eq!(counts["total"], 3);
    assert_eq!(counts["by_status"], json!({"pending": 1, "in_progress": 0, "completed": 2}));
    assert_eq!(counts["by_priority"], json!({"low": 2, "medium": 0, "high": 0, "urgent": 1}));
}
