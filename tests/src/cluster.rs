//! The way to the cluster.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod, ResourceQuota, Service};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{AttachParams, DeleteParams, ListParams, Patch, PatchParams},
    config::KubeConfigOptions,
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, copy_bidirectional},
    net::TcpListener,
};

use crate::eventually;

/// The namespace of the operator.
pub const OPERATOR: &str = "taskplatform-system";

/// A client of the cluster that `KUBE_CONTEXT` names, or of kubectl's current one.
///
/// # Errors
/// When there is no such context.
pub async fn client() -> Result<Client> {
    let options = KubeConfigOptions { context: std::env::var("KUBE_CONTEXT").ok(), ..KubeConfigOptions::default() };
    let mut config = Config::from_kubeconfig(&options).await.context("no cluster: `make test` starts one")?;
    // A lost connection ends a test instead of holding it up for ever: none watches, and no command takes so long.
    config.read_timeout = Some(Duration::from_mins(1));
    // Without it, the time for which a connection was not in use would count, too.
    config.reset_reader_on_write = true;
    Ok(Client::try_from(config)?)
}

/// Creates a namespace that admits only pods of the restricted standard.
///
/// # Errors
/// When the API server refuses it.
pub async fn namespace(client: &Client, name: &str) -> Result<()> {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    });
    let api: Api<Namespace> = Api::all(client.clone());
    api.patch(name, &PatchParams::apply("e2e").force(), &Patch::Apply(namespace)).await?;
    Ok(())
}

/// The same, but that it admits no pod at all: for what can be seen without.
///
/// # Errors
/// When the API server refuses it.
pub async fn namespace_without_pods(client: &Client, name: &str) -> Result<()> {
    namespace(client, name).await?;
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "no-pods"}, "spec": {"hard": {"pods": "0"}},
    });
    let api: Api<ResourceQuota> = Api::namespaced(client.clone(), name);
    api.patch("no-pods", &PatchParams::apply("e2e").force(), &Patch::Apply(quota)).await?;
    Ok(())
}

/// Deletes a namespace, if there is one, and waits until its Services and pods are gone: until then their node ports are taken, and two dozen
/// pods that end at once leave nothing of two cores for the test that follows.
///
/// # Errors
/// When one is left after two minutes.
pub async fn remove_namespace(client: &Client, name: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    match namespaces.delete(name, &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
        deleted => drop(deleted?),
    }
    let services: Api<Service> = Api::namespaced(client.clone(), name);
    let pods: Api<Pod> = Api::namespaced(client.clone(), name);
    eventually(&format!("the Services and pods of {name} are gone"), 120, async || {
        let services = services.list(&ListParams::default()).await?;
        let pods = pods.list(&ListParams::default()).await?;
        let left: Vec<String> =
            services.iter().map(ResourceExt::name_any).chain(pods.iter().map(ResourceExt::name_any)).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await
}

/// The pods of a label selector.
///
/// # Errors
/// When the API server does not answer.
pub async fn pods(client: &Client, namespace: &str, labels: &str) -> Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    Ok(api.list(&ListParams::default().labels(labels)).await?.items)
}

/// Deletes an object and waits until there is another one.
///
/// # Errors
/// When there is none within a minute.
pub async fn comes_back<K>(api: Api<K>, name: &str) -> Result<()>
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let uid = api.get(name).await?.uid();
    api.delete(name, &DeleteParams::background()).await?;
    eventually(&format!("{name} is back"), 60, async || {
        ensure!(api.get(name).await?.uid() != uid, "still the one that is being deleted");
        Ok(())
    })
    .await
}

/// Runs a command in a pod and returns what it prints.
///
/// # Errors
/// When the command cannot be run or fails; what it printed is in the error.
pub async fn exec(client: &Client, namespace: &str, pod: &str, command: &[&str]) -> Result<String> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut attached =
        api.exec(pod, command.iter().copied(), &AttachParams::default().stdout(true).stderr(true)).await?;
    let (mut output, mut errors) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (attached.stdout().context("no stdout")?, attached.stderr().context("no stderr")?);
    tokio::try_join!(stdout.read_to_string(&mut output), stderr.read_to_string(&mut errors))?;
    let status = attached.take_status().context("no status")?.await.context("no status")?;
    anyhow::ensure!(status.status.as_deref() == Some("Success"), "{command:?} in {pod}: {errors}{output}");
    Ok(output)
}

/// A connection to a port of a pod, through the API server.
///
/// # Errors
/// When the pod does not run.
pub async fn connect(
    client: &Client,
    namespace: &str,
    pod: &str,
    port: u16,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut forwarder = api.portforward(pod, &[port]).await?;
    forwarder.take_stream(port).context("no stream")
}

/// Has a port of this machine lead to a port of a pod, as long as the test runs. Returns its URL.
///
/// # Errors
/// When no port can be had.
pub async fn forward(client: &Client, namespace: &str, pod: &str, port: u16) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (client, namespace, pod) = (client.clone(), namespace.to_owned(), pod.to_owned());
    tokio::spawn(async move {
        while let Ok((mut here, _)) = listener.accept().await {
            let (client, namespace, pod) = (client.clone(), namespace.clone(), pod.clone());
            tokio::spawn(async move {
                if let Ok(mut there) = connect(&client, &namespace, &pod, port).await {
                    drop(copy_bidirectional(&mut here, &mut there).await);
                }
            });
        }
    });
    Ok(url)
}

/// Answers of a pod's HTTP server, fetched through the API server.
///
/// # Errors
/// When the pod does not answer.
pub async fn get_from_pod(client: &Client, namespace: &str, pod: &str, port: u16, path: &str) -> Result<String> {
    let url = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}");
    let request = get_request(&url)?;
    Ok(client.request_text(request).await?)
}

fn get_request(url: &str) -> Result<::http::Request<Vec<u8>>> {
    Ok(::http::Request::get(url).body(Vec::new())?)
}
