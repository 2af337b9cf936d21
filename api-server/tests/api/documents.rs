//! The OpenAPI document, the page that shows it, and what the document lets one check of every route.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{Api, Client, Reply, path};

on_both_stores!(every_route_guards_its_users_tasks);

/// Method, path and operation of everything in the document.
async fn operations(api: &Api) -> Vec<(Method, String, Value)> {
    let document = api.client().get("/api/openapi.json").await.expect(StatusCode::OK);
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(move |(method, operation)| {
                (method.to_uppercase().parse().unwrap(), path.clone(), operation.clone())
            })
        })
        .collect()
}

/// What such a request could look like that does something.
fn body(path: &str, task: &Value) -> Option<Value> {
    match path {
        "/api/tasks/batch" => Some(json!({"operations": [
            {"op": "update", "id": task["id"], "task": {"title": "stolen"}}, {"op": "delete", "id": task["id"]}]})),
        "/api/auth/login" | "/api/auth/register" => Some(json!({})),
        "/api/tasks" | "/api/tasks/{id}" => Some(json!({"title": "stolen"})),
        _ => None,
    }
}

async fn every_route_guards_its_users_tasks(api: Api) {
    let owner = api.user().await;
    let task = owner.task("a title of their own").await;
    let public =
        ["/api/auth/login", "/api/auth/register", "/api/health", "/api/ready", "/api/openapi.json", "/api/docs"];
    let operations = operations(&api).await;
    assert!(operations.len() >= 16, "{operations:?}");
    for (method, template, operation) in operations {
        let url = format!("{}?q=title", template.replace("{id}", &task["id"].to_string()));
        let ask = async |client: &Client| -> Reply {
            let body = if operation["requestBody"].is_object() { body(&template, &task) } else { None };
            client.ask(method.clone(), &url, &[], body.as_ref()).await
        };
        let guarded = operation["security"].is_array();
        assert_eq!(guarded, !public.contains(&template.as_str()), "{template} is public, or should it be?");
        let nobody = ask(&api.client()).await;
        assert_eq!(nobody.status == StatusCode::UNAUTHORIZED, guarded, "{method} {template}");

        let other = ask(&api.user().await).await;
        assert!(!other.body.to_string().contains("a title of their own"), "{method} {template}: {}", other.body);
        if template.contains("{id}") {
            other.expect(StatusCode::NOT_FOUND);
        } else if template == "/api/tasks/batch" {
            let results = other.expect(StatusCode::OK);
            assert!(results["results"].as_array().unwrap().iter().all(|result| result["status"] == 404), "{results}");
        }
        assert_eq!(owner.get(&path(&task)).await.expect(StatusCode::OK), task, "{method} {template}");
    }
}

#[tokio::test]
async fn the_document_describes_every_answer() {
    let api = Api::alone().await;
    for (method, path, operation) in operations(&api).await {
        let name = format!("{method} {path}");
        assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{name}");
        let answers = operation["responses"].as_object().unwrap();
        for (status, answer) in answers {
            assert!(answer["headers"]["x-request-id"].is_object(), "{name} {status}");
            if status.starts_with(['4', '5']) {
                let problem = &answer["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(problem, "#/components/schemas/Problem", "{name} {status}");
            }
        }
        let has = |status: &str| answers.contains_key(status);
        assert!(has("414") && has("431") && has("500") && has("503"), "{name}");
        assert_eq!(has("413"), operation["requestBody"].is_object(), "{name}");
        if operation["security"].is_array() {
            assert!(has("401"), "{name}");
            assert_eq!(has("403"), method != Method::GET, "{name}");
        }
        if has("304") {
            assert!(answers["200"]["headers"]["etag"].is_object(), "{name}");
        }
    }
}

/// The numbers in the document are written beside the constants that the code obeys.
#[tokio::test]
async fn the_document_tells_the_limits() {
    use api_server::tasks::{batch, query};
    use task_api_domain::{id, search, task, user};
    let api = Api::alone().await;
    let document = api.client().get("/api/openapi.json").await.expect(StatusCode::OK);
    let schemas = &document["components"]["schemas"];
    let field = |schema: &str, field: &str, limit: &str| schemas[schema]["properties"][field][limit].as_u64().unwrap();
    for schema in ["Task", "NewTask", "TaskPatch"] {
        assert_eq!(field(schema, "title", "maxLength"), task::MAX_TITLE as u64);
        assert_eq!(field(schema, "description", "maxLength"), task::MAX_DESCRIPTION as u64);
    }
    assert_eq!(field("Task", "id", "maximum"), id::MAX.unsigned_abs());
    assert_eq!(field("Batch", "operations", "maxItems"), batch::MAX_OPERATIONS as u64);
    assert_eq!(field("Registration", "password", "minLength"), user::MIN_PASSWORD as u64);
    assert_eq!(field("Registration", "password", "maxLength"), user::MAX_PASSWORD as u64);
    assert_eq!(field("Registration", "name", "maxLength"), user::MAX_NAME as u64);
    let parameter = |path: &str, name: &str| {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().unwrap();
        parameters.iter().find(|parameter| parameter["name"] == name).unwrap()["schema"].clone()
    };
    for path in ["/api/tasks", "/api/tasks/search"] {
        let limit = parameter(path, "limit");
        assert_eq!(limit["maximum"], query::MAX_LIMIT);
        assert_eq!(limit["default"], query::DEFAULT_LIMIT);
    }
    assert_eq!(parameter("/api/tasks/search", "q")["maxLength"], search::MAX_QUERY);
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let api = Api::alone().await;
    let client = api.client();
    let page = client.get("/api/docs").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(page.header("cache-control"), "public, no-cache");
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("http"), "{policy}");
    let html = page.body.as_str().unwrap();
    let loaded: Vec<&str> = html.split('"').filter(|text| text.starts_with('/') || text.contains("://")).collect();
    assert_eq!(loaded.len(), 4, "{html}");
    for path in loaded {
        let file = client.get(path).await;
        assert_eq!(file.header("cache-control"), "public, max-age=2592000, immutable", "{path}");
        assert_eq!(file.header("content-encoding") == "gzip", path.contains("swagger-ui"), "{path}");
        assert_eq!(file.status, StatusCode::OK, "{path}");
    }
    client.get("/api/docs/").await.expect(StatusCode::NOT_FOUND);
}
