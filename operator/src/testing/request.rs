//! What is asked, as an API server understands it, and how it says no.

use std::{collections::BTreeMap, fmt};

use http::{Method, Request, header};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

/// A kind that is served: the server knows no others.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(super) api_version: &'static str,
    pub(super) plural: &'static str,
    pub(crate) kind: &'static str,
}

const fn resource(api_version: &'static str, plural: &'static str, kind: &'static str) -> Resource {
    Resource { api_version, plural, kind }
}

const RESOURCES: [Resource; 19] = [
    resource("taskplatform.dev/v1alpha1", "taskplatforms", "TaskPlatform"),
    resource("v1", "configmaps", "ConfigMap"),
    resource("v1", "endpoints", "Endpoints"),
    resource("v1", "nodes", "Node"),
    resource("v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
    resource("v1", "pods", "Pod"),
    resource("v1", "secrets", "Secret"),
    resource("v1", "serviceaccounts", "ServiceAccount"),
    resource("v1", "services", "Service"),
    resource("apps/v1", "deployments", "Deployment"),
    resource("apps/v1", "statefulsets", "StatefulSet"),
    resource("autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
    resource("coordination.k8s.io/v1", "leases", "Lease"),
    resource("events.k8s.io/v1", "events", "Event"),
    resource("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy"),
    resource("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget"),
    resource("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding"),
    resource("rbac.authorization.k8s.io/v1", "roles", "Role"),
    resource("v1", "events", "Event"),
];

impl Resource {
    /// The kind of this name.
    pub(super) fn of_kind(kind: &str) -> &'static Self {
        RESOURCES.iter().find(|resource| resource.kind == kind).unwrap_or_else(|| panic!("{kind} is not served"))
    }
}

/// What is asked for, in the words of roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
}

impl Verb {
    pub(super) const fn writes(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    pub(crate) resource: &'static Resource,
    /// Empty where all namespaces are asked for.
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
    pub(crate) body: Value,
    query: BTreeMap<String, String>,
    pub(super) content_type: String,
    pub(super) metadata_only: bool,
}

impl Call {
    /// Reads a request; none where nothing is served under its path.
    pub(super) async fn read(request: Request<Body>) -> Option<Self> {
        let (parts, body) = request.into_parts();
        let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let body: Value = serde_json::from_slice(&body.collect().await.ok()?.to_bytes()).unwrap_or_default();
        let query = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let query: BTreeMap<String, String> = query.into_owned().collect();

        let mut path = parts.uri.path().trim_matches('/').split('/');
        let api_version = match path.next()? {
            "api" => path.next()?.to_owned(),
            "apis" => format!("{}/{}", path.next()?, path.next()?),
            _ => return None,
        };
        let (namespace, plural) = match path.next()? {
            "namespaces" => (path.next()?, path.next()?),
            plural => ("", plural),
        };
        let resource = RESOURCES.iter().find(|known| known.api_version == api_version && known.plural == plural)?;
        let name = path.next().or(body["metadata"]["name"].as_str()).unwrap_or_default().to_owned();
        let verb = match parts.method {
            Method::GET if query.get("watch").is_some_and(|watch| watch == "true") => Verb::Watch,
            Method::GET if name.is_empty() => Verb::List,
            Method::GET => Verb::Get,
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE => Verb::Delete,
            _ => return None,
        };
        Some(Self {
            verb,
            resource,
            namespace: namespace.to_owned(),
            name,
            subresource: path.next().unwrap_or_default().to_owned(),
            content_type: text(header::CONTENT_TYPE),
            metadata_only: text(header::ACCEPT).contains("as=PartialObjectMetadata"),
            query,
            body,
        })
    }

    /// A parameter of the query, empty where it is not given.
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// Who writes.
    pub(super) fn manager(&self) -> &str {
        Some(self.parameter("fieldManager")).filter(|manager| !manager.is_empty()).unwrap_or("unknown")
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} {}/{}", self.verb, self.resource.kind, self.namespace, self.name)?;
        if !self.subresource.is_empty() {
            write!(f, " {}", self.subresource)?;
        }
        if self.body.is_null() { Ok(()) } else { write!(f, " {:.400}", self.body.to_string()) }
    }
}

/// Whether an object is meant by a request's selectors. Sets (`in`, `notin`) are not understood.
pub(super) fn selects(call: &Call, object: &Value) -> bool {
    let label = |key: &str| object["metadata"]["labels"][key].as_str();
    let field = |key: &str| object.pointer(&format!("/{}", key.replace('.', "/"))).and_then(Value::as_str);
    holds(call.parameter("labelSelector"), label) && holds(call.parameter("fieldSelector"), field)
}

fn holds<'a>(selector: &str, value: impl Fn(&str) -> Option<&'a str>) -> bool {
    assert!(!selector.contains('('), "sets are not understood: {selector}");
    selector.split(',').filter(|term| !term.is_empty()).all(|term| {
        if let Some((key, unwanted)) = term.split_once("!=") {
            value(key) != Some(unwanted)
        } else if let Some((key, wanted)) = term.split_once('=') {
            value(key) == Some(wanted.trim_start_matches('='))
        } else if let Some(key) = term.strip_prefix('!') {
            value(key).is_none()
        } else {
            value(term).is_some()
        }
    })
}

/// A request that is not carried out, and why.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: u16,
    reason: &'static str,
    message: String,
    /// The field that is wrong.
    field: Option<&'static str>,
}

impl Refusal {
    /// A refusal with the reason that goes with its code.
    pub(super) fn new(code: u16, message: impl Into<String>) -> Self {
        let reason = match code {
            400 => "BadRequest",
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            410 => "Expired",
            415 => "UnsupportedMediaType",
            422 => "Invalid",
            429 => "TooManyRequests",
            503 => "ServiceUnavailable",
            _ => "InternalError",
        };
        Self { code, reason, message: message.into(), field: None }
    }

    pub(super) fn not_found(call: &Call) -> Self {
        Self::new(404, format!("{} {:?} not found", call.resource.plural, call.name))
    }

    pub(super) fn already_exists(call: &Call) -> Self {
        let message = format!("{} {:?} already exists", call.resource.plural, call.name);
        Self { reason: "AlreadyExists", ..Self::new(409, message) }
    }

    pub(super) fn conflict(call: &Call, message: &str) -> Self {
        Self::new(409, format!("Operation cannot be fulfilled on {} {:?}: {message}", call.resource.plural, call.name))
    }

    pub(super) fn immutable(call: &Call, field: &'static str) -> Self {
        let (kind, name) = (&call.resource.kind, &call.name);
        let message = match *kind {
            // It names no field.
            "StatefulSet" => format!(
                "StatefulSet.apps {name:?} is invalid: spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
            ),
            _ => format!("{kind} {name:?} is invalid: {field}: field is immutable"),
        };
        Self { field: Some(field), ..Self::new(422, message) }
    }

    /// The refusal as the API has it.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(field) = self.field {
            let cause = json!({"reason": "FieldValueInvalid", "message": "field is immutable", "field": field});
            status["details"] = json!({"causes": [cause]});
        }
        status
    }
}
