// Speed of the CPU kernels beside what the machine gives: rates of multiply-adds are measured at
// the start, memory read bandwidth in turns with each case, by the same threads, each on a core of
// its own. Prints one line a case; asserts nothing.
//   lamina_bench_kernels [num_threads] [words of the cases wanted, as they are printed]
//                        [instructions: best, no-amx, dot, widen, avx2]
#include <fmt/format.h>
#include <hwy/targets.h>
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/checked_math.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/rng.h"
#include "device/buffer.h"
#include "device/topology.h"
#include "kernels/attention.h"
#include "kernels/cpu/amx-inl.h"
#include "kernels/cpu/instruction_set.h"
#include "kernels/linear.h"

namespace lamina {
namespace {

using namespace std::chrono_literals;

// The median of many calls body(i), i = 0, 1, ..., in seconds, that take about `budget` together.
// Not the best: shared machines let a short burst through at twice the bandwidth that lasts.
double median_seconds(Duration budget, const std::function<void(int64_t)>& body) {
  std::vector<double> seconds;
  const Deadline end = Deadline::after(budget);
  for (int64_t i = 0; i < 8 || !end.has_passed(); ++i) {
    const TimePoint start = lamina::steady_clock().now();
    body(i);
    const Duration elapsed = lamina::steady_clock().now() - start;
    seconds.push_back(std::chrono::duration<double>(elapsed).count());
  }
  const auto middle = seconds.begin() + static_cast<ptrdiff_t>(seconds.size() / 2);
  std::nth_element(seconds.begin(), middle, seconds.end());
  return *middle;
}

// What of the cases is wanted.
std::string_view wanted_words;

// Begins the line of a case; false if it is not wanted.
bool begin_case(const std::string& title) {
  if (title.find(wanted_words) == std::string::npos) return false;
  fmt::print("{}", title);
  return true;
}

// Sums that compilers turn into plain vector code; GCC's vector type, since this file has no
// Highway. Results are stored so that nothing is optimised away.
typedef float Vector __attribute__((vector_size(32)));

// Reads `count` vectors as kStreams streams side by side, fetching kAhead vectors ahead of each (0:
// left to the processor).
template <int kStreams, int kAhead>
__attribute__((target("avx2,fma"))) float sum_vectors(const Vector* data, int64_t count) {
  Vector sums[8] = {};
  const int64_t stride = count / kStreams / 8 * 8;
  for (int64_t i = 0; i < stride; i += 8) {
#pragma GCC unroll 4
    for (int stream = 0; stream < kStreams; ++stream) {
      const Vector* from = data + stream * stride + i;
#pragma GCC unroll 8
      for (int lane = 0; lane < 8; ++lane) {
        if (kAhead > 0 && lane % 2 == 0) __builtin_prefetch(from + kAhead + lane, 0, 2);
        sums[lane] += from[lane];
      }
    }
  }
  Vector total = {};
  for (const Vector& sum : sums) total += sum;
  return total[0];
}

// What memory gives: the best of several access patterns, over parts that are larger than the
// caches together.
class MemoryReads {
 public:
  explicit MemoryReads(ThreadPool& pool) : pool_(pool), memory_(MemoryKind::kHost, kBytes) {
    std::fill(memory_.bytes().begin(), memory_.bytes().end(), std::byte{0});
  }

  // Bytes per second now; takes about `budget`.
  double measure(Duration budget) {
    constexpr std::array kPatterns = {sum_vectors<1, 0>,
                                      sum_vectors<1, 64>,
                                      sum_vectors<4, 0>,
                                      sum_vectors<4, 64>,
                                      sum_vectors<4, 256>};
    double best = 0.0;
    for (const auto sum : kPatterns) {
      const double seconds = median_seconds(budget / kPatterns.size(), [&](int64_t /*call*/) {
        const auto* data = reinterpret_cast<const Vector*>(memory_.data() + next_part());
        pool_.parallel_for(kPartBytes / sizeof(Vector), 4096, [&](int64_t begin, int64_t end) {
          sink_ = sum(data + begin, end - begin);
        });
      });
      best = std::max(best, static_cast<double>(kPartBytes) / seconds);
    }
    return best;
  }

