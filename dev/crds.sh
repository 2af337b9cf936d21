#!/bin/bash
# Generates crds/taskplatform.yaml from its Rust type.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

cargo run --quiet --manifest-path "$root/Cargo.toml" -p taskplatform-crds >"$cache/taskplatform.yaml"
mv "$cache/taskplatform.yaml" "$root/crds/taskplatform.yaml"
