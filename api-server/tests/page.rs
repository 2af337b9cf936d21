//! The documentation's page, in a real browser that reaches nothing but this API.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can not go on says so")]

mod common;

use std::{env, io::Write, path::PathBuf, process::Stdio, time::Duration};

use axum::http::StatusCode;
use common::{Api, unique};
use tokio::{process::Command, time::timeout};

/// The longest that a browser may take to start and to show a page.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a page is like once its scripts have run, and what they said.
struct Shown {
    document: String,
    console: String,
}

/// The browser that `CHROMIUM` names, or the one that is installed.
fn browser() -> Option<PathBuf> {
    let installed =
        || ["/usr/bin/chromium", "/usr/bin/google-chrome"].map(PathBuf::from).into_iter().find(|path| path.exists());
    let found = env::var_os("CHROMIUM").map(PathBuf::from).or_else(installed);
    if found.is_none() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: no browser; install chromium, or name one in CHROMIUM");
    }
    found
}

async fn show(browser: &PathBuf, url: &str) -> Shown {
    let profile = env::temp_dir().join(unique("browser"));
    let mut command = Command::new(browser);
    command
        // What tests run in need not allow sandboxes of their own.
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"])
        // No name is found: whatever the page needs, it has from the address that it came from.
        .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(["--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom", url])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.expect("the browser is done in time").unwrap();
    let _ = std::fs::remove_dir_all(profile);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (document, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    let console = said.lines().filter(|line| line.contains(":CONSOLE")).collect::<Vec<_>>().join("\n");
    Shown { document, console }
}

#[tokio::test]
async fn the_page_shows_every_operation() {
    let Some(browser) = browser() else { return };
    let api = Api::alone().await;
    let document = api.client().get("/api/openapi.json").await.expect(StatusCode::OK);
    let Shown { document: page, console } = show(&browser, &format!("http://{}/api/docs", api.address)).await;
    assert_eq!(console, "", "nothing was refused and nothing failed");
    for (path, item) in document["paths"].as_object().unwrap() {
        assert!(page.contains(&format!("data-path=\"{path}\"")), "{path} is not on the page");
        for operation in item.as_object().unwrap().values() {
            let summary = operation["summary"].as_str().unwrap();
            assert!(page.contains(summary), "{summary:?} is not on the page");
        }
    }
}
