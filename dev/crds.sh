#!/bin/bash
# Generates crds/taskplatform.yaml from its Rust type.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# --workspace: the dependencies are then those that `cargo test --workspace` has built.
cargo build --quiet --release --manifest-path "$root/Cargo.toml" --workspace --bin taskplatform-crds
"$CARGO_TARGET_DIR/release/taskplatform-crds" >"$cache/taskplatform.yaml"
mv "$cache/taskplatform.yaml" "$root/crds/taskplatform.yaml"
