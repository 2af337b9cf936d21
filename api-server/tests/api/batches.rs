//! Many changes in one request.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::common::{Api, path};

on_both_stores!(a_batch_does_each_on_its_own, a_batch_sees_what_it_did, a_batch_without_shape_is_refused_whole);

fn statuses(results: &Value) -> Vec<i64> {
    results["results"].as_array().unwrap().iter().map(|result| result["status"].as_i64().unwrap()).collect()
}

async fn a_batch_does_each_on_its_own(api: Api) {
    let (user, other) = (api.user().await, api.user().await);
    let (changed, gone, theirs) = (user.task("changed").await, user.task("gone").await, other.task("theirs").await);
    let operations = json!({"operations": [
        {"op": "create", "task": {"title": "new", "priority": "high"}},
        {"op": "create", "task": {"title": "", "status": "done"}},
        {"op": "update", "id": changed["id"], "task": {"status": "completed"}},
        {"op": "update", "id": theirs["id"], "task": {"title": "mine"}},
        {"op": "update", "id": changed["id"], "task": {"title": "too late"}, "if_match": "\"1\""},
        {"op": "update", "id": changed["id"], "task": {"title": null}},
        {"op": "delete", "id": gone["id"], "if_match": "\"1\""},
        {"op": "delete", "id": gone["id"]},
    ]});
    let results = user.post("/api/tasks/batch", operations).await.expect(StatusCode::OK);
    assert_eq!(statuses(&results), [201, 422, 200, 404, 412, 422, 204, 404]);
    let results = &results["results"];

    let made = &results[0]["task"];
    assert_eq!(
        (&made["title"], &made["priority"], &results[0]["etag"]),
        (&json!("new"), &json!("high"), &json!("\"1\""))
    );
    assert_eq!(user.get(&path(made)).await.expect(StatusCode::OK), *made);
    let fields: Vec<_> =
        results[1]["error"]["errors"].as_array().unwrap().iter().map(|error| &error["field"]).collect();
    assert_eq!(fields, ["operations[1].task.title", "operations[1].task.status"]);
    assert_eq!((&results[2]["task"]["status"], &results[2]["etag"]), (&json!("completed"), &json!("\"2\"")));
    assert_eq!(results[3]["error"]["type"], "urn:taskplatform:problem:not-found");
    assert_eq!(results[4]["error"]["type"], "urn:taskplatform:problem:precondition-failed");
    assert_eq!(results[6], json!({"status": 204}));

    for (operation, status, count) in
        [("create", "rejected", 1.0), ("update", "rejected", 3.0), ("delete", "success", 1.0)]
    {
        let name = format!("task_operations_total{{operation=\"{operation}\",status=\"{status}\"}}");
        assert!(api.metric(&name).await >= count, "each is counted as what it is: {name}");
    }

    assert_eq!(user.get(&path(&changed)).await.expect(StatusCode::OK)["title"], "changed");
    user.get(&path(&gone)).await.expect(StatusCode::NOT_FOUND);
    assert_eq!(other.get(&path(&theirs)).await.expect(StatusCode::OK), theirs);
}

async fn a_batch_sees_what_it_did(api: Api) {
    let user = api.user().await;
    let task = user.task("one").await;
    let operations: Vec<_> = (1..=99)
        .map(|version| json!({"op": "update", "id": task["id"], "task": {"title": format!("{version}")}, "if_match": format!("\"{version}\"")}))
        .chain([json!({"op": "delete", "id": task["id"], "if_match": "\"100\""})])
        .collect();
    let results = user.post("/api/tasks/batch", json!({"operations": operations})).await.expect(StatusCode::OK);
    assert_eq!(statuses(&results), [vec![200; 99], vec![204]].concat());
    user.get(&path(&task)).await.expect(StatusCode::NOT_FOUND);
}

async fn a_batch_without_shape_is_refused_whole(api: Api) {
    let user = api.user().await;
    let create = json!({"op": "create", "task": {"title": "never"}});
    let wrong = async |body: Value| user.post("/api/tasks/batch", body).await.wrong_fields();
    assert_eq!(wrong(json!({})).await, ["operations"]);
    assert_eq!(wrong(json!({"operations": []})).await, ["operations"]);
    assert_eq!(wrong(json!({"operations": vec![create.clone(); 101]})).await, ["operations"]);
    let body = json!({"operations": [create, {"op": "update", "task": 7}, {"op": "delete", "id": "1"}]});
    assert_eq!(wrong(body).await, ["operations[1].id", "operations[1].task", "operations[2].id"]);
    assert_eq!(user.get("/api/tasks").await.expect(StatusCode::OK)["items"], json!([]));
}
