#!/bin/bash
# Makes a node image for kind available and writes its name to $cache/node-image.name: kind's own, pulled, or one built here
# where no registry answers.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
stock=kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5
built=taskplatform/node:$(digest "$root/dev/node-image" "$root/dev/debian-rootfs.sh")
tar=$cache/node-image-${built##*:}.tar

use() {
  echo "$1" >"$cache/node-image.name"
  exit
}

for image in "$stock" "$built"; do has_image "$image" && use "$image"; done
if [ -f "$tar" ]; then
  say "loading the node image from $tar"
  docker load -q -i "$tar" && use "$built"
fi
pull "$stock" && use "$stock"
say "no image registry answers: building the node image from source (20 min; 2 min when its parts are cached)"
"$root/dev/node-image/build.sh" "$built"
rm -f "$cache"/node-image-*.tar
docker save -o "$tar.new" "$built" && mv "$tar.new" "$tar"
use "$built"
