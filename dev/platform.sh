#!/bin/bash
# A cluster with the images, metrics-server and the operator: what `make up` and `make test` have in common.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

step "Docker" "1 s, 1 min to install it" "$root/dev/docker.sh" start
step "kind and kubectl" "1 s, 3 min to build them" "$root/dev/tools.sh"
step "Node image" "1 s, 1 min to pull it, 20 min to build it" "$root/dev/node-image.sh"
step "Cluster $cluster" "1 s, 40 s to create it" "$root/dev/cluster.sh" up
step "Images" "2 s, 1 min after a change, 12 min the first time" "$root/dev/images.sh"
step "metrics-server" "1 s" "$root/dev/metrics-server.sh"
step "CRD and operator" "2 s, 20 s when they changed" "$root/dev/operator.sh"
