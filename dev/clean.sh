#!/bin/bash
# Removes what `make up` built: its images and its cache.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

"$root/dev/cluster.sh" down
if docker info >/dev/null 2>&1; then docker images --filter reference='taskplatform/*' -q | sort -u | xargs -r docker image rm -f || say "images that containers use stay"; fi
"$root/dev/docker.sh" stop
rm -rf "$cache"
