#!/usr/bin/env bash
# Runs the tests, then the benchmarks, of the bundle that this lies in. Copied there by scripts/gpu-test.
#   run [--tests | --benchmarks]
set -uo pipefail
cd "$(dirname "$0")" || exit 1

# CUDA's own libraries: the toolkit's, or those of Python packages.
libraries=/usr/local/cuda/lib64
for folder in $(python3 -c 'import nvidia, os; print(*[os.path.join(p, d, "lib") for p in nvidia.__path__ for d in os.listdir(p)])' 2>/dev/null); do
  libraries+=:$folder
done
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

export LAMINA_FIXTURES_DIR=$PWD/fixtures LAMINA_SHARED_DIR=$PWD/shared
failed=()
if [ "${1:-}" != --benchmarks ]; then
  for program in bin/*_test bin/*_check; do
    "$program" >"$program.log" 2>&1
    status=$?
    [ $status = 0 ] || [ $status = 77 ] || { failed+=("$program"); grep -E 'Failure|FAILED|expected|error' "$program.log" | head -40; }
    printf '%-40s %s\n' "$program" "$(tail -n 1 "$program.log")"
  done
fi
if [ "${1:-}" != --tests ]; then
  for program in bin/lamina_bench_*; do "$program" || failed+=("$program"); done
  # A peer, where PyTorch is there.
  if python3 -c 'import torch' 2>/dev/null; then python3 bench/sdpa.py 2>/dev/null; fi
fi
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
