#!/bin/bash
# Finds Docker, or installs and starts it; `stop` ends the one that was started here.
# Usage: docker.sh start|stop
set -euo pipefail
. "$(dirname "$0")/lib.sh"
state=$cache/docker
pidfile=$state/dockerd.pid

# runs PIDFILE PROGRAM: by the executable, which a killed process that nobody has waited for no longer has.
runs() { [ -f "$1" ] && [[ $(readlink "/proc/$(cat "$1")/exe") == */$2 ]]; }

install_docker() {
  command -v apt-get >/dev/null || die "no Docker daemon answers: start Docker Desktop, or install Docker (https://docs.docker.com/engine/install/)"
  apt_install docker.io iptables jq
}

# A host without CAP_SYS_RESOURCE (bit 24) refuses privileged containers, which kind's nodes are.
lacks_sys_resource() { (((0x$(awk '/^CapBnd/ { print $2 }' /proc/self/status) >> 24 & 1) == 0)); }

configuration() {
  lacks_sys_resource || { echo '{}'; return; }
  say "this host lacks CAP_SYS_RESOURCE: containers start through dev/runc-bounded"
  printf '{"default-runtime": "bounded", "runtimes": {"bounded": {"path": "%s"}}}\n' "$state/runc-bounded"
}

launch() {
  [ "$(id -u)" = 0 ] || die "the Docker daemon is not running: start it, e.g. with 'sudo systemctl start docker' or Docker Desktop"
  if [ -d /run/systemd/system ]; then
    systemctl start docker
    return
  fi
  mkdir -p "$state"
  # A copy: the daemon goes on using it when the checkout is gone.
  install -m 755 "$root/dev/runc-bounded" "$state/runc-bounded"
  configuration >"$state/daemon.json"
  # Files that a killed daemon left behind, whose process ids may by now be others'.
  runs "$pidfile" dockerd || rm -f "$pidfile"
  runs /run/docker/containerd/containerd.pid containerd || rm -f /run/docker/containerd/containerd.pid
  setsid nohup dockerd --config-file "$state/daemon.json" --pidfile "$pidfile" >"$cache/logs/dockerd.log" 2>&1 </dev/null 3>&- &
}

answers() { docker info >/dev/null 2>&1; }

start() {
  answers && return
  if command -v docker >/dev/null && docker info 2>&1 | grep -q 'permission denied'; then
    die "the Docker daemon refuses this user: add it to the group docker ('sudo usermod -aG docker $(id -un)', then log in again)"
  fi
  { command -v docker && command -v dockerd; } >/dev/null || install_docker
  if ! answers; then
    say "starting the Docker daemon"
    launch
  fi
  for _ in $(seq 60); do
    answers && return
    sleep 0.5
  done
  tail -n 5 "$cache/logs/dockerd.log" >&2 || true
  die "the Docker daemon does not answer: see $cache/logs/dockerd.log"
}

stop() {
  runs "$pidfile" dockerd || return 0
  local pid
  pid=$(cat "$pidfile")
  say "stopping the Docker daemon that was started here"
  kill "$pid"
  for _ in $(seq 60); do
    runs "$pidfile" dockerd || return 0
    sleep 0.5
  done
  die "the Docker daemon (process $pid) does not stop"
}

case ${1:-} in
  start | stop) "$1" ;;
  *) die "usage: docker.sh start|stop" ;;
esac
