#!/usr/bin/env bash
# `make demo`: sees that the machine can build Hearth, builds it, runs `hearth demo`.
# ONCE=1 ends after the job, exit 0 only if the job's gates hold.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'demo: %s\n' "$*" >&2; }

command -v cargo >/dev/null || {
  say 'missing: cargo. Install a stable Rust toolchain (1.95 or newer), then run this again.'
  exit 1
}

# Pingora builds zlib-ng, which needs a C compiler, cmake and make.
missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v cmake >/dev/null || missing+=(cmake)
command -v make >/dev/null || missing+=(make)
if ((${#missing[@]})); then
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    say "missing: ${missing[*]}. You are root, so this installs them now: apt-get update, then"
    say "  apt-get install ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    say "missing: ${missing[*]} (a C compiler and cmake are needed to build Pingora's zlib-ng)."
    say 'Install them with your package manager, then run this again.'
    exit 1
  fi
fi

target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
[[ -x $target/debug/hearth ]] ||
  say 'the first build takes 4 to 8 minutes on two cores, later ones seconds'

# As `make test` builds it, by way of a test that runs the program: `cargo run` would compile most
# dependencies once more, since the tests' own ask for more of their features. What the demo shows is
# whom requests go to, not how fast a gateway is.
cargo build --workspace --test cli
exec "$target/debug/hearth" demo ${ONCE:+--once}
