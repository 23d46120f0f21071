#include "card_reads.h"
#include "kernels/cuda/testing/measure.cuh"

namespace lamina::bench {

double measure_card_reads() {
  int device = 0;
  cudaDeviceProp card{};
  LAMINA_REQUIRE_CUDA(cudaGetDevice(&device));
  LAMINA_REQUIRE_CUDA(cudaGetDeviceProperties(&card, device));
  return kernels::cuda::testing::measure_read(card.multiProcessorCount);
}

}  // namespace lamina::bench
