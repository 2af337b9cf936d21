#!/bin/bash
# Makes the root file system of a Debian release from its packages, without what a container never reads.
# Usage: debian-rootfs.sh RELEASE PACKAGE,PACKAGE… TAR
set -euo pipefail
. "$(dirname "$0")/lib.sh"
release=$1 packages=$2 tar=$3

command -v mmdebstrap >/dev/null || apt_install mmdebstrap
options=(--dpkgopt=path-include=/usr/share/doc/*/copyright)
for folder in man doc groff info lintian linda locale; do options=("--dpkgopt=path-exclude=/usr/share/$folder/*" "${options[@]}"); done

# The mirrors that a Debian host uses itself; elsewhere, or where they are called otherwise, mmdebstrap's own.
# shellcheck disable=SC2016 # apt expands it
mirror() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m1 "/$1/\$" || true; }
debian=$(mirror debian) security=$(mirror debian-security) sources=()
[ -z "$debian" ] || sources=("deb $debian $release main" "deb $debian $release-updates main")
[ -z "$debian" ] || [ -z "$security" ] || sources+=("deb $security $release-security main")

mmdebstrap --quiet --format=tar --variant=minbase --include="$packages" "${options[@]}" "$release" "$tar.new" "${sources[@]}"
mv "$tar.new" "$tar"
