#!/bin/bash
# Builds the images whose inputs changed and loads into the workers what they lack. The name of each image, tagged with a
# hash of its inputs, is written to $cache/images/NAME.
# Usage: images.sh [NAME...]  (all of images/ without a name)
set -euo pipefail
. "$(dirname "$0")/lib.sh"
names=("$@")
[ $# -gt 0 ] || names=(postgres pgbouncer redis gateway task-api operator)
mkdir -p "$cache/images"

# binary NAME: the Rust binary that the image holds, if any.
binary() {
  case $1 in
    task-api) echo task-api ;;
    operator) echo taskplatform-operator ;;
    pgbouncer) echo postgres-router ;;
  esac
}

# The binaries run on the image's glibc, so the one that they are linked with must not be newer.
check_glibc() {
  local here there=2.41
  here=$(ldd --version 2>/dev/null | grep -oP '\d+\.\d+$' | head -1) || die "the images' binaries are built on Linux with glibc: use a Linux host"
  [ "$(printf '%s\n' "$here" $there | sort -V | tail -1)" = $there ] ||
    die "glibc $here of this host is newer than the images' $there: build on Debian 13, Ubuntu 24.04 or older"
}

compile() {
  local name binaries=()
  for name in "${names[@]}"; do [ -z "$(binary "$name")" ] || binaries+=("--bin=$(binary "$name")"); done
  [ ${#binaries[@]} -gt 0 ] || return 0
  check_glibc
  say "compiling ${binaries[*]#--bin=} (1 min; 8 min with a cold cache)"
  # --workspace: the features of the dependencies are then those of `cargo test --workspace`, and one build serves both.
  cargo build --release --manifest-path "$root/Cargo.toml" --workspace "${binaries[@]}"
}

# inputs NAME: the files that the image is built from.
inputs() {
  printf '%s\n' "$root/images/collect" "$root/images/$1"
  [ -z "$(binary "$1")" ] || echo "$CARGO_TARGET_DIR/release/$(binary "$1")"
}

# build NAME: the image, if there is none of these inputs; older ones of its name go.
build() {
  local name=$1 binary image inputs old
  binary=$(binary "$name")
  mapfile -t inputs < <(inputs "$name")
  image=taskplatform/$name:$({ digest "${inputs[@]}"; docker image inspect -f '{{.Id}}' debian:trixie-slim; } | sha256sum | cut -c1-12)
  if ! has_image "$image"; then
    say "building $image"
    tar -cC "$root/images" collect "$name" ${binary:+-C "$CARGO_TARGET_DIR" "release/$binary"} | docker build -t "$image" -f "$name/Dockerfile" -
    for old in $(docker images -f "before=$image" -f "reference=taskplatform/$name" --format '{{.Repository}}:{{.Tag}}'); do docker image rm "$old" || true; done
  fi
  echo "$image" >"$cache/images/$name"
}

# load NODE IMAGE…
load() {
  local node=$1 image missing=() present
  shift
  present=$(docker exec "$node" ctr -n k8s.io images ls -q)
  for image; do grep -qx "docker.io/$image" <<<"$present" || missing+=("$image"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "loading ${missing[*]} into $node"
  docker save "${missing[@]}" | docker exec -i "$node" ctr -n k8s.io images import --digests --snapshotter overlayfs - >/dev/null
}

load_all() {
  local node image job images=() jobs=()
  for image in "${names[@]}"; do images+=("$(cat "$cache/images/$image")"); done
  for node in $(kind get nodes --name "$cluster" | grep -- -worker); do
    load "$node" "${images[@]}" &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job"; done
}

"$root/dev/base-image.sh"
compile
for name in "${names[@]}"; do build "$name"; done
load_all
