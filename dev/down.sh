#!/bin/bash
# Deletes the cluster, and stops Docker if it was started here.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

step "Deleting the cluster $cluster" "10 s" "$root/dev/cluster.sh" down
"$root/dev/docker.sh" stop