 private:
  static constexpr size_t kPartBytes = size_t{1} << 24;
  static constexpr size_t kBytes = 32 * kPartBytes;

  size_t next_part() { return next_ = (next_ + kPartBytes) % kBytes; }

  ThreadPool& pool_;
  Buffer memory_;
  size_t next_ = 0;
  volatile float sink_ = 0.0F;
};

typedef float WideVector __attribute__((vector_size(64)));

// Sums differ from the start, or the compiler would compute one of them.
#define LAMINA_FMA_LOOP(VectorType, isa)                                           \
  __attribute__((target(isa))) float multiply_add_##VectorType(int64_t steps) {    \
    VectorType sums[12];                                                           \
    _Pragma("GCC unroll 12") for (int i = 0; i < 12; ++i) {                        \
      sums[i] = VectorType{} + static_cast<float>(i);                              \
    }                                                                              \
    const VectorType factor = VectorType{} + 0.5F;                                 \
    for (int64_t step = 0; step < steps; ++step) {                                 \
      _Pragma("GCC unroll 12") for (auto& sum : sums) sum = sum * factor + factor; \
    }                                                                              \
    VectorType total = {};                                                         \
    _Pragma("GCC unroll 12") for (const auto& sum : sums) total += sum;            \
    return total[0];                                                               \
  }
LAMINA_FMA_LOOP(Vector, "avx2,fma")
LAMINA_FMA_LOOP(WideVector, "avx512f")

__attribute__((target("avx512f,avx512bf16"))) float dot_pairs(int64_t steps) {
  __m512 sums[12];
  __m512i pairs = _mm512_set1_epi32(0x3C003C00);
#pragma GCC unroll 12
  for (int i = 0; i < 12; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  for (int64_t step = 0; step < steps; ++step) {
    asm volatile("" : "+v"(pairs));
#pragma GCC unroll 12
    for (__m512& sum : sums) {
      sum = _mm512_dpbf16_ps(sum, std::bit_cast<__m512bh>(pairs), std::bit_cast<__m512bh>(pairs));
    }
  }
  float total = 0.0F;
#pragma GCC unroll 12
  for (const __m512& sum : sums) total += _mm512_reduce_add_ps(sum);
  return total;
}

LAMINA_BEGIN_AMX
float multiply_tiles(int64_t steps) {
  const kernels::cpu::amx::TileScope scope(kernels::cpu::amx::kTileHeight);
  for (int64_t step = 0; step < steps; ++step) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 5, 6);
    _tile_dpbf16ps(2, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
  }
  return 0.0F;
}
LAMINA_END_AMX

// FLOP per second of a loop of `flop_per_step`, on all threads.
double measure_flops(ThreadPool& pool, float (*loop)(int64_t), int64_t flop_per_step) {
  constexpr int64_t kSteps = 50'000;
  volatile float sink = 0.0F;
  const double seconds = median_seconds(500ms, [&](int64_t /*call*/) {
    pool.parallel_for(pool.num_threads(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) sink = loop(kSteps);
    });
  });
  return static_cast<double>(pool.num_threads() * kSteps * flop_per_step) / seconds;
}

// The machine: its threads and what they reach.
struct Machine {
  explicit Machine(ThreadPool& threads);

  [[nodiscard]] double flops(DType dtype) const {
    return dtype == DType::kBF16 ? std::max({f32_flops, bf16_flops, amx_flops}) : f32_flops;
  }

  ThreadPool& pool;
  MemoryReads reads;
  double f32_flops = 0.0;   // per second, multiply-adds counted twice
  double bf16_flops = 0.0;  // the same of pairs of bf16; 0: no instruction for them
  double amx_flops = 0.0;   // the same in tiles; 0: not used
};

