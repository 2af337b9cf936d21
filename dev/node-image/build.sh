#!/bin/bash
# Builds a node image for kind, the work of `kind build node-image`, from Go modules and Debian packages alone.
# Usage: build.sh IMAGE
set -euo pipefail
. "$(dirname "$0")/../lib.sh"
image=$1
here=$root/dev/node-image
work=$cache/node-image/${image##*:}
bin=$work/bin
metrics_server=registry.k8s.io/metrics-server/metrics-server:v0.9.0
kube_router=docker.io/cloudnativelabs/kube-router:v2.1.0
builder=node-image-build
export CGO_ENABLED=0

# go_build MODULE PACKAGE USUAL [LDFLAGS [TAGS [NAME]]]
go_build() {
  local name=${6:-$(basename "$2")}
  [ ! -x "$bin/$name" ] || return 0
  say "$name ($3)"
  (cd "$here/$1" && go build -trimpath -ldflags "${4:--s -w}" ${5:+-tags "$5"} -o "$bin/$name.new" "$2")
  mv "$bin/$name.new" "$bin/$name"
}

binaries() {
  local version="-s -w -X k8s.io/component-base/version.gitVersion=$kubernetes"
  version+=" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<<"$kubernetes")"
  local containerd="-s -w -X github.com/containerd/containerd/v2/version.Version=v2.4.2" name
  go_build kubernetes k8s.io/kubernetes/cmd/kube-apiserver "6 min" "$version"
  for name in kube-controller-manager kube-scheduler kube-proxy kubelet kubeadm kubectl; do
    go_build kubernetes "k8s.io/kubernetes/cmd/$name" "1 min" "$version"
  done
  go_build kubernetes go.etcd.io/etcd/server/v3 "20 s" "-s -w" "" etcd
  for name in containerd containerd-shim-runc-v2 ctr; do
    go_build containerd "github.com/containerd/containerd/v2/cmd/$name" "1 min" "$containerd" "no_btrfs no_devmapper no_zfs"
  done
  for name in ipam/host-local main/loopback main/ptp meta/portmap; do
    go_build containerd "github.com/containernetworking/plugins/plugins/$name" "10 s"
  done
  go_build coredns . "1 min" "-s -w" "" coredns
  go_build provisioner github.com/rancher/local-path-provisioner "1 min"
  go_build metrics-server sigs.k8s.io/metrics-server/cmd/metrics-server "2 min"
  go_build kube-router github.com/cloudnativelabs/kube-router/v2/cmd/kube-router "2 min"
}

# binary_image IMAGE PATH: one static binary and nothing else.
binary_image() {
  local name
  name=$(basename "$2")
  printf 'FROM scratch\nCOPY %s %s\nENV PATH=/usr/local/bin\nENTRYPOINT ["%s"]\n' "$name" "$2" "$2" >"$work/Dockerfile.$name"
  tar -cC "$work" "Dockerfile.$name" -C "$bin" "$name" | docker build -q -t "$1" -f "Dockerfile.$name" -
}

# node_tools_image IMAGE BINARY…: binaries that call the node's own programs, such as iptables.
node_tools_image() {
  local image=$1
  shift
  printf 'FROM node-rootfs\nCOPY %s /usr/local/bin/\n' "$*" >"$work/Dockerfile.$1"
  tar -cC "$work" "Dockerfile.$1" -C "$bin" "$@" | docker build -q -t "$image" -f "Dockerfile.$1" -
}

# constant NAME: the value of a constant in kind's source.
constant() { grep -oP "const $1 = \"\K[^\"]+" "$storage_source"; }

# The images that kubeadm and kind expect on a node. Prints their names.
node_images() {
  local images name storage helper
  images=$("$bin/kubeadm" config images list --kubernetes-version "$kubernetes" 2>/dev/null)
  storage=$(constant storageProvisionerImage)
  helper=$(constant storageHelperImage)
  tag() { grep "/$1:" <<<"$images"; }
  {
    for name in kube-apiserver kube-controller-manager kube-scheduler etcd; do binary_image "$(tag "$name")" "/usr/local/bin/$name"; done
    binary_image "$(tag coredns)" /coredns
    binary_image "$storage" /usr/local/bin/local-path-provisioner
    binary_image "$metrics_server" /metrics-server
    gcc -Os -static -s -o "$bin/pause" "$here/pause.c"
    binary_image "$(tag pause)" /pause
    docker tag "$(tag pause)" registry.k8s.io/pause:3.10 # the name in kind's containerd configuration
    node_tools_image "$(tag kube-proxy)" kube-proxy kubectl
    node_tools_image "$kube_router" kube-router
    docker tag node-rootfs "$helper"
  } >&2
  printf '%s\n' "$images" registry.k8s.io/pause:3.10 "$storage" "$helper" "$metrics_server" "$kube_router"
}

# kind's own manifest of the storage class, out of its source.
# shellcheck disable=SC2016 # the backquotes are Go's
storage_manifest() {
  local name expressions=()
  for name in storageProvisionerImage storageHelperImage; do
    expressions+=(-e "s#\` + $name + \`#$(constant "$name")#")
  done
  sed -n '/^const defaultStorageManifest = `/,/^`$/p' "$storage_source" | sed -e '1s/.*`//' -e '/^`$/d' "${expressions[@]}"
}

# Everything of the node but the images that it holds.
base() {
  local context=$work/context
  rm -rf "$context"
  mkdir -p "$context"/{runtime,cni,kube,manifests}
  cp -r "$kind/images/base/files" "$context/files"
  chmod -R u+w "$context"
  cp "$bin"/{containerd,containerd-shim-runc-v2,ctr} "$context/runtime/"
  cp "$bin"/{host-local,loopback,ptp,portmap} "$context/cni/"
  cp "$bin"/{kubeadm,kubelet,kubectl} "$context/kube/"
  sed -e "s/KUBERNETES_VERSION/$kubernetes/" -e "s#KUBE_ROUTER_IMAGE#$kube_router#" "$here/cni.yaml" >"$context/manifests/default-cni.yaml"
  storage_manifest >"$context/manifests/default-storage.yaml"
  docker build -q -t node-base --build-arg "KUBERNETES_VERSION=$kubernetes" -f "$here/Dockerfile" "$context"
}

# fill IMAGE…: containerd, in a container of the base, imports the images; that container becomes the node image.
fill() {
  docker rm -f "$builder" >/dev/null 2>&1 || true
  docker run -d --name "$builder" --privileged --entrypoint sleep node-base infinity
  docker exec -d "$builder" containerd -l error
  until docker exec "$builder" ctr version >/dev/null 2>&1; do sleep 0.5; done
  docker save "$@" | docker exec -i "$builder" ctr -n k8s.io images import --all-platforms --no-unpack --digests -
  docker exec "$builder" pkill -x containerd
  while docker exec "$builder" pgrep -x containerd; do sleep 0.2; done
  docker commit --change 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' "$builder" "$image"
  docker rm -f "$builder"
}

command -v go >/dev/null || die "Go is needed to build the node image: see https://go.dev/doc/install"
command -v gcc >/dev/null || apt_install gcc libc6-dev
mkdir -p "$bin"
binaries
kind=$(cd "$here/kind" && go mod download && go list -m -f '{{.Dir}}' sigs.k8s.io/kind)
storage_source=$kind/pkg/build/nodeimage/const_storage.go
say "the node's root file system (1 min)"
# bookworm: its systemd (252) still boots on cgroup v1; from 256 on, systemd refuses it.
"$root/dev/debian-rootfs.sh" bookworm systemd,conntrack,iptables,ipset,iproute2,ethtool,util-linux,mount,kmod,libseccomp2,e2fsprogs,bash,ca-certificates,curl,jq,procps,runc,pigz "$work/rootfs.tar"
docker import "$work/rootfs.tar" node-rootfs
say "the images that it holds (1 min)"
mapfile -t images < <(node_images)
base
fill "${images[@]}"
docker image rm node-base node-rootfs "${images[@]}" >/dev/null
rm -rf "$work"
