#!/bin/bash
# Finds the tools, or builds them into $cache/bin where they are missing or too old.
# Usage: tools.sh [NAME...]  (kind and kubectl without a name; helm is for `make test` alone)
set -euo pipefail
. "$(dirname "$0")/lib.sh"
kind_minor=33
helm_major=4
kubernetes_minor=$(cut -d. -f2 <<<"$kubernetes")
[ $# -gt 0 ] || set -- kind kubectl

minor() { grep -oP 'v?\d+\.\K\d+' | head -1; }

# A kubectl works with API servers one minor version older or newer.
fits_kubectl() {
  local minor
  minor=$(kubectl version --client 2>/dev/null | minor) && ((minor >= kubernetes_minor - 1 && minor <= kubernetes_minor + 1))
}

fits_kind() {
  local minor
  minor=$(kind version 2>/dev/null | minor) && ((minor >= kind_minor))
}

# Helm 4 takes over what another tool has applied.
fits_helm() {
  local major
  major=$(helm version --short 2>/dev/null | grep -oP '^v\K\d+') && ((major >= helm_major))
}

# build TOOL MODULE PACKAGE USUAL [LDFLAGS]
build() {
  command -v go >/dev/null || die "$1 is missing or too old, and there is no Go to build it: install $1 (kind ≥ 0.$kind_minor, kubectl ≥ 1.$((kubernetes_minor - 1)), helm ≥ $helm_major)"
  say "building $1 ($4)"
  (cd "$root/dev/$2" && CGO_ENABLED=0 go build -trimpath -ldflags "${5:--s -w}" -o "$cache/bin/$1.new" "$3")
  mv "$cache/bin/$1.new" "$cache/bin/$1"
}

build_kind() { build kind node-image/kind sigs.k8s.io/kind "20 s"; }
build_kubectl() {
  build kubectl node-image/kubernetes k8s.io/kubernetes/cmd/kubectl "2 min" \
    "-s -w -X k8s.io/component-base/version.gitVersion=$kubernetes -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$kubernetes_minor"
}
build_helm() { build helm helm helm.sh/helm/v4/cmd/helm "2 min"; }

for tool; do "fits_$tool" || "build_$tool"; done
