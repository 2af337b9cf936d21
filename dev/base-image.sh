#!/bin/bash
# Makes debian:trixie-slim available to `docker build`: pulled, or made from Debian's packages where none can be pulled.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
image=debian:trixie-slim

if has_image "$image" || pull "$image"; then exit; fi
say "no image registry answers: making $image from Debian's packages (1 min)"
"$root/dev/debian-rootfs.sh" trixie ca-certificates "$cache/trixie.tar"
docker import "$cache/trixie.tar" "$image"
rm "$cache/trixie.tar"