Machine::Machine(ThreadPool& threads) : pool(threads), reads(threads) {
  const bool is_wide = (hwy::SupportedTargets() & HWY_AVX3) != 0;
  f32_flops = is_wide ? measure_flops(pool, multiply_add_WideVector, 12 * 2 * 16)
                      : measure_flops(pool, multiply_add_Vector, 12 * 2 * 8);
  if (kernels::cpu::uses_bf16_dot()) bf16_flops = measure_flops(pool, dot_pairs, 12 * 2 * 32);
  if (kernels::cpu::uses_amx()) {
    amx_flops = measure_flops(pool, multiply_tiles, 4 * 2 * 16 * 16 * 32);
  }
}

struct Speed {
  double seconds = 0.0;     // of one call
  double read_bytes = 0.0;  // per second, what memory gave meanwhile
};

// Of body(i), i = 0, 1, ...: of turns with reads of memory the one whose ratio of both is the
// median; bandwidth of shared machines changes from second to second.
Speed measure(Machine& machine, const std::function<void(int64_t)>& body) {
  std::array<Speed, 5> turns;
  int64_t num_calls = 0;
  for (Speed& turn : turns) {
    turn.read_bytes = machine.reads.measure(100ms);
    turn.seconds = median_seconds(100ms, [&](int64_t /*call*/) { body(num_calls++); });
  }
  std::ranges::nth_element(turns, turns.begin() + turns.size() / 2, {}, [](const Speed& turn) {
    return turn.seconds * turn.read_bytes;
  });
  return turns[turns.size() / 2];
}

// A tensor of small random numbers, or of codes.
Buffer random_buffer(DType dtype, int64_t count) {
  Buffer buffer(MemoryKind::kHost, static_cast<size_t>(count) * dtype_bytes(dtype));
  Rng rng(1);
  for (int64_t i = 0; i < count; ++i) {
    const float value = rng.next_float() - 0.5F;
    if (is_quantized(dtype)) {
      buffer.data()[i] = static_cast<std::byte>(64.0F + 100.0F * value);  // numbers of either kind
    } else if (dtype == DType::kF32) {
      reinterpret_cast<float*>(buffer.data())[i] = value;
    } else {
      reinterpret_cast<BFloat16*>(buffer.data())[i] = to_bf16(value);
    }
  }
  return buffer;
}

// Enough copies that weights come from memory, as in a model, and not from cache.
int64_t copies_of(int64_t weight_bytes) {
  return std::max<int64_t>(1, (int64_t{192} << 20) / weight_bytes);
}

// Of x [m, k] times weights [n, k], which lie in copies of `weight_bytes`; view_at(data) is one.
template <typename ViewAt>
Speed speed_of_linear(Machine& machine,
                      DType dtype,
                      const std::array<int64_t, 3>& sizes,
                      const Buffer& weights,
                      int64_t weight_bytes,
                      const ViewAt& view_at) {
  const auto [m, n, k] = sizes;
  const Buffer x = random_buffer(dtype, m * k);
  const Buffer out = random_buffer(dtype, m * n);
  return measure(machine, [&](int64_t call) {
    const WeightView weight =
        view_at(weights.data() + call % copies_of(weight_bytes) * weight_bytes);
    throw_if_error(
        kernels::linear({{x.data(), dtype, {m, k}}, weight, {}, {out.data(), dtype, {m, n}}},
                        StreamView(machine.pool)));
  });
}

