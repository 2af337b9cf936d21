//! What the API promises, on both of its stores: SQLite alone, and PostgreSQL through PgBouncer with a replica and a Redis Cluster.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can not go on says so")]

#[path = "../common/mod.rs"]
mod common;

macro_rules! on_both_stores {
    ($($test:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::common::Api::alone().await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                let name = concat!(module_path!(), "::", stringify!($test));
                if let Some(services) = crate::common::Services::find(name) {
                    super::$test(crate::common::Api::on(&services).await).await;
                }
            })+
        }
    };
}

mod accounts;
mod batches;
mod conditions;
mod documents;
mod idempotency;
mod lists;
mod memory;
mod process;
mod quotas;
mod refusals;
mod tasks;
