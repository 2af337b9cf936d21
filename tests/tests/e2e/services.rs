//! Services that somebody deletes: they are made anew, and whoever used them finds them again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use taskplatform_tests::{
    cluster::comes_back,
    eventually, explained,
    http::{User, gateway, unique},
};

use crate::{shared_platform, turn};

/// Longer than CoreDNS keeps an answer.
const WHILE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn no_question_fails_while_the_services_of_the_api_are_made_anew() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        let services: Api<Service> = Api::namespaced(platform.client.clone(), platform.name);
        let delete = async {
            for service in ["e2e-api", "e2e-api-instances"] {
                comes_back(services.clone(), service).await?;
            }
            anyhow::Ok(())
        };
        let (answers, deleted) = tokio::join!(ask_all_the_time(), delete);
        deleted?;
        let answers = answers?;
        ensure!(answers.keys().eq(&[200]), "status and number of the answers: {answers:?}");
        platform.settled().await
    })
    .await
}

/// How often which status was answered.
async fn ask_all_the_time() -> Result<BTreeMap<u16, usize>> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
    let (url, began) = (format!("{}/api/health", gateway()), Instant::now());
    let mut answers = BTreeMap::new();
    while began.elapsed() < WHILE {
        *answers.entry(client.get(&url).send().await?.status().as_u16()).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(answers)
}

#[tokio::test]
async fn tasks_are_written_again_after_a_service_was_deleted() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        let services: Api<Service> = Api::namespaced(platform.client.clone(), platform.name);
        let user = User::register(&gateway(), &unique("hedy")).await?;
        for service in ["e2e-gateway", "e2e-pooler", "e2e-database-primary", "e2e-cache", "e2e-sessions"] {
            comes_back(services.clone(), service).await?;
            eventually(&format!("a task is written and read after {service} was deleted"), 60, async || {
                let user = user.reconnected()?;
                user.create("Hop to another frequency").await?;
                user.titles().await
            })
            .await?;
            platform.settled().await?;
        }
        Ok(())
    })
    .await
}
