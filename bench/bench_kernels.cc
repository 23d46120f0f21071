// Speed of the CPU kernels beside what the machine gives: memory read bandwidth and f32 FMA rate
// are measured in the same run, by the same threads. Prints one line a case; asserts nothing.
//   lamina_bench_kernels [num_threads]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <vector>

#include "base/checked_math.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/rng.h"
#include "device/buffer.h"
#include "kernels/attention.h"
#include "kernels/linear.h"

namespace lamina {
namespace {

using kernels::AttentionPartial;

// Best of many calls body(i), i = 0, 1, ..., in seconds. Bodies are short, so that some run without
// being interrupted even on a loaded machine; the best is what the code can do.
double best_seconds(const std::function<void(int64_t)>& body) {
  double best = 1e9;
  const Deadline end = Deadline::after(std::chrono::milliseconds(500));
  for (int64_t i = 0; i < 8 || !end.has_passed(); ++i) {
    const TimePoint start = lamina::steady_clock().now();
    body(i);
    const Duration elapsed = lamina::steady_clock().now() - start;
    best = std::min(best, std::chrono::duration<double>(elapsed).count());
  }
  return best;
}

struct Machine {
  double read_bytes = 0.0;  // per second, from memory
  double flops = 0.0;       // per second, f32 multiply-adds counted twice
};

// Sums that compilers turn into plain vector code; GCC's vector type, since this file has no
// Highway. Results are stored so that nothing is optimised away.
typedef float Vector __attribute__((vector_size(32)));

__attribute__((target("avx2,fma"))) float sum_vectors(const Vector* data, int64_t count) {
  Vector sums[8] = {};
  for (int64_t i = 0; i + 8 <= count; i += 8) {
    for (int lane = 0; lane < 8; ++lane) sums[lane] += data[i + lane];
  }
  Vector total = {};
  for (const Vector& sum : sums) total += sum;
  return total[0];
}

double measure_read(ThreadPool& pool) {
  constexpr size_t kPartBytes = size_t{1} << 24;
  constexpr int64_t kNumParts = 32;  // more than the caches hold
  const Buffer memory(MemoryKind::kHost, kNumParts * kPartBytes);
  std::fill(memory.bytes().begin(), memory.bytes().end(), std::byte{0});
  volatile float sink = 0.0F;
  const double seconds = best_seconds([&](int64_t call) {
    const auto part = static_cast<size_t>(call % kNumParts);
    const auto* data = reinterpret_cast<const Vector*>(memory.data() + part * kPartBytes);
    pool.parallel_for(kPartBytes / sizeof(Vector), 4096, [&](int64_t begin, int64_t end) {
      sink = sum_vectors(data + begin, end - begin);
    });
  });
  return static_cast<double>(kPartBytes) / seconds;
}

typedef float WideVector __attribute__((vector_size(64)));

#define LAMINA_FMA_LOOP(VectorType, isa)                                           \
  __attribute__((target(isa))) float multiply_add_##VectorType(int64_t steps) {    \
    VectorType sums[10] = {};                                                      \
    const VectorType factor = sums[0] + 0.5F;                                      \
    for (int64_t i = 0; i < steps; ++i) {                                          \
      _Pragma("GCC unroll 10") for (auto& sum : sums) sum = sum * factor + factor; \
    }                                                                              \
    VectorType total = {};                                                         \
    for (const auto& sum : sums) total += sum;                                     \
    return total[0];                                                               \
  }
LAMINA_FMA_LOOP(Vector, "avx2,fma")
LAMINA_FMA_LOOP(WideVector, "avx512f")

double measure_flops(ThreadPool& pool) {
  constexpr int64_t kSteps = 50'000;
  const bool is_wide = __builtin_cpu_supports("avx512f") != 0;
  volatile float sink = 0.0F;
  const double seconds = best_seconds([&](int64_t /*call*/) {
    pool.parallel_for(pool.num_threads(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        sink = is_wide ? multiply_add_WideVector(kSteps) : multiply_add_Vector(kSteps);
      }
    });
  });
  return static_cast<double>(pool.num_threads() * kSteps * 10 * 2 * (is_wide ? 16 : 8)) / seconds;
}

// A tensor of small random numbers.
Buffer random_buffer(DType dtype, int64_t count) {
  Buffer buffer(MemoryKind::kHost, static_cast<size_t>(count) * dtype_bytes(dtype));
  Rng rng(1);
  for (int64_t i = 0; i < count; ++i) {
    const float value = rng.next_float() - 0.5F;
    if (dtype == DType::kF32) {
      reinterpret_cast<float*>(buffer.data())[i] = value;
    } else {
      reinterpret_cast<BFloat16*>(buffer.data())[i] = to_bf16(value);
    }
  }
  return buffer;
}

