#!/bin/bash
# From `kubectl apply` of the quickstart to Ready, and what the operator takes while one platform idles.
# Usage: bench/platform.sh [RUNS]  (3 runs; on the cluster of `make up`, without platforms of its own; needs jq)
set -euo pipefail
. "$(dirname "$0")/../dev/lib.sh"
runs=${1:-3}
namespace=bench

platforms=$(kube get taskplatforms -A -o name | wc -l)
[ "$platforms" = 0 ] || say "$platforms platforms run besides: kubectl delete tp --all -A gives the machine to the measurement"

# The quickstart, without a port of the nodes, whose volumes go with it.
quickstart() {
  sed -e 's/^  name: quickstart$/  name: bench/' -e 's/{type: NodePort, nodePort: [0-9]*}/{type: ClusterIP}/' "$root/examples/quickstart.yaml"
  echo '  deletionPolicy: Delete'
}

# The leader's usage: nanoseconds of CPU, bytes of memory.
usage() {
  local holder node
  holder=$(kube -n taskplatform-system get lease taskplatform-operator -o jsonpath='{.spec.holderIdentity}')
  node=$(kube -n taskplatform-system get pod "$holder" -o jsonpath='{.spec.nodeName}')
  kube get --raw "/api/v1/nodes/$node/proxy/stats/summary" |
    jq -r --arg pod "$holder" '.pods[] | select(.podRef.name == $pod) | .containers[0] | "\(.cpu.usageCoreNanoSeconds) \(.cpu.time) \(.memory.workingSetBytes)"'
}

idle() {
  local first second from to
  first=$(usage)
  sleep 60
  second=$(usage)
  read -r from from_time _ <<<"$first"
  read -r to to_time memory <<<"$second"
  awk -v cpu=$((to - from)) -v seconds=$(($(date -d "$to_time" +%s) - $(date -d "$from_time" +%s))) -v memory="$memory" \
    'BEGIN { printf "operator, one idle platform: %.2f %% of a core, %.1f MiB\n", cpu / seconds / 1e7, memory / 1048576 }' >&3
}

times=()
for run in $(seq "$runs"); do
  kube create namespace $namespace >/dev/null
  quickstart >"$cache/bench.yaml"
  began=$(date +%s%N)
  kube -n $namespace apply -f "$cache/bench.yaml" >/dev/null
  kube -n $namespace wait --for=condition=Ready tp/bench --timeout 5m >/dev/null
  times+=($((($(date +%s%N) - began) / 1000000)))
  say "run $run: Ready after $(awk -v ms="${times[-1]}" 'BEGIN { printf "%.1f", ms / 1000 }') s"
  if [ "$run" = "$runs" ]; then
    kube -n $namespace wait --for=condition=Reconciling=False tp/bench --timeout 5m >/dev/null
    idle
  fi
  kube delete namespace $namespace >/dev/null
done
printf '%s\n' "${times[@]}" | sort -n | awk '{ t[NR] = $1 } END { printf "quickstart, apply to Ready: median %.1f s of %d runs\n", t[int((NR + 1) / 2)] / 1000, NR }' >&3
