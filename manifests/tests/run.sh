#!/usr/bin/env bash
# `make test-kube`: builds what is missing, then drives Hearth with a real API server.
# usage: run.sh [CHECK...]     only the checks whose names contain one of these words
# HEARTH_BINARY=PATH LOADTEST_BINARY=PATH: those instead of ones built now.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

./setup.sh
hearth=${HEARTH_BINARY:-} loadtest=${LOADTEST_BINARY:-}
if [[ -z $hearth || -z $loadtest ]]; then
  (cd ../.. && cargo build --bin hearth --bin loadtest)
  built=${CARGO_TARGET_DIR:-$(cd ../.. && pwd)/target}/debug
  hearth=${hearth:-$built/hearth} loadtest=${loadtest:-$built/loadtest}
fi
kube=${XDG_CACHE_HOME:-$HOME/.cache}/hearth/kube
# The processes and the checks' loop are the real suite's.
export PYTHONPATH=$PWD/../../gateway/tests/real PYTHONDONTWRITEBYTECODE=1
exec "$kube/python/bin/python" main.py --hearth "$hearth" --loadtest "$loadtest" "$@"
