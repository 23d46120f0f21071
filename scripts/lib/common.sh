# Shared by the scripts: messages, and installing what a bare Debian 12 lacks. Sourced, never run.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
# Clones in other folders share what was compiled before.
export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}
trap 'printf "error: %s failed at line %s: %s\n" "${BASH_SOURCE[0]##*/}" "$LINENO" "$BASH_COMMAND" >&2' ERR

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else
    command -v sudo >/dev/null || fail "needs root to install packages: run as root or install sudo"
    sudo "$@"
  fi
}

# Installs the Debian packages of scripts/lib/packages.txt that are missing; the ones of packages-dev.txt too with "dev".
install_packages() {
  local lists=(scripts/lib/packages.txt) wanted missing=() package
  [ "${1:-}" = dev ] && lists+=(scripts/lib/packages-dev.txt)
  wanted=$(sed 's/#.*//' "${lists[@]}" | tr -s ' \n' ' ')
  for package in $wanted; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return
  say "installing ${#missing[@]} Debian packages: ${missing[*]}"
  as_root apt-get update -qq || fail "apt-get update failed: is there a network?"
  # --no-remove: libboost1.81-dev conflicts with libboost1.74-dev; better to stop than to remove what others need.
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-remove \
    "${missing[@]}" >/dev/null ||
    fail "apt-get could not install: ${missing[*]} (another Boost version installed? remove libboost-dev first)"
}

# A Python environment with the packages of scripts/lib/requirements.txt; where CUDA is compiled, also those of
# requirements-cuda.txt.
install_python() {
  local stamp=.venv/.installed lists=(scripts/lib/requirements.txt) list wanted
  if [ -n "${CUDACXX:-}" ] || command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
    lists+=(scripts/lib/requirements-cuda.txt)
  fi
  wanted=$(cat "${lists[@]}")
  if [ -f "$stamp" ] && [ "$wanted" = "$(cat "$stamp")" ]; then return; fi
  say "preparing the Python environment in .venv"
  # Debian's own Python, whose venv module is among the packages; another one on PATH may lack it.
  /usr/bin/python3 -m venv --clear .venv || fail "cannot make .venv: is python3-venv installed?"
  for list in "${lists[@]}"; do
    .venv/bin/pip install --quiet --disable-pip-version-check -r "$list" || fail "pip could not install $list"
  done
  echo "$wanted" >"$stamp"
}

# build PRESET [TARGET...]: configures and builds, quietly unless it fails. With targets named, tests are left out: they
# need more packages.
build() {
  local preset=$1 with_tests=ON
  shift
  [ $# -eq 0 ] || with_tests=OFF
  say "building ($preset)"
  cmake --preset "$preset" -DLAMINA_BUILD_TESTS="$with_tests" >"build-$preset.log" 2>&1 || {
    tail -n 30 "build-$preset.log" >&2
    fail "cmake --preset $preset failed; the whole log is in build-$preset.log"
  }
  local targets=()
  [ $# -gt 0 ] && targets=(--target "$@")
  cmake --build "build/$preset" "${targets[@]}" || fail "the build ($preset) failed"
  rm -f "build-$preset.log"
}
