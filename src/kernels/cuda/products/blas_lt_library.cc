// cuBLASLt's own functions, of which blas_lt.cc uses a dozen, found when one of them is first
// called: the library takes 200 MiB of every process that is linked with it, and most of ours never
// multiply on a GPU. Without it every call fails, with a message that names it.
#include <cublasLt.h>
#include <dlfcn.h>

#include <string>

namespace {

const std::string kName = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);

// By the usual search, then where the toolkit was at build time. Never closed.
void* open_library() {
  if (void* const found = ::dlopen(kName.c_str(), RTLD_NOW | RTLD_LOCAL)) return found;
  return ::dlopen((LAMINA_CUDA_LIBRARY_DIR "/" + kName).c_str(), RTLD_NOW | RTLD_LOCAL);
}

template <typename Function>
Function* find(const char* name) {
  static void* const library = open_library();
  return library == nullptr ? nullptr : reinterpret_cast<Function*>(::dlsym(library, name));
}

}  // namespace

#define LAMINA_FORWARD(name, parameters, arguments)                                  \
  cublasStatus_t CUBLASWINAPI name parameters {                                      \
    static auto* const function = find<decltype(::name)>(#name);                     \
    return function == nullptr ? CUBLAS_STATUS_NOT_INITIALIZED : function arguments; \
  }

extern "C" {

LAMINA_FORWARD(cublasLtCreate, (cublasLtHandle_t * handle), (handle))
LAMINA_FORWARD(cublasLtDestroy, (cublasLtHandle_t handle), (handle))
LAMINA_FORWARD(
    cublasLtMatmulDescInit_internal,
    (cublasLtMatmulDesc_t desc, size_t size, cublasComputeType_t compute, cudaDataType_t scale),
    (desc, size, compute, scale))
LAMINA_FORWARD(cublasLtMatmulDescSetAttribute,
               (cublasLtMatmulDesc_t desc,
                cublasLtMatmulDescAttributes_t attribute,
                const void* value,
                size_t size),
               (desc, attribute, value, size))
LAMINA_FORWARD(cublasLtMatrixLayoutInit_internal,
               (cublasLtMatrixLayout_t layout,
                size_t size,
                cudaDataType type,
                uint64_t rows,
                uint64_t columns,
                int64_t stride),
               (layout, size, type, rows, columns, stride))
LAMINA_FORWARD(cublasLtMatrixLayoutSetAttribute,
               (cublasLtMatrixLayout_t layout,
                cublasLtMatrixLayoutAttribute_t attribute,
                const void* value,
                size_t size),
               (layout, attribute, value, size))
LAMINA_FORWARD(cublasLtMatmulPreferenceInit_internal,
               (cublasLtMatmulPreference_t preference, size_t size),
               (preference, size))
LAMINA_FORWARD(cublasLtMatmulPreferenceSetAttribute,
               (cublasLtMatmulPreference_t preference,
                cublasLtMatmulPreferenceAttributes_t attribute,
                const void* value,
                size_t size),
               (preference, attribute, value, size))
LAMINA_FORWARD(cublasLtMatmulAlgoGetHeuristic,
               (cublasLtHandle_t handle,
                cublasLtMatmulDesc_t operation,
                cublasLtMatrixLayout_t a,
                cublasLtMatrixLayout_t b,
                cublasLtMatrixLayout_t c,
                cublasLtMatrixLayout_t d,
                cublasLtMatmulPreference_t preference,
                int wanted,
                cublasLtMatmulHeuristicResult_t results[],
                int* count),
               (handle, operation, a, b, c, d, preference, wanted, results, count))
LAMINA_FORWARD(cublasLtMatmul,
               (cublasLtHandle_t handle,
                cublasLtMatmulDesc_t operation,
                const void* alpha,
                const void* a,
                cublasLtMatrixLayout_t a_layout,
                const void* b,
                cublasLtMatrixLayout_t b_layout,
                const void* beta,
                const void* c,
                cublasLtMatrixLayout_t c_layout,
                void* d,
                cublasLtMatrixLayout_t d_layout,
                const cublasLtMatmulAlgo_t* algorithm,
                void* workspace,
                size_t workspace_bytes,
                cudaStream_t stream),
               (handle,
                operation,
                alpha,
                a,
                a_layout,
                b,
                b_layout,
                beta,
                c,
                c_layout,
                d,
                d_layout,
                algorithm,
                workspace,
                workspace_bytes,
                stream))

const char* CUBLASWINAPI cublasLtGetStatusString(cublasStatus_t status) {
  static auto* const function =
      find<decltype(::cublasLtGetStatusString)>("cublasLtGetStatusString");
  static const std::string missing = kName + " of CUDA is not there";
  return function == nullptr ? missing.c_str() : function(status);
}

}  // extern "C"
