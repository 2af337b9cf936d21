#!/bin/bash
# Makes debian:trixie-slim available to `docker build`: pulled, or made from Debian's packages where none can be pulled.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
image=debian:trixie-slim

# Excluded as in the published image: what a container never reads.
exclude() {
  local path
  for path in man doc groff info lintian linda locale; do printf -- '--dpkgopt=path-exclude=/usr/share/%s/*\n' "$path"; done
  printf -- '--dpkgopt=path-include=/usr/share/doc/*/copyright\n'
}

make_image() {
  command -v mmdebstrap >/dev/null || apt_install mmdebstrap
  local options tar=$cache/base-image.tar
  mapfile -t options < <(exclude)
  mmdebstrap --quiet --variant=minbase --include=ca-certificates "${options[@]}" trixie "$tar" \
    'deb http://deb.debian.org/debian trixie main' \
    'deb http://deb.debian.org/debian trixie-updates main' \
    'deb http://deb.debian.org/debian-security trixie-security main'
  docker import "$tar" "$image"
  rm "$tar"
}

if has_image "$image"; then exit; fi
if pull "$image"; then exit; fi
say "no image registry answers: making $image from Debian's packages (1 min)"
make_image
