#include "kernels/cpu/append_kv.h"

// clang-format off: the order matters
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/append_kv.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>
// clang-format on

#include "base/checked_math.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::kernels::HWY_NAMESPACE {

// One row of one head; of equal dtypes the bits are copied.
template <typename From, typename To>
HWY_INLINE void copy_row(const From* from, int64_t count, To* to) {
  if constexpr (std::is_same_v<From, To>) {
    std::copy(from, from + count, to);
  } else {
    for (int64_t i = 0; i < count; i += kLanes) {
      store_upto(load_upto(from + i, count - i), to + i, count - i);
    }
  }
}

// The elements of a row, `stride` elements apart.
template <typename T>
HWY_INLINE void scatter(const T* from, int64_t count, T* to, int64_t stride) {
  for (int64_t i = 0; i < count; ++i) to[i * stride] = from[i];
}

// A key of a head whose block begins at `block`, as KvOrder::kPairs has it: two elements side by
// side, the next two block_size pairs on.
template <typename T>
HWY_INLINE void scatter_key(
    const T* from, int64_t count, T* block, int64_t block_size, int64_t token) {
  for (int64_t i = 0; i < count; i += 2) {
    T* pair = block + (i / 2 * block_size + token) * 2;
    pair[0] = from[i];
    pair[1] = from[i + 1];
  }
}

// Tokens [begin, end), as KvOrder::kPairs has them.
template <typename T>
void append_pairs(const AppendKvArgs& args, int64_t begin, int64_t end) {
  const int64_t block_size = args.k_cache.shape[2];
  const int64_t key_dim = args.k_cache.shape[3];
  const int64_t value_dim = args.v_cache.shape[3];
  for (int64_t t = begin; t < end; ++t) {
    const int64_t slot = args.slot_mapping[static_cast<size_t>(t)];
    const int64_t block = slot / block_size;
    const int64_t token = slot % block_size;
    for (int64_t head = 0; head < args.k_cache.shape[1]; ++head) {
      scatter_key(args.k.row<T>(t) + head * key_dim,
                  key_dim,
                  args.k_cache.row<T>(block) + head * block_size * key_dim,
                  block_size,
                  token);
      T* values = args.v_cache.row<T>(block) + head * block_size * value_dim;
      scatter(args.v.row<T>(t) + head * value_dim,
              value_dim,
              values + token / 2 * 2 * value_dim + token % 2,
              2);
    }
  }
}

// Tokens [begin, end).
template <typename From, typename To>
void append_tokens(const AppendKvArgs& args, int64_t begin, int64_t end) {
  const int64_t num_kv_heads = args.k_cache.shape[1];
  const int64_t block_size = args.k_cache.shape[2];
  const int64_t key_dim = args.k_cache.shape[3];
  const int64_t value_dim = args.v_cache.empty() ? 0 : args.v_cache.shape[3];
  for (int64_t t = begin; t < end; ++t) {
    const int64_t slot = args.slot_mapping[static_cast<size_t>(t)];
    const int64_t block = slot / block_size;
    for (int64_t head = 0; head < num_kv_heads; ++head) {
      const int64_t row = head * block_size + slot % block_size;
      copy_row(args.k.row<From>(t) + head * key_dim,
               key_dim,
               args.k_cache.row<To>(block) + row * key_dim);
      if (value_dim == 0) continue;
      copy_row(args.v.row<From>(t) + head * value_dim,
               value_dim,
               args.v_cache.row<To>(block) + row * value_dim);
    }
  }
}

template <typename From, typename To>
void append_typed(const AppendKvArgs& args, ThreadPool& pool) {
  constexpr int64_t kMinElements = 32 * 1024;  // some microseconds: worth waking a thread for
  pool.parallel_for(args.k.shape[0],
                    ceil_div(kMinElements, args.k.row_elements()),
                    [&args](int64_t begin, int64_t end) {
                      if constexpr (std::is_same_v<From, To>) {
                        if (args.order == KvOrder::kPairs)
                          return append_pairs<To>(args, begin, end);
                      }
                      append_tokens<From, To>(args, begin, end);
                    });
}

template <typename From>
void append_from(const AppendKvArgs& args, ThreadPool& pool) {
  switch (args.k_cache.dtype) {
    case DType::kF32:
      return append_typed<From, float>(args, pool);
    case DType::kF16:
      return append_typed<From, Float16>(args, pool);
    case DType::kBF16:
      return append_typed<From, BFloat16>(args, pool);
    case DType::kI32:
    case DType::kU8:
      break;
  }
  LAMINA_CHECK(false, "append_kv to a dtype that is no float");
}

void append_kv(const AppendKvArgs& args, ThreadPool& pool) {
  switch (args.k.dtype) {
    case DType::kF32:
      return append_from<float>(args, pool);
    case DType::kF16:
      return append_from<Float16>(args, pool);
    case DType::kBF16:
      return append_from<BFloat16>(args, pool);
    case DType::kI32:
    case DType::kU8:
      break;
  }
  LAMINA_CHECK(false, "append_kv from a dtype that is no float");
}

}  // namespace lamina::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::kernels::cpu {

HWY_EXPORT(append_kv);

void append_kv(const AppendKvArgs& args, ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(append_kv)(args, pool);
}

}  // namespace lamina::kernels::cpu
#endif
