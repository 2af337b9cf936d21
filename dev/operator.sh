#!/bin/bash
# Installs the CRD and the operator from manifests/, with the images that images.sh built.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
overlay=$cache/overlay
namespace=taskplatform-system

image() { cat "$cache/images/$1"; }

# env NAME: the variable that tells the operator which image a component runs.
env() { printf '                - {name: RELATED_IMAGE_%s, value: "%s"}\n' "$(tr a-z- A-Z_ <<<"$1")" "$(image "$1")"; }

mkdir -p "$overlay"
cat >"$overlay/kustomization.yaml" <<EOT
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - $(realpath --relative-to="$overlay" "$root/manifests")
images:
  - {name: taskplatform/operator, newTag: "$(image operator | cut -d: -f2)"}
patches:
  - patch: |
      apiVersion: apps/v1
      kind: Deployment
      metadata: {name: taskplatform-operator, namespace: $namespace}
      spec:
        template:
          spec:
            containers:
              - name: operator
                env:
$(for name in postgres pgbouncer redis gateway task-api; do env "$name"; done)
EOT

kube apply --server-side --force-conflicts --field-manager taskplatform-install -k "$overlay"
kube wait --for=condition=Established crd/taskplatforms.taskplatform.dev --timeout 30s
if ! kube -n "$namespace" rollout status deployment/taskplatform-operator --timeout 120s; then
  kube -n "$namespace" get pods -o wide
  kube -n "$namespace" get events --sort-by .lastTimestamp | tail -n 10
  kube -n "$namespace" logs deployment/taskplatform-operator --tail 10 || true
  die "the operator does not get ready"
fi
