//! Threads for what goes on between this process and its databases and caches.
//!
//! On the threads that serve, every step of it would wait for all requests that have come meanwhile, and a write takes five: under full load
//! that is most of its time. Here it waits for the like of it only, and what is answered here goes on there before what has just come.

use std::sync::LazyLock;

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
};

/// A thread for so many cores.
const CORES: usize = 4;

static RUNTIME: LazyLock<Option<Runtime>> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(cores.div_ceil(CORES)).thread_name("background").enable_all().build();
    runtime
        .inspect_err(|error| {
            tracing::warn!(
                "can't start threads for databases and caches, which share those of requests and are slower: {error}"
            );
        })
        .ok()
});

/// Runs a task there; where no thread can be had, here.
pub fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    match &*RUNTIME {
        Some(runtime) => runtime.spawn(task),
        None => tokio::spawn(task),
    }
}
