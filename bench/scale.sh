#!/bin/bash
# A thousand platforms in a namespace whose quota admits no pods, beside a plain client that creates the same objects: the operator's
# memory, its objects a second, its idle CPU, its restart, and whether platforms in trouble hold up the others.
# Usage: bench/scale.sh [--platforms N] [--troubled N]  (40 min; on the cluster of `make up`; needs jq)
set -euo pipefail
. "$(dirname "$0")/../dev/lib.sh"
export KUBECONFIG=$cache/scale.kubeconfig
namespaces=(scale scale-plain scale-troubled)

kind get kubeconfig --name "$cluster" >"$KUBECONFIG"
say "$(nproc) cores, $(kubectl get taskplatforms -A -o name | wc -l) platforms before"
kubectl delete namespace --ignore-not-found --wait "${namespaces[@]}"
cd "$root"
cargo build --release --locked --workspace --bin scale
# network STATE: kube-router, where the cluster has it, writes rules for pods that do not exist, with a third of the machine.
network() {
  kubectl -n kube-system get daemonset kube-router -o name 2>/dev/null |
    xargs -r kubectl -n kube-system patch --type json -p "[{\"op\":\"$1\",\"path\":\"/spec/template/spec/nodeSelector\",\"value\":{\"taskplatform.dev/scale\":\"none\"}}]" >/dev/null
}
end() {
  network remove
  kubectl delete namespace --ignore-not-found --wait=false "${namespaces[@]}" >/dev/null
}
trap end EXIT
network add
"$CARGO_TARGET_DIR/release/scale" "$@" | tee "$cache/logs/scale.json"
