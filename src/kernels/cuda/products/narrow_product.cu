#include <algorithm>
#include <type_traits>

#include "kernels/cuda/card.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/products/narrow_product.h"
#include "kernels/cuda/products/narrow_product_loader.cuh"
#include "kernels/cuda/products/narrow_product_multiplier.cuh"

namespace lamina::kernels::cuda {
namespace {

template <typename Traits>
__global__ void __launch_bounds__(kNarrowThreads, 2)
    narrow_product_kernel(const __grid_constant__ NarrowParams params) {
  extern __shared__ __align__(kBoxAlignment) unsigned char shared_bytes[];
  auto& shared = *reinterpret_cast<NarrowShared<Traits>*>(shared_bytes);
  if (threadIdx.x == 0) shared.init_barriers(params.num_stages);
  __syncthreads();
  if (threadIdx.x / 32 < kNarrowWarps) {
    NarrowMultiplier<Traits>(params, shared).run();
  } else {
    NarrowLoader<Traits>(params, shared).run();
  }
}

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// How a kernel runs on a card: found out at its first launch there.
struct Plan {
  int num_blocks = 0;
  int num_stages = 0;
  int shared_bytes = 0;
  bool copies_boxes = false;  // by tensor maps
};

// From Hopper on a block takes the whole of a multiprocessor's shared memory; before, where copies
// cost more, two share it.
template <typename Traits>
cudaError_t make_plan(const Card& card, Plan& plan) {
  constexpr int kHeadBytes = static_cast<int>(sizeof(NarrowShared<Traits>));
  constexpr int kReservedBytes = 1024;  // the system's, of each block
  constexpr int kFewestStages = 2;
  const auto stages_of = [&](int blocks_per_sm) {
    const int room =
        std::min(card.block_shared_bytes, card.sm_shared_bytes / blocks_per_sm - kReservedBytes);
    return std::min(kMaxNarrowStages, (room - kHeadBytes) / Traits::kStageBytes);
  };
  const bool shares = !card.is_hopper && stages_of(2) >= kFewestStages;
  plan.num_stages = stages_of(shares ? 2 : 1);
  if (plan.num_stages < kFewestStages) return cudaErrorInvalidConfiguration;
  plan.copies_boxes = card.is_hopper;
  plan.num_blocks = card.num_sms * (shares ? 2 : 1);
  plan.shared_bytes = kHeadBytes + plan.num_stages * Traits::kStageBytes;
  return cudaFuncSetAttribute(narrow_product_kernel<Traits>,
                              cudaFuncAttributeMaxDynamicSharedMemorySize,
                              plan.shared_bytes);
}

// The driver's encoder of tensor maps, by way of the runtime: nothing links the driver. Null where
// it has none.
using EncodeTensorMap = decltype(&cuTensorMapEncodeTiled);
EncodeTensorMap find_encoder() {
  constexpr unsigned kSinceVersion = 12000;
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result{};
  const cudaError_t error = cudaGetDriverEntryPointByVersion(
      "cuTensorMapEncodeTiled", &found, kSinceVersion, cudaEnableDefault, &result);
  if (error != cudaSuccess || result != cudaDriverEntryPointSuccess) return nullptr;
  return reinterpret_cast<EncodeTensorMap>(found);
}

struct Matrix {
  const void* data;
  int64_t num_rows;
  int64_t num_columns;
  int64_t stride;  // elements
};

// Boxes of `box_rows` rows, in shared memory as narrow_product_shared.cuh has them.
template <typename Element>
cudaError_t make_map(const Matrix& matrix, int box_rows, CUtensorMap& map) {
  static const EncodeTensorMap encode = find_encoder();
  if (encode == nullptr) return cudaErrorNotSupported;
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(matrix.num_columns),
                              static_cast<cuuint64_t>(matrix.num_rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(matrix.stride) * sizeof(Element)};
  const cuuint32_t box[] = {kBoxColumns, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[] = {1, 1};
  const CUresult result = encode(&map,
                                 std::is_same_v<Element, __half> ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                                                 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                                 2,
                                 const_cast<void*>(matrix.data),
                                 sizes,
                                 strides,
                                 box,
                                 steps,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE,
                                 CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

template <typename Traits>
cudaError_t make_maps(NarrowParams& params) {
  using Element = typename Traits::Element;
  const NarrowProduct& product = params.product;
  // A single row has a stride that says nothing.
  const int64_t weight_stride = product.width == 1 ? product.depth : product.weight_stride;
  const Matrix weight = {product.weight, product.width, product.depth, weight_stride};
  const int64_t x_stride = product.num_tokens == 1 ? product.depth : product.x_stride;
  const Matrix x = {product.x, product.num_tokens, product.depth, x_stride};
  const cudaError_t error = make_map<Element>(weight, Traits::kTileRows, params.weight_map);
  return error == cudaSuccess ? make_map<Element>(x, Traits::kTokens, params.x_map) : error;
}

template <typename Traits>
cudaError_t launch_with(const NarrowProduct& product, cudaStream_t stream) {
  static OfDevices<Plan> plans;
  Plan plan;
  cudaError_t error = plans.find(make_plan<Traits>, plan);
  if (error != cudaSuccess) return error;
  const auto num_tiles = static_cast<int32_t>(ceil_div(product.width, Traits::kTileRows));
  NarrowParams params = {
      .weight_map = {},
      .x_map = {},
      .product = product,
      .num_tiles = num_tiles,
      .num_chunks = static_cast<int32_t>(ceil_div(product.depth, Traits::kChunk)),
      .num_stages = plan.num_stages};
  if (plan.copies_boxes) error = make_maps<Traits>(params);
  if (error != cudaSuccess) return error;
  const Launch how = {dim3(static_cast<unsigned>(std::min(plan.num_blocks, num_tiles))),
                      dim3(kNarrowThreads),
                      stream,
                      plan.shared_bytes};
  return launch(narrow_product_kernel<Traits>, how, params);
}

// The groups of rows, of a tile, with which a product takes the least time: multiprocessors are
// idle while the last tiles are multiplied, and every tile reads x.
constexpr int kMostTokensOfOneGroup = 32;
int pick_row_groups(int64_t width, int num_tokens, int num_sms) {
  constexpr double kInputCost = 0.2;  // of a byte from the L2 cache, beside one from memory
  const auto cost_of = [&](int groups) {
    const int rows = groups * kWarpRows;
    const int64_t rounds = ceil_div(ceil_div(width, rows), num_sms);
    return static_cast<double>(rounds * rows) * (1.0 + kInputCost * num_tokens / rows);
  };
  const int best = cost_of(2) < cost_of(4) ? 2 : 4;
  return num_tokens <= kMostTokensOfOneGroup && cost_of(1) < cost_of(best) ? 1 : best;
}

cudaError_t count_sms(int& num_sms) {
  static OfDevices<int> sms;
  const auto count = [](const Card& card, int& sms_of_card) {
    sms_of_card = card.num_sms;
    return cudaSuccess;
  };
  return sms.find(count, num_sms);
}

template <typename Element, int kTokens>
cudaError_t launch_tokens(const NarrowProduct& product, cudaStream_t stream) {
  int num_sms = 0;
  const cudaError_t error = count_sms(num_sms);
  if (error != cudaSuccess) return error;
  const int groups = pick_row_groups(product.width, kTokens, num_sms);
  if constexpr (kTokens <= kMostTokensOfOneGroup) {
    if (groups == 1) return launch_with<NarrowTraits<Element, kTokens, 1>>(product, stream);
  }
  return groups == 4 ? launch_with<NarrowTraits<Element, kTokens, 4>>(product, stream)
                     : launch_with<NarrowTraits<Element, kTokens, 2>>(product, stream);
}

template <typename Element>
cudaError_t launch_for(const NarrowProduct& product, cudaStream_t stream) {
  if (product.num_tokens <= 8) return launch_tokens<Element, 8>(product, stream);
  if (product.num_tokens <= 16) return launch_tokens<Element, 16>(product, stream);
  if (product.num_tokens <= 32) return launch_tokens<Element, 32>(product, stream);
  return launch_tokens<Element, 64>(product, stream);
}

bool has_aligned_rows(const void* data, int64_t num_rows, int64_t stride) {
  constexpr int64_t kRowElements = 8;  // 16 bytes
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 &&
         (num_rows == 1 || stride % kRowElements == 0);
}

}  // namespace

bool takes_narrow_product(const NarrowProduct& product) {
  constexpr int64_t kMostRows = INT32_MAX / 2;
  return product.element != ElementKind::kF32 &&
         (product.out_element == product.element || product.out_element == ElementKind::kF32) &&
         product.num_tokens >= 1 && product.num_tokens <= kMaxNarrowTokens && product.width >= 1 &&
         product.width < kMostRows && product.depth >= 8 && product.depth < kMostRows &&
         product.depth % 8 == 0 &&
         has_aligned_rows(product.x, product.num_tokens, product.x_stride) &&
         has_aligned_rows(product.weight, product.width, product.weight_stride);
}

// With more rows the copies of x cost so much that multiprocessors must not be idle besides.
bool is_fast_as_narrow(const NarrowProduct& product) {
  constexpr int kAlwaysFastTokens = 32;
  constexpr double kLeastBusy = 0.9;
  int num_sms = 0;
  if (product.num_tokens <= kAlwaysFastTokens || count_sms(num_sms) != cudaSuccess) return true;
  const int rows = pick_row_groups(product.width, kMaxNarrowTokens, num_sms) * kWarpRows;
  const int64_t rounds = ceil_div(ceil_div(product.width, rows), num_sms);
  return static_cast<double>(product.width) >=
         kLeastBusy * static_cast<double>(rounds * rows * num_sms);
}

cudaError_t launch_narrow_product(const NarrowProduct& product, cudaStream_t stream) {
  if (!takes_narrow_product(product)) return cudaErrorInvalidValue;
  switch (product.element) {
    case ElementKind::kBF16:
      return launch_for<__nv_bfloat16>(product, stream);
    case ElementKind::kF16:
      return launch_for<__half>(product, stream);
    case ElementKind::kF32:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace lamina::kernels::cuda
