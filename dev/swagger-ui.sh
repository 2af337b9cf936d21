#!/bin/bash
# Renews the files of the page at /api/docs from the npm package swagger-ui-dist.
# Usage: dev/swagger-ui.sh [VERSION]
set -euo pipefail
. "$(dirname "$0")/lib.sh"
version=${1:-5.35.0}
files=$root/api-server/src/docs/swagger-ui

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# npm checks the package against the registry's digest.
archive=$(cd "$work" && npm pack --silent "swagger-ui-dist@$version")
tar -xzf "$work/$archive" -C "$work" --strip-components=1

# -n: the same content makes the same file.
compress() { gzip -9 -n -c "$1" >"$files/$(basename "$1").gz"; }
for file in swagger-ui-bundle.js swagger-ui.css; do compress "$work/$file"; done
cp "$work/favicon-32x32.png" "$work/LICENSE" "$work/NOTICE" "$files/"
echo "$version" >"$files/VERSION"
