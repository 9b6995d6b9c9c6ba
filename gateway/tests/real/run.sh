#!/usr/bin/env bash
# `make test-real`: installs what is missing, builds Hearth, runs the suite.
# usage: run.sh [CHECK...]     only the checks whose names contain one of these words
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

./setup.sh
(cd ../../.. && cargo build --profile demo --package gateway --bin hearth)
target=${CARGO_TARGET_DIR:-$(cd ../../.. && pwd)/target}
real=${XDG_CACHE_HOME:-$HOME/.cache}/hearth/real
exec "$real/clients/bin/python" main.py --hearth "$target/demo/hearth" "$@"
