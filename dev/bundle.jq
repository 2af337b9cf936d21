# The ClusterServiceVersion of the operator: what manifests/ holds, in the words of the Operator Lifecycle Manager.
# In: the objects of manifests/. $version, $examples: the release, and the TaskPlatforms of examples/ as text.

def the($kind): map(select(.kind == $kind))[0];
# OLM makes the roles of those who view and edit TaskPlatforms itself.
def permission($role):
  the("ServiceAccount").metadata.name as $operator
  | {serviceAccountName: $operator, rules: (map(select(.kind == $role and (.metadata.name | startswith($operator))))[0].rules)};

the("Deployment") as $operator
| $operator.spec.template.spec.containers[0] as $container
| the("CustomResourceDefinition") as $definition
| {
    apiVersion: "operators.coreos.com/v1alpha1",
    kind: "ClusterServiceVersion",
    metadata: {
      name: "taskplatform.v\($version)",
      annotations: {
        "alm-examples": $examples,
        capabilities: "Seamless Upgrades",
        categories: "Application Runtime, Database",
        containerImage: $container.image,
        description: "Turns one TaskPlatform resource into a whole, highly available platform for a task API",
        "operatorframework.io/suggested-namespace": the("Namespace").metadata.name
      }
    },
    spec: {
      displayName: "TaskPlatform",
      description: ("Turns one `TaskPlatform` resource into a whole, highly available platform for a task API: an nginx gateway, "
        + "the autoscaled API, PgBouncer, PostgreSQL with read replicas, and Redis Clusters for cache and sessions.\n\n"
        + "A bad spec is refused by the rules of the definition. The operator's admission webhook and its NetworkPolicy are not "
        + "part of this bundle: for webhooks, OLM mounts certificates of its own, and not every version of it installs a "
        + "NetworkPolicy. The manifests and the Helm chart have both.\n"),
      version: $version,
      maturity: "alpha",
      minKubeVersion: "1.30.0",
      keywords: ["operator", "postgresql", "pgbouncer", "redis", "nginx", "autoscaling"],
      provider: {name: "TaskPlatform"},
      installModes: (["OwnNamespace", "SingleNamespace", "MultiNamespace", "AllNamespaces"] | map({type: ., supported: (. == "AllNamespaces")})),
      install: {
        strategy: "deployment",
        spec: {
          deployments: [{name: $operator.metadata.name, label: $operator.metadata.labels, spec: $operator.spec}],
          clusterPermissions: [permission("ClusterRole")],
          permissions: [permission("Role")]
        }
      },
      customresourcedefinitions: {
        owned: [$definition.spec as $spec | $spec.versions[] | {
          name: $definition.metadata.name,
          version: .name,
          kind: $spec.names.kind,
          displayName: "Task platform",
          description: .schema.openAPIV3Schema.description
        }]
      },
      relatedImages: ([{name: "operator", image: $container.image}]
        + [$container.env[] | select(.name | startswith("RELATED_IMAGE_"))
          | {name: (.name | ltrimstr("RELATED_IMAGE_") | ascii_downcase | gsub("_"; "-")), image: .value}])
    }
  }
