#!/usr/bin/env bash
# `make test-compare`: the comparison's arithmetic by hand, then a run
# of it over few arms, which says nothing about speed: only that every part works.
# HEARTH_BINARY=PATH LOADTEST_BINARY=PATH: those instead of ones built now.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

hearth=${HEARTH_BINARY:-} loadtest=${LOADTEST_BINARY:-}
if [[ -z $hearth || -z $loadtest ]]; then
  cargo build --quiet --bin hearth --bin loadtest
  built=${CARGO_TARGET_DIR:-$PWD/target}/debug
  hearth=${hearth:-$built/hearth} loadtest=${loadtest:-$built/loadtest}
fi
loadtest/compare/setup.sh
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hearth
export PYTHONPATH=$PWD/loadtest:$PWD/loadtest/compare PYTHONDONTWRITEBYTECODE=1
HEARTH_BINARY=$hearth LOADTEST_BINARY=$loadtest exec "$cache/compare/bin/python" \
  -m unittest discover --verbose --start-directory loadtest/compare/tests