void bench_linear(Machine& machine, DType dtype, int64_t m, int64_t n, int64_t k) {
  if (!begin_case(fmt::format("linear {:8} M {:3} N {:4} K {:4}", dtype_name(dtype), m, n, k)))
    return;
  const int64_t weight_bytes = n * k * static_cast<int64_t>(dtype_bytes(dtype));
  const Buffer weights = random_buffer(dtype, copies_of(weight_bytes) * n * k);
  const bool is_packed = dtype == DType::kBF16 && kernels::has_fast_products(PackedFormat::kPairs);
  const Speed speed = speed_of_linear(
      machine, dtype, {m, n, k}, weights, weight_bytes, [&](std::byte* data) -> WeightView {
        if (is_packed) return PackedMatrix{.data = data, .rows = n, .columns = k};
        return TensorView(data, dtype, {n, k});
      });
  const double bytes = static_cast<double>(weight_bytes) / speed.seconds;
  const double flops = static_cast<double>(2 * m * n * k) / speed.seconds;
  fmt::print("   {:6.1f} GB/s ({:3.0f} %)   {:6.1f} GFLOP/s ({:3.0f} %)\n",
             bytes / 1e9,
             100 * bytes / speed.read_bytes,
             flops / 1e9,
             100 * flops / machine.flops(dtype));
}

void bench_quantized(Machine& machine, PackedMatrix weight, int64_t m) {
  const int64_t n = weight.rows;
  const int64_t k = weight.columns;
  const std::string_view name = weight.format == PackedFormat::kInt4 ? "int4" : "int8";
  if (!begin_case(fmt::format("linear {:8} M {:3} N {:4} K {:4}", name, m, n, k))) return;
  const auto weight_bytes = static_cast<int64_t>(weight.size_bytes());
  const Buffer weights(MemoryKind::kHost,
                       static_cast<size_t>(copies_of(weight_bytes) * weight_bytes));
  std::fill(weights.bytes().begin(), weights.bytes().end(), std::byte{1});
  const Speed speed = speed_of_linear(
      machine, DType::kBF16, {m, n, k}, weights, weight_bytes, [&](std::byte* data) -> WeightView {
        weight.data = data;
        return weight;
      });
  const double bytes = static_cast<double>(weight_bytes) / speed.seconds;
  fmt::print("   {:6.1f} GB/s ({:3.0f} %)   {:6.1f} GOP/s\n",
             bytes / 1e9,
             100 * bytes / speed.read_bytes,
             static_cast<double>(2 * m * n * k) / speed.seconds / 1e9);
}

struct AttentionCase {
  DType dtype = DType::kBF16;     // of queries
  DType kv_dtype = DType::kBF16;  // of the cache
  int64_t num_heads = 9;
  int64_t num_kv_heads = 3;
  int64_t num_sequences = 2;
  int64_t num_queries = 1;  // per sequence
  int64_t context = 512;
  int64_t head_dim = 64;
  int64_t latent_dim = 0;  // of values that lie in the keys; 0: values of their own, of head_dim

  [[nodiscard]] bool is_latent() const { return latent_dim > 0; }
  [[nodiscard]] int64_t value_dim() const { return is_latent() ? latent_dim : head_dim; }
  // What a token has in the cache.
  [[nodiscard]] int64_t token_bytes() const {
    const int64_t rows = is_latent() ? 1 : 2;
    const int64_t row_bytes = head_dim * static_cast<int64_t>(dtype_bytes(kv_dtype)) +
                              (is_quantized(kv_dtype) ? static_cast<int64_t>(sizeof(float)) : 0);
    return num_kv_heads * rows * row_bytes;
  }
};

