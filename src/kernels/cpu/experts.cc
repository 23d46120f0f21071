// Tokens are sorted by expert; the experts' products then run over whole blocks of weight rows, so
// that threads are busy however few tokens there are, and each chosen expert's weights are read
// once. An assignment is one token at one expert.
#include "kernels/cpu/experts.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/checked_math.h"
#include "device/buffer.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/pointwise.h"
#include "kernels/cpu/row_loop.h"

namespace lamina::kernels::cpu {
namespace {

// Weight rows of a task: a multiple of what linear_part() needs, and enough that laying x out for
// each task costs little.
constexpr int64_t kRowBlock = 128;

// The tokens of one expert that has any: assignments [begin, begin + count).
struct Batch {
  int64_t expert = 0;
  int64_t begin = 0;
  int64_t count = 0;
};

// Which assignments there are, and their values between the products. Sizes are remembered, so a
// step allocates nothing once it has seen the largest.
struct Work {
  std::vector<Batch> batches;
  std::vector<int64_t> tokens;       // of each assignment, by expert and then token
  std::vector<int64_t> assignments;  // of each token, its assignments in order of experts
  std::vector<int64_t> token_begin;  // of `assignments`, [T + 1]
  std::vector<Buffer> buffers = std::vector<Buffer>(4);

