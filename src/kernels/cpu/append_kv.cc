#include "kernels/cpu/append_kv.h"

// clang-format off: the order matters
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/append_kv.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>
// clang-format on

#include "base/checked_math.h"
#include "kernels/cpu/row_scale.h"
#include "kernels/cpu/scratch.h"
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

// The largest magnitude of a row, as bits: a NaN is larger than any infinity, and that than any
// number.
template <typename From>
HWY_INLINE float largest_magnitude(const From* from, int64_t count) {
  const hn::RebindToUnsigned<F32Tag> d;
  auto largest = hn::Zero(d);
  for (int64_t i = 0; i < count; i += kLanes) {
    const auto bits = hn::BitCast(d, load_upto(from + i, count - i));
    largest = hn::Max(largest, hn::And(bits, hn::Set(d, 0x7FFFFFFFU)));
  }
  return std::bit_cast<float>(hn::GetLane(hn::MaxOfLanes(d, largest)));
}

// One row of one head as codes. Returns their scale.
template <typename From, typename Code>
HWY_INLINE float quantize_row(const From* from, int64_t count, Code* to) {
  const cpu::RowScale scale = cpu::row_scale<Code>(largest_magnitude(from, count));
  const F32Tag d;
  alignas(64) float scaled[kLanes];
  for (int64_t i = 0; i < count; i += kLanes) {
    const F32Vector row = load_upto(from + i, count - i);
    hn::Store(hn::Mul(row, hn::Set(d, scale.inverse)), d, scaled);
    const int64_t num_codes = std::min(kLanes, count - i);
    for (int64_t lane = 0; lane < num_codes; ++lane) {
      // A row that is not all numbers has a scale that says so; its codes mean nothing.
      to[i + lane] = scale.inverse == 0.0F ? Code() : from_f32<Code>(scaled[lane]);
    }
  }
  return scale.scale;
}

// Tokens [begin, end) of the keys or the values, quantised, in either order.
template <typename From, typename Code>
void append_codes(const AppendKvArgs& args, bool is_key, int64_t begin, int64_t end) {
  const TensorView& rows = is_key ? args.k : args.v;
  const TensorView& cache = is_key ? args.k_cache : args.v_cache;
  const TensorView& scales = is_key ? args.k_scales : args.v_scales;
  const int64_t block_size = cache.shape[2];
  const int64_t width = cache.shape[3];
  thread_local cpu::Scratch scratch;
  auto* codes =
      reinterpret_cast<Code*>(scratch.floats(static_cast<size_t>(ceil_div<int64_t>(width, 4))));
  for (int64_t t = begin; t < end; ++t) {
    const int64_t slot = args.slot_mapping[static_cast<size_t>(t)];
    if (slot == kNoSlot) continue;
    const int64_t block = slot / block_size;
    const int64_t token = slot % block_size;
    for (int64_t head = 0; head < cache.shape[1]; ++head) {
      scales.row<float>(block)[head * block_size + token] =
          quantize_row(rows.row<From>(t) + head * width, width, codes);
      Code* to = cache.row<Code>(block) + head * block_size * width;
      if (args.order == KvOrder::kRows) {
        std::copy(codes, codes + width, to + token * width);
      } else if (is_key) {
        scatter_key(codes, width, to, block_size, token);
      } else {
        scatter(codes, width, to + token / 2 * 2 * width + token % 2, 2);
      }
    }
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
    if (slot == kNoSlot) continue;
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
    if (slot == kNoSlot) continue;
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
                      if constexpr (sizeof(To) == 1) {
                        append_codes<From, To>(args, true, begin, end);
                        if (!args.v_cache.empty()) append_codes<From, To>(args, false, begin, end);
                      } else {
                        if constexpr (std::is_same_v<From, To>) {
                          if (args.order == KvOrder::kPairs)
                            return append_pairs<To>(args, begin, end);
                        }
                        append_tokens<From, To>(args, begin, end);
                      }
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
    case DType::kI8:
      return append_typed<From, int8_t>(args, pool);
    case DType::kF8E4M3:
      return append_typed<From, Float8E4M3>(args, pool);
    case DType::kI32:
    case DType::kU8:
      break;
  }
  LAMINA_CHECK(false, "append_kv to a dtype that no cache has");
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
    case DType::kI8:
    case DType::kF8E4M3:
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