void bench_attention(Machine& machine, const AttentionCase& c) {
  if (!begin_case(fmt::format("attention {:8} heads {}/{} of {}{} B {} T {:3} context {:4}",
                              dtype_name(c.kv_dtype),
                              c.num_heads,
                              c.num_kv_heads,
                              c.head_dim,
                              c.is_latent() ? fmt::format("/{}", c.latent_dim) : "",
                              c.num_sequences,
                              c.num_queries,
                              c.context))) {
    return;
  }
  constexpr int64_t kBlockSize = 64;  // the default of lamina serve
  const int64_t max_blocks = c.context / kBlockSize;
  const int64_t batch_bytes = c.num_sequences * c.context * c.token_bytes();
  // Enough batches that keys come from memory.
  const int64_t num_batches = ceil_div(int64_t{128} << 20, batch_bytes);
  const int64_t num_tables = num_batches * c.num_sequences;
  const Shape cache = {num_tables * max_blocks, c.num_kv_heads, kBlockSize, c.head_dim};
  const Shape q_shape = {c.num_sequences * c.num_queries, c.num_heads, c.head_dim};
  const Buffer keys = random_buffer(c.kv_dtype, cache.num_elements());
  const Buffer values = random_buffer(c.kv_dtype, c.is_latent() ? 0 : cache.num_elements());
  const Shape scales_shape = {cache[0], cache[1], cache[2]};
  const Buffer scales = random_buffer(DType::kF32, scales_shape.num_elements());
  const TensorView scales_view = is_quantized(c.kv_dtype)
                                     ? TensorView{scales.data(), DType::kF32, scales_shape}
                                     : TensorView{};
  const Buffer q = random_buffer(c.dtype, q_shape.num_elements());
  const Shape out_shape = q_shape.with(2, c.value_dim());
  const Buffer out = random_buffer(DType::kF32, out_shape.num_elements());
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
  const kernels::KvOrder order =
      kernels::preferred_order({.dtype = c.kv_dtype,
                                .q_dtype = c.dtype,
                                .block_size = kBlockSize,
                                .key_dim = c.head_dim,
                                .value_dim = c.is_latent() ? 0 : c.head_dim});
  const std::vector<int32_t> contexts(static_cast<size_t>(c.num_sequences),
                                      static_cast<int32_t>(c.context));
  const Speed speed = measure(machine, [&](int64_t call) {
    const auto table_size = static_cast<size_t>(c.num_sequences * max_blocks);
    const auto batch_idx = static_cast<size_t>(call % num_batches);
    const auto table = std::span(tables).subspan(batch_idx * table_size, table_size);
    throw_if_error(kernels::ragged_attention(
        {.q = {q.data(), c.dtype, q_shape},
         .k_cache = {keys.data(), c.kv_dtype, cache},
         .v_cache = c.is_latent() ? TensorView() : TensorView{values.data(), c.kv_dtype, cache},
         .out = {out.data(), DType::kF32, out_shape},
         .lse = {},
         .batch = {bounds, contexts, table, max_blocks},
         .scale = 0.125F,
         .window = std::nullopt,
         .soft_cap = {},
         .alibi_slopes = {},
         .sinks = {},
         .order = order,
         .k_scales = scales_view,
         .v_scales = c.is_latent() ? TensorView() : scales_view},
        StreamView(machine.pool)));
  });
  const double seconds = speed.seconds;
  const auto bytes = static_cast<double>(batch_bytes);
  const auto flops = static_cast<double>(
      2 * q_shape[0] * q_shape[1] * (c.head_dim + c.value_dim()) * (c.context - c.num_queries / 2));
  const double predicted = std::max(bytes / speed.read_bytes, flops / machine.flops(c.dtype));
  fmt::print(
      "   {:6.1f} GB/s ({:3.0f} %)   {:6.1f} GFLOP/s ({:3.0f} %)   {:.0f} us, predicted {:.0f}\n",
      bytes / seconds / 1e9,
      100 * bytes / seconds / speed.read_bytes,
      flops / seconds / 1e9,
      100 * flops / seconds / machine.flops(c.dtype),
      1e6 * seconds,
      1e6 * predicted);
}