  TensorView tensor(size_t buffer_idx, DType dtype, const Shape& shape) {
    Buffer& buffer = buffers[buffer_idx];
    const size_t size_bytes = static_cast<size_t>(shape.num_elements()) * dtype_bytes(dtype);
    if (buffer.size_bytes() < size_bytes) buffer = Buffer(MemoryKind::kHost, size_bytes);
    return {buffer.data(), dtype, shape};
  }
};

void assign(const TensorView& routes, Work& work) {
  work.batches.clear();
  work.tokens.clear();
  const int64_t num_tokens = routes.shape[0];
  work.token_begin.assign(static_cast<size_t>(num_tokens) + 1, 0);
  for (int64_t expert = 0; expert < routes.shape[1]; ++expert) {
    const auto begin = static_cast<int64_t>(work.tokens.size());
    for (int64_t t = 0; t < num_tokens; ++t) {
      if (routes.row<float>(t)[expert] == 0.0F) continue;
      work.tokens.push_back(t);
      ++work.token_begin[static_cast<size_t>(t) + 1];
    }
    const auto count = static_cast<int64_t>(work.tokens.size()) - begin;
    if (count > 0) work.batches.push_back({expert, begin, count});
  }
  for (size_t t = 0; t + 1 < work.token_begin.size(); ++t) {
    work.token_begin[t + 1] += work.token_begin[t];
  }
  std::vector<int64_t> next(work.token_begin.begin(), work.token_begin.end());
  work.assignments.resize(work.tokens.size());
  for (size_t i = 0; i < work.tokens.size(); ++i) {
    const auto token = static_cast<size_t>(work.tokens[i]);
    work.assignments[static_cast<size_t>(next[token]++)] = static_cast<int64_t>(i);
  }
}

// out rows = x rows times each expert's matrix.  x [A, K], weights [X, N, K], biases [X, N] or an
// empty view, out [A, N].
void multiply(const Work& work,
              const TensorView& x,
              const WeightView& weights,
              const TensorView& biases,
              const TensorView& out,
              ThreadPool& pool) {
  const int64_t num_rows = weights.shape()[1];
  const int64_t num_blocks = ceil_div(num_rows, kRowBlock);
  const auto multiply_block = [&](int64_t task) {
    const Batch& batch = work.batches[static_cast<size_t>(task / num_blocks)];
    const TensorView bias =
        biases.empty() ? TensorView()
                       : TensorView(biases.rows(batch.expert, 1).data, biases.dtype, {num_rows});
    const int64_t begin = task % num_blocks * kRowBlock;
    linear_part({x.rows(batch.begin, batch.count),
                 weights.matrix(batch.expert),
                 bias,
                 out.rows(batch.begin, batch.count)},
                begin,
                std::min(begin + kRowBlock, num_rows));
  };
  pool.parallel_for(static_cast<int64_t>(work.batches.size()) * num_blocks,
                    1,
                    [&multiply_block](int64_t begin, int64_t end) {
                      for (int64_t task = begin; task < end; ++task) multiply_block(task);
                    });
}

template <typename T>
void gather(const Work& work, const TensorView& x, const TensorView& out) {
  for (size_t i = 0; i < work.tokens.size(); ++i) {
    std::memcpy(out.row<T>(static_cast<int64_t>(i)), x.row<T>(work.tokens[i]), x.row_bytes());
  }
}

float narrowed(float value, float /*like*/) {
  return value;
}
BFloat16 narrowed(float value, BFloat16 /*like*/) {
  return to_bf16(value);
}
Float16 narrowed(float value, Float16 /*like*/) {
  return to_f16(value);
}

// results [A, E] f32.
template <typename T>
void sum_experts(const ExpertsArgs& args,
                 const Work& work,
                 const TensorView& results,
                 ThreadPool& pool) {
  const int64_t width = args.out.shape[1];
  const auto expert_of = [&](int64_t assignment) {
    const auto after = std::upper_bound(
        work.batches.begin(), work.batches.end(), assignment, [](int64_t at, const Batch& batch) {
          return at < batch.begin;
        });
    return std::prev(after)->expert;
  };
  for_each_row(args.out, pool, [&](int64_t t) {
    thread_local std::vector<float> sums;
    sums.assign(static_cast<size_t>(width), 0.0F);
    const auto token = static_cast<size_t>(t);
    for (int64_t i = work.token_begin[token]; i < work.token_begin[token + 1]; ++i) {
      const int64_t assignment = work.assignments[static_cast<size_t>(i)];
      const float weight = args.routes.row<float>(t)[expert_of(assignment)];
      const float* result = results.row<float>(assignment);
      for (int64_t k = 0; k < width; ++k) sums[static_cast<size_t>(k)] += weight * result[k];
    }
    T* out = args.out.row<T>(t);
    for (int64_t k = 0; k < width; ++k) out[k] = narrowed(sums[static_cast<size_t>(k)], T());
  });
}

template <typename T>
void experts_typed(const ExpertsArgs& args, ThreadPool& pool) {
  thread_local Work work;
  assign(args.routes, work);
  const auto num_assignments = static_cast<int64_t>(work.tokens.size());
  const DType dtype = args.x.dtype;
  const int64_t inner = args.down.shape()[2];
  const TensorView x = work.tensor(0, dtype, {num_assignments, args.x.shape[1]});
  gather<T>(work, args.x, x);
  const TensorView gate_up = work.tensor(1, dtype, {num_assignments, 2 * inner});
  multiply(work, x, args.gate_up, args.gate_up_bias, gate_up, pool);
  const TensorView activated = work.tensor(2, dtype, {num_assignments, inner});
  gated_activation(
      TensorView(gate_up.data, dtype, {num_assignments, 2, inner}), args.attrs, activated, pool);
  const TensorView results = work.tensor(3, DType::kF32, {num_assignments, args.out.shape[1]});
  multiply(work, activated, args.down, args.down_bias, results, pool);
  sum_experts<T>(args, work, results, pool);
}

}  // namespace

void experts(const ExpertsArgs& args, ThreadPool& pool) {
  switch (args.x.dtype) {
    case DType::kF32:
      return experts_typed<float>(args, pool);
    case DType::kF16:
      return experts_typed<Float16>(args, pool);
    case DType::kBF16:
      return experts_typed<BFloat16>(args, pool);
    case DType::kI32:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
      break;
  }
  LAMINA_CHECK(false, "experts on a dtype that is no float");
}

}  // namespace lamina::kernels::cpu
