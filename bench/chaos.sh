#!/bin/bash
# Breaks the quickstart with two replicas in every way that it should survive, under writers that keep a ledger outside of it.
# Usage: bench/chaos.sh [--scenario NAME]... [--runs N]  (on the cluster of `make up`; 2 min a run)
set -euo pipefail
. "$(dirname "$0")/../dev/lib.sh"
export KUBECONFIG=$cache/chaos.kubeconfig

kind get kubeconfig --name "$cluster" >"$KUBECONFIG"
kubectl apply --server-side --force-conflicts -f "$root/examples/quickstart.yaml" >/dev/null
kubectl patch taskplatform quickstart --type merge -p '{"spec":{"database":{"readReplicas":2}}}' >/dev/null
cd "$root"
# --workspace: the dependencies are then those that everything else is built with.
cargo build --release --locked --workspace --bin chaos
"$CARGO_TARGET_DIR/release/chaos" --url "http://127.0.0.1:$gateway_port" "$@" | tee "$cache/logs/chaos.json"