void bench_linear(
    const Machine& machine, ThreadPool& pool, DType dtype, int64_t m, int64_t n, int64_t k) {
  // Enough copies that weights come from memory, as in a model, and not from cache.
  const int64_t weight_bytes = n * k * static_cast<int64_t>(dtype_bytes(dtype));
  const int64_t num_copies = std::max<int64_t>(1, (int64_t{192} << 20) / weight_bytes);
  const Buffer weights = random_buffer(dtype, num_copies * n * k);
  const Buffer x = random_buffer(dtype, m * k);
  const Buffer out = random_buffer(dtype, m * n);
  const double seconds = best_seconds([&](int64_t call) {
    std::byte* weight = weights.data() + call % num_copies * weight_bytes;
    throw_if_error(kernels::linear(
        {{x.data(), dtype, {m, k}}, {weight, dtype, {n, k}}, {}, {out.data(), dtype, {m, n}}},
        StreamView(pool)));
  });
  const double bytes = static_cast<double>(weight_bytes) / seconds;
  const double flops = static_cast<double>(2 * m * n * k) / seconds;
  fmt::print(
      "linear {:8} M {:2} N {:4} K {:4}   {:6.1f} GB/s ({:3.0f} %)   {:6.1f} GFLOP/s ({:3.0f} %)\n",
      dtype_name(dtype),
      m,
      n,
      k,
      bytes / 1e9,
      100 * bytes / machine.read_bytes,
      flops / 1e9,
      100 * flops / machine.flops);
}

struct AttentionCase {
  DType dtype = DType::kBF16;
  int64_t num_heads = 9;
  int64_t num_kv_heads = 3;
  int64_t num_sequences = 2;
  int64_t num_queries = 1;  // per sequence
  int64_t context = 512;
};

void bench_attention(const Machine& machine, ThreadPool& pool, const AttentionCase& c) {
  constexpr int64_t kHeadDim = 64;
  constexpr int64_t kBlockSize = 16;
  const int64_t max_blocks = c.context / kBlockSize;
  const int64_t context_elements = 2 * c.num_kv_heads * c.context * kHeadDim;
  const int64_t batch_bytes =
      c.num_sequences * context_elements * static_cast<int64_t>(dtype_bytes(c.dtype));
  // Enough batches that keys come from memory.
  const int64_t num_batches = ceil_div(int64_t{128} << 20, batch_bytes);
  const int64_t num_tables = num_batches * c.num_sequences;
  const Shape cache = {num_tables * max_blocks, c.num_kv_heads, kBlockSize, kHeadDim};
  const Shape q_shape = {c.num_sequences * c.num_queries, c.num_heads, kHeadDim};
  const Buffer keys = random_buffer(c.dtype, cache.num_elements());
  const Buffer values = random_buffer(c.dtype, cache.num_elements());
  const Buffer q = random_buffer(c.dtype, q_shape.num_elements());
  const Buffer out = random_buffer(DType::kF32, q_shape.num_elements());
  std::vector<int32_t> bounds = {0};
  for (int64_t b = 1; b <= c.num_sequences; ++b) {
    bounds.push_back(static_cast<int32_t>(b * c.num_queries));
  }
  std::vector<int32_t> tables;  // neighbours in a table are far apart in memory
  for (int64_t b = 0; b < num_tables; ++b) {
    for (int64_t i = 0; i < max_blocks; ++i) {
      tables.push_back(static_cast<int32_t>(i * num_tables + b));
    }
  }
  const std::vector<int32_t> contexts(static_cast<size_t>(c.num_sequences),
                                      static_cast<int32_t>(c.context));
  const double seconds = best_seconds([&](int64_t call) {
    const auto table_size = static_cast<size_t>(c.num_sequences * max_blocks);
    const auto batch_idx = static_cast<size_t>(call % num_batches);
    const auto table = std::span(tables).subspan(batch_idx * table_size, table_size);
    throw_if_error(kernels::ragged_attention({{q.data(), c.dtype, q_shape},
                                              {keys.data(), c.dtype, cache},
                                              {values.data(), c.dtype, cache},
                                              {out.data(), DType::kF32, q_shape},
                                              {},
                                              {bounds, contexts, table, max_blocks},
                                              0.125F,
                                              std::nullopt},
                                             StreamView(pool)));
  });
  const double bytes = static_cast<double>(batch_bytes) / seconds;
  const double flops =
      static_cast<double>(4 * q_shape.num_elements() * (c.context - c.num_queries / 2)) / seconds;
  fmt::print(
      "attention {:8} heads {}/{} B {} T {:3} context {:4}   {:6.1f} GB/s ({:3.0f} %)   {:6.1f} "
      "GFLOP/s ({:3.0f} %)\n",
      dtype_name(c.dtype),
      c.num_heads,
      c.num_kv_heads,
      c.num_sequences,
      c.num_queries,
      c.context,
      bytes / 1e9,
      100 * bytes / machine.read_bytes,
      flops / 1e9,
      100 * flops / machine.flops);
}

void run(int num_threads) {
  ThreadPool pool(num_threads);
  const Machine machine = {measure_read(pool), measure_flops(pool)};
  fmt::print("{} threads: reads {:.1f} GB/s, multiplies and adds {:.1f} GFLOP/s\n",
             num_threads,
             machine.read_bytes / 1e9,
             machine.flops / 1e9);
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    for (const auto& [n, k] : {std::pair{576, 1536}, {1536, 576}, {2048, 5632}}) {
      for (const int64_t m : {1, 8, 64}) bench_linear(machine, pool, dtype, m, n, k);
    }
  }
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    for (const int64_t context : {512, 4096}) {
      bench_attention(machine, pool, {.dtype = dtype, .context = context});
      bench_attention(
          machine, pool, {.dtype = dtype, .num_heads = 32, .num_kv_heads = 8, .context = context});
    }
    bench_attention(machine, pool, {.dtype = dtype, .num_sequences = 1, .num_queries = 512});
  }
}

}  // namespace
}  // namespace lamina

int main(int argc, char** argv) {
  try {
    const int num_threads = argc > 1 ? std::atoi(argv[1]) : lamina::available_cores();
    lamina::run(std::max(1, num_threads));
  } catch (const lamina::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
