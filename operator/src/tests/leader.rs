//! One replica leads. The lease counts in the system's time, so these tests do, too.

use std::sync::Arc;

use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    leader::{self, Error},
    metrics::Metrics,
    testing::{Bed, config},
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

#[tokio::test]
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

#[tokio::test]
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

#[tokio::test]
async fn a_lease_that_ran_out_is_taken_over() {
    let bed = Bed::new();
    let renewed = Timestamp::now() - 20.seconds();
    bed.server.put(json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": LEASE, "namespace": NAMESPACE},
        "spec": {"holderIdentity": "crashed", "leaseDurationSeconds": 15, "acquireTime": format!("{renewed:.6}"), "renewTime": format!("{renewed:.6}")},
    }));
    let one = Replica::start(&bed, "one");
    bed.until("one leads", || one.leads()).await;
    assert_eq!(holder(&bed), "one");
    one.stop().await.unwrap();
}
