#!/bin/bash
# Installs metrics-server, which the autoscaler needs, where the cluster has none.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

if kube get apiservice v1beta1.metrics.k8s.io >/dev/null 2>&1; then exit; fi
kube apply --server-side -f "$root/manifests/metrics-server/metrics-server.yaml"
