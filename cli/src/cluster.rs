//! A cluster, read: nothing here changes it.

use std::collections::BTreeMap;

use futures::{
    Stream, StreamExt,
    future::{self, try_join_all},
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Event, Pod},
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::ListParams,
    config::{KubeConfigOptions, KubeconfigError},
    core::{ApiResource, DynamicObject},
    runtime::{WatchStreamExt, watcher},
};
use taskplatform_blueprint::{Component, Facts, Images, Kind, PARTS, REQUESTS_PER_SECOND};
use taskplatform_crds::{Size, TaskPlatform};

/// Which cluster, and where in it.
// clap would name the group like that of the command's own arguments.
#[derive(Clone, clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// The namespace; left out, the file's, and then the context's.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// The context of the kubeconfig; left out, the current one.
    #[arg(long)]
    context: Option<String>,
    /// The namespace of the operator.
    #[arg(long, default_value = "taskplatform-system")]
    operator_namespace: String,
}

/// The cluster cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the kubeconfig cannot be used: check KUBECONFIG and --context")]
    Kubeconfig(#[from] KubeconfigError),
    #[error("the cluster cannot be reached: is it running (kubectl cluster-info)?")]
    Reach(#[source] Box<kube::Error>),
    #[error(
        "TaskPlatforms are not known to the cluster: install the operator first (kubectl apply --server-side -k manifests)"
    )]
    NotInstalled,
    #[error(
        "{what} of namespace {namespace} cannot be read: may you (kubectl auth can-i list {resource} -n {namespace})?"
    )]
    Read { what: &'static str, resource: String, namespace: String, source: Box<kube::Error> },
}

impl Error {
    /// Whether it is a permission that lacks.
    fn is_forbidden(&self) -> bool {
        matches!(self, Self::Read { source, .. } if matches!(&**source, kube::Error::Api(status) if status.is_forbidden()))
    }
}

/// Whether a watch is taken up again after this.
fn passes(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(answer)) => {
            answer.code >= 500 || matches!(answer.code, 410 | 429)
        }
        watcher::Error::InitialListFailed(kube::Error::Service(_) | kube::Error::HyperError(_))
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchError(_)
        | watcher::Error::WatchFailed(_) => true,
        watcher::Error::InitialListFailed(_) | watcher::Error::NoResourceVersion => false,
    }
}

/// A cluster that answers.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) operator_namespace: String,
}

impl Arguments {
    /// Connects to it.
    pub(crate) async fn connect(&self) -> Result<Cluster, Error> {
        let Self { namespace, context, operator_namespace } = self;
        let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
        let config = Config::from_kubeconfig(&options).await?;
        let namespace = namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| Error::Reach(Box::new(error)))?;
        Ok(Cluster { client, namespace, operator_namespace: operator_namespace.clone() })
    }
}

impl Cluster {
    /// The TaskPlatforms of a namespace.
    pub(crate) fn platforms(&self, namespace: &str) -> Api<TaskPlatform> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The TaskPlatform of this name as it is, and again whenever it changes. What passes, such as an API server that is away or a definition that
    /// is replaced, is waited for.
    pub(crate) fn changes(api: Api<TaskPlatform>, name: &str) -> impl Stream<Item = watcher::Result<TaskPlatform>> {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let changes = watcher(api, config).default_backoff().applied_objects();
        changes.filter(|change| future::ready(!change.as_ref().is_err_and(passes)))
    }

    /// A TaskPlatform, if there is one of this name.
    pub(crate) async fn platform(&self, namespace: &str, name: &str) -> Result<Option<TaskPlatform>, Error> {
        found(self.platforms(namespace).get(name).await, namespace, name)
    }

    /// The same, with all that its operator reports, known here or not.
    pub(crate) async fn whole_platform(&self, namespace: &str, name: &str) -> Result<Option<DynamicObject>, Error> {
        let resource = ApiResource::erase::<TaskPlatform>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        found(api.get(name).await, namespace, name)
    }

    /// The pods of a platform.
    pub(crate) async fn pods(&self, namespace: &str, name: &str) -> Result<Vec<DynamicObject>, Error> {
        let resource = ApiResource::erase::<Pod>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let pods = api.list(&labelled(name)).await;
        Ok(pods.map_err(|source| read("Pods", "pods", namespace, source))?.items)
    }

