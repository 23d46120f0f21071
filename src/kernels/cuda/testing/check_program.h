// What programs share that check kernels against plain sums, case by case, with nothing but CUDA.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace lamina::kernels::cuda::testing {

struct CheckedCases {
  int every = 1;  // one of so many cases is run
  int num_seen = 0;
  int num_run = 0;
  int num_failed = 0;

  // Whether the next case is run.
  bool takes_next() {
    if (num_seen++ % every != 0) return false;
    ++num_run;
    return true;
  }
};
inline CheckedCases cases;

// main() of such a program: runs body(), which counts in `cases`. The first argument is `every`.
// Returns 77, which ctest takes for skipped, without a GPU, and 1 if a case failed.
template <typename Body>
int run_checks(int argc, char** argv, const char* what, const Body& body) {
  int num_devices = 0;
  if (cudaGetDeviceCount(&num_devices) != cudaSuccess || num_devices == 0) {
    std::printf("skipped: no GPU\n");
    return 77;
  }
  if (argc > 1) cases.every = std::max(1, std::atoi(argv[1]));
  body();
  std::printf("%d %s, %d failures\n", cases.num_run, what, cases.num_failed);
  return cases.num_failed == 0 ? 0 : 1;
}

}  // namespace lamina::kernels::cuda::testing
