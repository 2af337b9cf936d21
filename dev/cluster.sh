#!/bin/bash
# Creates the kind cluster of kind-config.yaml, or brings an existing one back; `down` deletes it.
# Usage: cluster.sh up|down
set -euo pipefail
. "$(dirname "$0")/lib.sh"
# Exists while a creation is under way: a cluster that is found with it was never finished.
unfinished=$cache/cluster-$cluster.unfinished

exists() {
  local clusters
  clusters=$(kind get clusters 2>/dev/null) || die "kind cannot list its clusters: does Docker answer ('docker info')?"
  grep -qx "$cluster" <<<"$clusters"
}

delete() {
  kind delete cluster --name "$cluster"
  rm -f "$unfinished"
}

taken() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# kind-config.yaml with the chosen ports and addresses, and with what this host needs besides.
configuration() {
  local loopback=127.0.0.1
  [ "$ip_family" = ipv4 ] || loopback='"::1"'
  printf 'networking: {ipFamily: %s}\n' "$ip_family"
  sed -e "s/hostPort: 8080/hostPort: $gateway_port/; s/hostPort: 8081/hostPort: $test_gateway_port/; s/listenAddress: 127.0.0.1/listenAddress: $loopback/" "$root/kind-config.yaml"
  if [ "$(docker info -f '{{.CgroupVersion}}')" = 1 ]; then
    say "this host has cgroup v1: the kubelet is told to accept it"
    # The patches are the last in the file.
    printf '  - |\n    kind: KubeletConfiguration\n    failCgroupV1: false\n'
  fi
}

create() {
  local port image config=$cache/kind-config.yaml new
  image=$(cat "$cache/node-image.name")
  for port in "$gateway_port" "$test_gateway_port"; do
    ! taken "$port" || die "port $port of this host is taken (by: $(ss -Hltnp "sport = :$port" 2>/dev/null | grep -oP '\(\(\K[^)]+' || echo unknown)): free it, or choose others with GATEWAY_PORT=… and TEST_GATEWAY_PORT=…"
  done
  configuration >"$config"
  touch "$unfinished"
  new=(kind create cluster --name "$cluster" --config "$config" --image "$image" --wait 120s)
  # kind gives a node 30 s to boot, and chooses the API server's port before Docker takes it: on a busy host that may fail once.
  if ! "${new[@]}"; then
    say "kind could not create the cluster $cluster: deleting what there is, and trying once more"
    kind delete cluster --name "$cluster"
    "${new[@]}"
  fi
  rm "$unfinished"
}

# Nodes that stopped, as after a reboot or a restart of Docker, or that were paused.
start_nodes() {
  local node
  for node in $(kind get nodes --name "$cluster" | sort); do
    case $(docker inspect -f '{{.State.Status}}' "$node") in
      running) ;;
      paused) docker unpause "$node" ;;
      *)
        say "starting $node, which had stopped"
        docker start "$node"
        ;;
    esac
  done
}

reachable() { kube get --raw /readyz --request-timeout 5s >/dev/null 2>&1; }

healthy() {
  local expected
  expected=$(grep -c 'role:' "$root/kind-config.yaml")
  reachable || kind export kubeconfig --name "$cluster" >/dev/null 2>&1 || true
  reachable && [ "$(kube get nodes --no-headers | grep -cw Ready)" = "$expected" ]
}

await_healthy() {
  local deadline=$((SECONDS + 120))
  until healthy; do
    ((SECONDS < deadline)) || return 1
    sleep 1
  done
}

up() {
  if [ -e "$unfinished" ]; then
    say "the cluster $cluster was left unfinished: creating it anew"
    delete
  fi
  if exists; then
    start_nodes
    await_healthy && return
    say "the cluster $cluster does not get healthy: creating it anew"
    delete
  fi
  create
  await_healthy || die "the new cluster's nodes do not get ready: kubectl --context $context get nodes,pods -A"
}

down() {
  command -v kind >/dev/null && docker info >/dev/null 2>&1 || return 0
  exists || return 0
  delete
}

case ${1:-} in
  up | down) "$1" ;;
  *) die "usage: cluster.sh up|down" ;;
esac
