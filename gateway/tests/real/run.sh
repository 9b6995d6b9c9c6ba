#!/usr/bin/env bash
# `make test-real`: installs what is missing, builds Hearth, runs the suite.
# usage: run.sh [CHECK...]     only the checks whose names contain one of these words
# HEARTH_BINARY=PATH: that binary instead of one built now.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

./setup.sh
binary=${HEARTH_BINARY:-}
if [[ -z $binary ]]; then
  (cd ../../.. && cargo build --bin hearth)
  binary=${CARGO_TARGET_DIR:-$(cd ../../.. && pwd)/target}/debug/hearth
fi
real=${XDG_CACHE_HOME:-$HOME/.cache}/hearth/real
exec "$real/clients/bin/python" main.py --hearth "$binary" "$@"
