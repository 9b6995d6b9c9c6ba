#!/usr/bin/env bash
# `make compare`: installs what is missing, then measures every router beside each other.
# usage: run.sh [OPTION...]    (main.py's; QUICK=1 in the environment: minutes instead of an hour)
# HEARTH_BINARY=PATH LOADTEST_BINARY=PATH: those instead of ones built now.
# EPP_BIN=PATH AGW_BIN=PATH: an Endpoint Picker, an agentgateway. OUT=FOLDER: where the results go.
# BENCHMARKS=1: writes the generated section of loadtest/BENCHMARKS.md too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

loadtest/compare/setup.sh
hearth=${HEARTH_BINARY:-} loadtest=${LOADTEST_BINARY:-}
if [[ -z $hearth || -z $loadtest ]]; then
  cargo build --release --package gateway --bin hearth --no-default-features
  cargo build --release --package loadtest --bin loadtest
  built=${CARGO_TARGET_DIR:-$PWD/target}/release
  hearth=${hearth:-$built/hearth} loadtest=${loadtest:-$built/loadtest}
fi
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hearth
envoy=$(echo "$cache"/envoy-1.40.0/lib/python3*/site-packages/envoy/_bin/envoy)
out=${OUT:-$cache/compare-results/$(date -u +%Y%m%d-%H%M%S)}
export PYTHONPATH=$PWD/loadtest PYTHONDONTWRITEBYTECODE=1
ulimit -n "$(ulimit -Hn)"
exec "$cache/compare/bin/python" loadtest/compare/main.py --envoy "$envoy" --hearth "$hearth" \
  --loadtest "$loadtest" --cache "$cache" --out "$out" ${QUICK:+--quick} \
  ${BENCHMARKS:+--benchmarks loadtest/BENCHMARKS.md} "$@"