    /// The events of a namespace.
    pub(crate) async fn events(&self, namespace: &str) -> Result<Vec<Event>, Error> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let events = api.list(&ListParams::default()).await;
        Ok(events.map_err(|source| read("Events", "events", namespace, source))?.items)
    }

    /// The objects of a platform that are of the blueprint's kinds.
    pub(crate) async fn objects(&self, namespace: &str, name: &str) -> Result<Vec<(Kind, DynamicObject)>, Error> {
        let parameters = labelled(name);
        let lists = Kind::ALL.into_iter().map(|kind| {
            let resource = ApiResource::from_gvk(&kind.group_version_kind());
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
            let parameters = &parameters;
            async move {
                let listed = api.list(parameters).await;
                let listed = listed.map_err(|source| read(kind.name(), &resource.plural, namespace, source))?;
                Ok::<_, Error>(listed.items.into_iter().map(move |object| (kind, object)).collect::<Vec<_>>())
            }
        });
        Ok(try_join_all(lists).await?.concat())
    }

    /// What the operator of this cluster builds with. Whoever may not read its Deployment is told by the platform's own
    /// objects, where there are any.
    pub(crate) async fn facts(&self, platform: &[(Kind, DynamicObject)]) -> Result<Facts, Error> {
        let images = match self.images().await {
            Err(error) if error.is_forbidden() && !platform.is_empty() => Images::from_environment(&images(platform)),
            images => images?,
        };
        Ok(Facts {
            images,
            requests_per_second: self.serves_requests_per_second().await?,
            operator_namespace: self.operator_namespace.clone(),
            api_instances: instances(platform),
            volumes: volumes(platform),
            ..Facts::default()
        })
    }

    /// The images that the operator of this cluster runs; the release's, where there is none.
    pub(crate) async fn images(&self) -> Result<Images, Error> {
        let namespace = &self.operator_namespace;
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
        let operator = deployments.get_opt("taskplatform-operator").await;
        let operator = operator.map_err(|source| read("Deployments", "deployments", namespace, source))?;
        Ok(Images::from_environment(&operator.map(|operator| environment(&operator)).unwrap_or_default()))
    }

    /// Whether the autoscaler can follow requests.
    pub(crate) async fn serves_requests_per_second(&self) -> Result<bool, Error> {
        for version in REQUESTS_PER_SECOND.versions {
            match self.client.list_api_group_resources(version).await {
                Ok(resources) => {
                    return Ok(resources
                        .resources
                        .iter()
                        .any(|resource| resource.name == REQUESTS_PER_SECOND.resource));
                }
                // Without the API there is no Status, either: only the code tells.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(Error::Reach(Box::new(error))),
            }
        }
        Ok(false)
    }
}

fn labelled(platform: &str) -> ListParams {
    ListParams::default().labels(&format!("app.kubernetes.io/name=taskplatform,app.kubernetes.io/instance={platform}"))
}

/// What a request for one TaskPlatform came to.
fn found<K>(answer: kube::Result<K>, namespace: &str, name: &str) -> Result<Option<K>, Error> {
    match answer {
        Ok(platform) => Ok(Some(platform)),
        // Both answers have the code 404; that of an unknown resource speaks of no object.
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            if status.details.as_ref().is_some_and(|details| details.name == name) {
                Ok(None)
            } else {
                Err(Error::NotInstalled)
            }
        }
        Err(source) => Err(read("TaskPlatforms", "taskplatforms", namespace, source)),
    }
}

fn read(what: &'static str, resource: &str, namespace: &str, source: kube::Error) -> Error {
    match source {
        kube::Error::Api(_) => Error::Read {
            what,
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            source: Box::new(source),
        },
        other => Error::Reach(Box::new(other)),
    }
}

/// The images that a platform's pods run, as the operator's variables would name them.
fn images(platform: &[(Kind, DynamicObject)]) -> BTreeMap<String, String> {
    let image = |component: Component| {
        let of_component = |object: &&DynamicObject| {
            object.labels().get("app.kubernetes.io/component").is_some_and(|name| name == component.name())
        };
        let mut objects = platform.iter().map(|(_, object)| object).filter(of_component);
        objects.find_map(|object| {
            Some(object.data.pointer("/spec/template/spec/containers/0/image")?.as_str()?.to_owned())
        })
    };
    PARTS.iter().filter_map(|part| Some((part.image().variable(), image(part.component())?))).collect()
}

fn environment(deployment: &Deployment) -> BTreeMap<String, String> {
    let containers =
        deployment.spec.iter().filter_map(|spec| spec.template.spec.as_ref()).flat_map(|spec| &spec.containers);
    let variables = containers.flat_map(|container| container.env.iter().flatten());
    variables.filter_map(|variable| Some((variable.name.clone(), variable.value.clone()?))).collect()
}

/// The sizes of volumes by the StatefulSets that claim them: those that have grown by themselves stay as they are.
fn volumes(platform: &[(Kind, DynamicObject)]) -> BTreeMap<String, Size> {
    let sets = platform.iter().filter(|(kind, _)| *kind == Kind::StatefulSet);
    let size = |(_, set): &(Kind, DynamicObject)| {
        let claim = &set.data["spec"]["volumeClaimTemplates"][0];
        let size = claim["spec"]["resources"]["requests"]["storage"].as_str()?.parse().ok()?;
        Some((set.name_any(), size))
    };
    sets.filter_map(size).collect()
}

/// The instances of the API that run.
fn instances(platform: &[(Kind, DynamicObject)]) -> Option<i32> {
    let is_api = |object: &DynamicObject| {
        object.labels().get("app.kubernetes.io/component").is_some_and(|name| name == Component::API.name())
    };
    let deployment = platform.iter().find(|(kind, object)| *kind == Kind::Deployment && is_api(object));
    i32::try_from(deployment?.1.data["spec"]["replicas"].as_i64()?).ok()
}
