#!/usr/bin/env bash
# Runs the tests, then the benchmarks, of the bundle that this lies in; prints a line a test and one table. Copied there by
# scripts/gpu-test. What each program says is in logs/.
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
mkdir -p logs
failed=()

# told NAME STATUS: a line for a test that has ended.
told() {
  [ "$2" = 0 ] || [ "$2" = 77 ] || { failed+=("$1"); grep -E 'Failure|FAILED|expected|error' "logs/$1.log" | head -40; }
  printf '%-32s %s\n' "$1" "$(grep -v '^$' "logs/$1.log" | tail -n 1)"
}

# All at once: most of their time is the CPU's, which computes what the GPU's results are compared with. But for those
# whose kernels wait for each other, and would keep the others waiting.
run_tests() {
  local alone=" lamina_transport_gpu_test lamina_nccl_gpu_test " names=() pids=() program i
  for program in bin/*_test bin/*_check; do
    [[ $alone == *" ${program##*/} "* ]] || names+=("${program##*/}")
  done
  for i in "${!names[@]}"; do
    "bin/${names[i]}" >"logs/${names[i]}.log" 2>&1 &
    pids[i]=$!
  done
  for i in "${!names[@]}"; do
    wait "${pids[i]}"
    told "${names[i]}" $?
  done
  for program in $alone; do
    [ -x "bin/$program" ] || continue
    "bin/$program" >"logs/$program.log" 2>&1
    told "$program" $?
  done
}

# measure NAME COMMAND...: one after the other, with the card to itself.
measure() {
  local name=$1
  shift
  "$@" >"logs/$name.log" 2>&1 || { failed+=("$name"); tail -n 5 "logs/$name.log"; }
}

run_benchmarks() {
  measure attention bin/lamina_bench_cuda_attention heads
  measure latent bin/lamina_bench_cuda_attention latent
  measure codes bin/lamina_bench_cuda_attention codes
  measure product bin/lamina_bench_cuda_product
  measure slice bin/lamina_bench_cuda_slice
  measure model bin/lamina_bench_cuda_model
  measure pool bin/lamina_bench_cuda_pool
  measure transport bin/lamina bench transport
  # A peer, where PyTorch is there.
  if python3 -c 'import torch' 2>/dev/null; then measure sdpa python3 bench/sdpa.py; fi
  python3 gpu_table.py logs
}

[ "${1:-}" = --benchmarks ] || run_tests
[ "${1:-}" = --tests ] || run_benchmarks
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
