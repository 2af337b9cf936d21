# shellcheck shell=bash
# What the scripts of this folder share: where things are, and steps that say what they do.
# shellcheck disable=SC2034 # the scripts that source this file use these

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/taskplatform}
cluster=${CLUSTER:-taskplatform}
context=kind-$cluster
gateway_port=${GATEWAY_PORT:-8080}
test_gateway_port=${TEST_GATEWAY_PORT:-8081}
ip_family=${IP_FAMILY:-ipv4}
kubernetes=v1.37.2
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
mkdir -p "$cache/bin" "$cache/logs"

# kind and kubectl, where tools.sh had to build them.
export PATH=$cache/bin:$PATH:/usr/sbin:/sbin

# A step's output goes to its log; what `say` prints still reaches the terminal, through descriptor 3.
if [ -z "${TASKPLATFORM_STEPS:-}" ]; then
  exec 3>&1
  export TASKPLATFORM_STEPS=1
fi

say() { printf '    %s\n' "$*" >&3; }

# die MESSAGE: what failed, on what, and the way out.
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

duration() { # SECONDS
  if [ "$1" -lt 60 ]; then printf '%d s' "$1"; else printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); fi
}

# step TITLE USUAL COMMAND [ARGUMENT...]: runs the command, says how long it usually takes and how long it took.
step() {
  local title=$1 usual=$2 began=$SECONDS log
  shift 2
  log=$cache/logs/$(basename "$1" .sh).log
  printf '==> %s (%s)\n' "$title" "$usual" >&3
  if "$@" >"$log" 2>&1 </dev/null; then
    say "done in $(duration $((SECONDS - began)))"
    return
  fi
  {
    printf '    failed after %s. The end of %s:\n\n' "$(duration $((SECONDS - began)))" "$log"
    tail -n 20 "$log" | sed 's/^/    | /'
    printf '\n    Mend it and run the same command again: it goes on with this step.\n'
  } >&3
  exit 1
}

# digest PATH...: 12 hexadecimal digits that change when a file of these paths does.
digest() {
  local path
  for path; do
    if [ -d "$path" ]; then (cd "$path" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum); else sha256sum <"$path"; fi
  done | sha256sum | cut -c1-12
}

has_image() { docker image inspect "$1" >/dev/null 2>&1; }

# pull IMAGE: fails where no registry answers.
pull() { timeout 600 docker pull --quiet "$1"; }

# apt_install PACKAGE...: for what a bare Debian machine lacks.
apt_install() {
  if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    die "missing here: $*. Install it (on Debian: sudo apt-get install $*)"
  fi
  say "installing $* from the distribution's packages"
  # Another one may be at it, such as the machine's own upgrades.
  apt-get -o DPkg::Lock::Timeout=300 update -q
  # Run level 1: the packages' own scripts start no service.
  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -qy --no-install-recommends "$@"
}

kube() { kubectl --context "$context" "$@"; }
