//! One replica leads, and stops before another one may begin.

use std::{sync::Arc, time::Duration};

use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use crate::{
    leader::{self, Error},
    metrics::Metrics,
    testing::{Bed, Trouble, Verb, config},
};

const NAMESPACE: &str = "taskplatform-system";
const LEASE: &str = "taskplatform-operator";

/// A replica that does nothing but lead.
struct Replica {
    metrics: Arc<Metrics>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), Error>>,
}

impl Replica {
    fn start(bed: &Bed, identity: &'static str) -> Self {
        let (stop, stopped) = watch::channel(false);
        let metrics = Arc::new(Metrics::default());
        let (client, in_replica) = (bed.client.clone(), Arc::clone(&metrics));
        let task = tokio::spawn(async move {
            let work = |mut stop: leader::Stop| async move { drop(stop.wait_for(|stop| *stop).await) };
            leader::lead(&client, &config(identity), &in_replica, stopped, work).await
        });
        Self { metrics, stop, task }
    }

    fn leads(&self) -> bool {
        self.metrics.leader.get() == 1
    }

    async fn stop(self) -> Result<(), Error> {
        self.stop.send(true).unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(30), self.task).await.expect("it stops").unwrap()
    }
}

fn holder(bed: &Bed) -> Value {
    bed.server.get("Lease", NAMESPACE, LEASE).unwrap_or_default()["spec"]["holderIdentity"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_taken_and_given_back() {
    let bed = Bed::new();
    let one = Replica::start(&bed, "one");
    bed.until("one leads", || one.leads()).await;
    assert_eq!(holder(&bed), "one");
    one.stop().await.unwrap();
    assert!(holder(&bed).is_null(), "{}", bed.server);

    let two = Replica::start(&bed, "two");
    bed.until("two leads", || two.leads()).await;
    assert_eq!(holder(&bed), "two");
    two.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_replica_waits_while_another_leads() {
    let bed = Bed::new();
    let one = Replica::start(&bed, "one");
    bed.until("one leads", || one.leads()).await;
    bed.server.forget_calls();
    let two = Replica::start(&bed, "two");
    bed.until("two has looked at the lease twice", || bed.server.calls().len() >= 2).await;
    assert!(!two.leads() && one.leads());
    two.stop().await.unwrap();
    assert_eq!(holder(&bed), "one", "what is another's is not given back");
    one.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_not_renewed_is_taken_over_after_its_duration() {
    let bed = Bed::new();
    // Its clock is far ahead: only what is seen here counts.
    let renewed = Timestamp::now() + 20.hours();
    bed.server.put(json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": LEASE, "namespace": NAMESPACE},
        "spec": {"holderIdentity": "crashed", "leaseDurationSeconds": 15, "acquireTime": format!("{renewed:.6}"), "renewTime": format!("{renewed:.6}")},
    }));
    let began = Instant::now();
    let one = Replica::start(&bed, "one");
    bed.until("one leads", || one.leads()).await;
    let waited = began.elapsed();
    assert!((15..20).contains(&waited.as_secs()), "it waited {waited:?}");
    assert_eq!(holder(&bed), "one");
    one.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_api_server_hangs_ends_before_another_may_begin() {
    for verb in [Verb::Get, Verb::Update] {
        let bed = Bed::new();
        let one = Replica::start(&bed, "one");
        bed.until("one leads", || one.leads()).await;
        bed.server.trouble(verb, "Lease", Trouble::Hang);
        let cut_off = Instant::now();
        let ended = one.task.await.unwrap();
        assert!(matches!(ended, Err(Error::Lost)), "{ended:?}");
        assert!(cut_off.elapsed() < Duration::from_secs(11), "it went on for {:?}", cut_off.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_sees_another_lead_ends_at_once() {
    let bed = Bed::new();
    let one = Replica::start(&bed, "one");
    bed.until("one leads", || one.leads()).await;
    bed.server.edit("Lease", NAMESPACE, LEASE, |lease| lease["spec"]["holderIdentity"] = "two".into());
    let taken = Instant::now();
    assert!(matches!(one.task.await.unwrap(), Err(Error::Lost)));
    assert!(taken.elapsed() < Duration::from_secs(4), "it went on for {:?}", taken.elapsed());
}
