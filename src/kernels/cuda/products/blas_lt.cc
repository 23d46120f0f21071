#include "kernels/cuda/products/blas_lt.h"

#include <cublasLt.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <optional>
#include <span>

#include "base/check.h"
#include "base/log.h"
#include "base/unique_handle.h"
#include "device/cuda/error.h"
#include "device/cuda/stream.h"
#include "kernels/cuda/workspace.h"

namespace lamina::kernels::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;
constexpr int kMaxCandidates = 8;

struct HandleTraits {
  using Raw = cublasLtHandle_t;
  static constexpr Raw kInvalid = nullptr;
  static void destroy(Raw raw) noexcept {
    if (cublasLtDestroy(raw) != CUBLAS_STATUS_SUCCESS) log_error("destroying a cuBLASLt handle");
  }
};
using Handle = UniqueHandle<HandleTraits>;

Status to_status(cublasStatus_t status, std::string_view what) {
  if (status == CUBLAS_STATUS_SUCCESS) return {};
  std::string message = fmt::format("{}: {}", what, cublasLtGetStatusString(status));
  return status == CUBLAS_STATUS_ALLOC_FAILED ? resource_exhausted(std::move(message))
                                              : internal_error(std::move(message));
}

// What an algorithm depends on: all of a product but its addresses, and how these are aligned.
using PlanKey = std::array<int64_t, 16>;

// The largest power of two up to 16 that divides the address.
uint32_t alignment_of(const void* pointer) {
  const auto address = reinterpret_cast<uintptr_t>(pointer) | 16U;
  return static_cast<uint32_t>(address & (~address + 1));
}

// What of an epilogue is read and written, together.
uint32_t out_alignment_of(const Product& product) {
  const uint32_t alignment = alignment_of(product.out);
  return product.bias == nullptr ? alignment : std::min(alignment, alignment_of(product.bias));
}

PlanKey key_of(const Product& product, StreamView stream) {
  return {stream.device().idx,
          static_cast<int64_t>(product.dtype),
          static_cast<int64_t>(product.out_dtype),
          (product.bias != nullptr ? 2 : 0) + (product.adds_to_out ? 1 : 0),
          product.num_rows,
          product.num_columns,
          product.depth,
          product.num_matrices,
          product.x_strides.row_stride,
          product.x_strides.matrix_stride,
          product.weight_strides.row_stride,
          product.weight_strides.matrix_stride,
          product.out_strides.row_stride,
          product.out_strides.matrix_stride,
          alignment_of(product.x) | alignment_of(product.weight) << 8,
          out_alignment_of(product)};
}

struct Plan {
  bool is_possible = false;  // or no algorithm takes the product
  cublasLtMatmulAlgo_t algorithm{};
};

// Handles and plans of the process. There are as many plans as shapes, which the limit of a step's
// tokens bounds.
class Library {
 public:
  // Makes the handle of the stream's device if there is none. That may wait for the device, and so
  // for what other threads enqueue on theirs: they are not held up.
  Result<cublasLtHandle_t> handle(StreamView stream) {
    const int32_t device = stream.device().idx;
    if (const cublasLtHandle_t found = find_handle(device)) return found;
    const lamina::cuda::DeviceGuard guard(stream.device());
    cublasLtHandle_t raw = nullptr;
    LAMINA_RETURN_IF_ERROR(to_status(cublasLtCreate(&raw), "creating a cuBLASLt handle"));
    Handle made(raw);
    const std::lock_guard lock(mutex_);
    Handle& handle = handles_[device];
    if (!handle) handle = std::move(made);
    return handle.get();
  }
  std::optional<Plan> find(const PlanKey& key) {
    const std::lock_guard lock(mutex_);
    const auto found = plans_.find(key);
    return found == plans_.end() ? std::nullopt : std::optional(found->second);
  }
  void set(const PlanKey& key, const Plan& plan) {
    const std::lock_guard lock(mutex_);
    plans_.insert_or_assign(key, plan);
  }

 private:
  // Null if there is none.
  cublasLtHandle_t find_handle(int32_t device) {
    const std::lock_guard lock(mutex_);
    const auto found = handles_.find(device);
    return found == handles_.end() ? nullptr : found->second.get();
  }

  std::mutex mutex_;
  std::map<int32_t, Handle> handles_;
  std::map<PlanKey, Plan> plans_;
};

// Never destroyed: the driver may be gone by the time that statics are.
Library& library() {
  static auto* const instance = new Library;
  return *instance;
}

cudaDataType_t data_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return CUDA_R_32F;
    case DType::kF16:
      return CUDA_R_16F;
    case DType::kBF16:
      return CUDA_R_16BF;
    case DType::kI32:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
      break;
  }
  LAMINA_CHECK(false, "a product of a dtype that is no float");
}

// Remembers the first failure of several calls.
class Steps {
 public:
  void then(cublasStatus_t status) {
    if (status_ == CUBLAS_STATUS_SUCCESS) status_ = status;
  }
  [[nodiscard]] cublasStatus_t status() const { return status_; }

 private:
  cublasStatus_t status_ = CUBLAS_STATUS_SUCCESS;
};

