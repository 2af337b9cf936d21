#!/bin/bash
# Makes the root file system of a Debian release from its packages, without what a container never reads.
# Usage: debian-rootfs.sh RELEASE PACKAGE,PACKAGE… TAR
set -euo pipefail
. "$(dirname "$0")/lib.sh"
release=$1 packages=$2 tar=$3

command -v mmdebstrap >/dev/null || apt_install mmdebstrap
options=(--dpkgopt=path-include=/usr/share/doc/*/copyright)
for folder in man doc groff info lintian linda locale; do options=("--dpkgopt=path-exclude=/usr/share/$folder/*" "${options[@]}"); done
mmdebstrap --quiet --format=tar --variant=minbase --include="$packages" "${options[@]}" "$release" "$tar.new" \
  "deb http://deb.debian.org/debian $release main" \
  "deb http://deb.debian.org/debian $release-updates main" \
  "deb http://deb.debian.org/debian-security $release-security main"
mv "$tar.new" "$tar"