// Leaves out instructions that this machine has, to measure what serves others.
void use_instructions(std::string_view name) {
  using kernels::cpu::Bf16DotUse;
  if (name != "best") kernels::cpu::set_amx_use(false);
  if (name == "dot") kernels::cpu::set_bf16_dot_use(Bf16DotUse::kWhereSupported);
  if (name == "widen" || name == "avx2") kernels::cpu::set_bf16_dot_use(Bf16DotUse::kNever);
  if (name != "avx2") return;
  hwy::SetSupportedTargetsForTest(HWY_AVX2);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

// One sequence with one KV head: cores have nothing to share but its keys.
void bench_one_sequence(Machine& machine, DType dtype, DType kv_dtype) {
  AttentionCase c = {.dtype = dtype, .kv_dtype = kv_dtype, .num_kv_heads = 1, .num_sequences = 1};
  for (const int64_t context : {1024, 32768}) {
    c.context = context;
    c.head_dim = 128;
    c.latent_dim = 0;
    for (const int64_t num_heads : {1, 8}) {
      c.num_heads = num_heads;
      bench_attention(machine, c);
    }
    c.num_queries = 64;
    bench_attention(machine, c);
    c.num_queries = 1;
    c.head_dim = 576;
    c.latent_dim = 512;
    for (const int64_t num_heads : {16, 128}) {
      c.num_heads = num_heads;
      bench_attention(machine, c);
    }
  }
}

void run(int num_threads) {
  // Threads that the kernel places may share a core for seconds, which halves every figure.
  CpuList cpus = read_topology().cpus();
  if (std::cmp_greater(num_threads, cpus.size())) cpus.clear();
  if (!cpus.empty()) cpus.resize(static_cast<size_t>(num_threads));
  ThreadPool pool(num_threads, cpus);
  pool.bind_submitter();
  Machine machine(pool);
  fmt::print("{} threads: reads {:.1f} GB/s, multiplies and adds {:.1f} GFLOP/s",
             num_threads,
             machine.reads.measure(2s) / 1e9,
             machine.f32_flops / 1e9);
  if (machine.bf16_flops > 0) {
    fmt::print(", of bf16 in pairs {:.1f} GFLOP/s", machine.bf16_flops / 1e9);
  }
  if (machine.amx_flops > 0) fmt::print(", in tiles {:.1f} GFLOP/s", machine.amx_flops / 1e9);
  fmt::print("\n");
  std::fflush(stdout);  // whoever wants the ceilings alone need not wait
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    for (const auto& [n, k] : {std::pair{576, 1536}, {1536, 576}, {2048, 5632}, {5632, 2048}}) {
      for (const int64_t m : {1, 4, 16, 64, 512}) bench_linear(machine, dtype, m, n, k);
    }
  }
  for (const PackedFormat format : {PackedFormat::kInt4, PackedFormat::kInt8}) {
    for (const int64_t m : {1, 4, 16, 64, 512}) {
      bench_quantized(machine, {.format = format, .rows = 5632, .columns = 2048}, m);
    }
  }
  for (const DType kv_dtype : {DType::kBF16, DType::kI8, DType::kF8E4M3, DType::kF32}) {
    const DType dtype = kv_dtype == DType::kF32 ? DType::kF32 : DType::kBF16;
    for (const int64_t context : {1024, 4096}) {
      for (const int64_t num_kv_heads : {32, 4}) {
        bench_attention(machine,
                        {.dtype = dtype,
                         .kv_dtype = kv_dtype,
                         .num_heads = 32,
                         .num_kv_heads = num_kv_heads,
                         .num_sequences = 8,
                         .context = context});
      }
      bench_attention(machine, {.dtype = dtype, .kv_dtype = kv_dtype, .context = context});
    }
    bench_attention(machine,
                    {.dtype = dtype, .kv_dtype = kv_dtype, .num_sequences = 1, .num_queries = 512});
    bench_one_sequence(machine, dtype, kv_dtype);
  }
}

}  // namespace
}  // namespace lamina

int main(int argc, char** argv) {
  try {
    const int num_threads = argc > 1 ? std::atoi(argv[1]) : lamina::available_cores();
    if (argc > 2) lamina::wanted_words = argv[2];
    lamina::use_instructions(argc > 3 ? argv[3] : "best");
    lamina::run(std::max(1, num_threads));
  } catch (const lamina::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