// A product in cuBLASLt's words, which hold no memory of their own. Its matrices are columns first:
// our row-major [R, C] is its [C, R], so out^T [N, T] = weight [N, K] x^T [K, T], and what it is
// given as weight is [K, N], to be transposed.
class Problem {
 public:
  explicit Problem(const Product& product) {
    steps_.then(cublasLtMatmulDescInit(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    set(CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_N);
    if (product.bias != nullptr) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, product.bias);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<int32_t>(data_type(product.out_dtype)));
    }
    const auto matrices = static_cast<int32_t>(product.num_matrices);
    const cudaDataType_t type = data_type(product.dtype);
    lay_out(weight_, type, {product.depth, product.num_columns}, matrices, product.weight_strides);
    lay_out(x_, type, {product.depth, product.num_rows}, matrices, product.x_strides);
    lay_out(out_,
            data_type(product.out_dtype),
            {product.num_columns, product.num_rows},
            matrices,
            product.out_strides);
  }

  [[nodiscard]] cublasStatus_t status() const { return steps_.status(); }

  // The algorithms that may do, the most promising first. Returns how many there are: none, too,
  // where cuBLASLt refuses to say.
  int find_candidates(const Product& product,
                      cublasLtHandle_t handle,
                      std::span<cublasLtMatmulHeuristicResult_t, kMaxCandidates> results) {
    cublasLtMatmulPreferenceOpaque_t preference{};
    Steps steps;
    steps.then(cublasLtMatmulPreferenceInit(&preference));
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      steps.then(
          cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof(value)));
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspaceBytes});
    // Parts of sums stay f32 until all are added.
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(product.weight));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(product.x));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out_alignment_of(product));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out_alignment_of(product));
    int count = 0;
    steps.then(cublasLtMatmulAlgoGetHeuristic(handle,
                                              &operation_,
                                              &weight_,
                                              &x_,
                                              &out_,
                                              &out_,
                                              &preference,
                                              kMaxCandidates,
                                              results.data(),
                                              &count));
    return steps.status() == CUBLAS_STATUS_SUCCESS ? count : 0;
  }

  cublasStatus_t run(const Product& product,
                     cublasLtHandle_t handle,
                     const cublasLtMatmulAlgo_t& algorithm,
                     std::byte* workspace,
                     StreamView stream) {
    const float one = 1.0F;
    const float old_factor = product.adds_to_out ? 1.0F : 0.0F;
    return cublasLtMatmul(handle,
                          &operation_,
                          &one,
                          product.weight,
                          &weight_,
                          product.x,
                          &x_,
                          &old_factor,
                          product.out,
                          &out_,
                          product.out,
                          &out_,
                          &algorithm,
                          workspace,
                          kWorkspaceBytes,
                          lamina::cuda::raw(stream));
  }

 private:
  struct Extents {
    int64_t inner = 0;
    int64_t outer = 0;
  };

  template <typename Value>
  void set(cublasLtMatmulDescAttributes_t attribute, Value value) {
    steps_.then(cublasLtMatmulDescSetAttribute(&operation_, attribute, &value, sizeof(value)));
  }
  void lay_out(cublasLtMatrixLayoutOpaque_t& layout,
               cudaDataType_t type,
               Extents extents,
               int32_t num_matrices,
               Strides strides) {
    steps_.then(cublasLtMatrixLayoutInit(&layout,
                                         type,
                                         static_cast<uint64_t>(extents.inner),
                                         static_cast<uint64_t>(extents.outer),
                                         strides.row_stride));
    if (num_matrices == 1) return;
    steps_.then(cublasLtMatrixLayoutSetAttribute(
        &layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &num_matrices, sizeof(num_matrices)));
    steps_.then(cublasLtMatrixLayoutSetAttribute(&layout,
                                                 CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                                 &strides.matrix_stride,
                                                 sizeof(strides.matrix_stride)));
  }

  Steps steps_;
  cublasLtMatmulDescOpaque_t operation_{};
  cublasLtMatrixLayoutOpaque_t weight_{};
  cublasLtMatrixLayoutOpaque_t x_{};
  cublasLtMatrixLayoutOpaque_t out_{};
};

Status unsupported(const Product& product) {
  return unimplemented(fmt::format("cuBLASLt multiplies no {} [{}, {}] by [{}, {}] into {}",
                                   dtype_name(product.dtype),
                                   product.num_rows,
                                   product.depth,
                                   product.num_columns,
                                   product.depth,
                                   dtype_name(product.out_dtype)));
}

}  // namespace

Status multiply(const Product& product, StreamView stream) {
  LAMINA_ASSIGN_OR_RETURN(const cublasLtHandle_t handle, library().handle(stream));
  LAMINA_ASSIGN_OR_RETURN(std::byte* const memory,
                          workspace(stream, WorkspaceUse::kProducts, kWorkspaceBytes));
  Problem problem(product);
  LAMINA_RETURN_IF_ERROR(to_status(problem.status(), "describing a product"));
  const PlanKey key = key_of(product, stream);
  if (const std::optional<Plan> plan = library().find(key)) {
    if (!plan->is_possible) return unsupported(product);
    return to_status(problem.run(product, handle, plan->algorithm, memory, stream), "a product");
  }
  std::array<cublasLtMatmulHeuristicResult_t, kMaxCandidates> candidates{};
  const int count = problem.find_candidates(product, handle, candidates);
  for (const cublasLtMatmulHeuristicResult_t& candidate :
       std::span(candidates).first(static_cast<size_t>(count))) {
    if (candidate.state != CUBLAS_STATUS_SUCCESS) continue;
    const cublasStatus_t status = problem.run(product, handle, candidate.algo, memory, stream);
    // One that is refused enqueues nothing.
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) continue;
    LAMINA_RETURN_IF_ERROR(to_status(status, "a product"));
    library().set(key, {true, candidate.algo});
    return {};
  }
  library().set(key, {});
  return unsupported(product);
}

Status prepare_products(StreamView stream) {
  LAMINA_RETURN_IF_ERROR(library().handle(stream).status());
  return workspace(stream, WorkspaceUse::kProducts, kWorkspaceBytes).status();
}

}  // namespace lamina::kernels::cuda
