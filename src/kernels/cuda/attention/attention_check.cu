// Compares the CUDA attention kernels with plain sums in double precision on the host, over
// generated steps. Prints a line for each step that differs; the exit status is 1 if one does.
//   lamina_attention_check [n]     one of n of them, for compute-sanitizer, which is slow
#include <cmath>
#include <cstdio>
#include <thread>

#include "kernels/cuda/attention/swizzle.cuh"
#include "kernels/cuda/testing/check_program.h"
#include "kernels/cuda/testing/paged_case.cuh"

namespace lamina::kernels::cuda::testing {
namespace {

// Attention of one row, as kernels/attention.h defines it.
template <typename Element, typename Cached>
class HostAttention {
 public:
  explicit HostAttention(const PagedCase<Element, Cached>& c)
      : shape_(c.shape()),
        tables_(c.tables()),
        q_(c.q().to_host()),
        keys_(c.k_cache().to_host()),
        values_(c.shape().is_latent() ? keys_ : c.v_cache().to_host()),
        key_scales_(c.k_scales().to_host()),
        value_scales_(c.v_scales().to_host()),
        slopes_(c.slopes().to_host()),
        sinks_(c.sinks().to_host()) {}

  // Of query token `token` of sequence b; returns the log-sum-exp.
  double row(size_t b, int32_t token, int32_t head, std::vector<double>& out) const {
    const int32_t position = shape_.context_len[b] - shape_.num_queries[b] + token;
    const int32_t first = shape_.window > 0 ? std::max(0, position - shape_.window + 1) : 0;
    const Element* query = q_.data() + (static_cast<size_t>(tables_.query_begin[b] + token) *
                                            static_cast<size_t>(shape_.num_heads) +
                                        static_cast<size_t>(head)) *
                                           static_cast<size_t>(shape_.head_dim);
    std::vector<double> scores;
    std::vector<size_t> rows;
    double greatest = shape_.has_sinks ? sinks_[static_cast<size_t>(head)] : -INFINITY;
    for (int32_t j = first; j <= position; ++j) {
      if (tables_.block(b, j, shape_) < 0) continue;
      rows.push_back(tables_.row(b, j, head / (shape_.num_heads / shape_.num_kv_heads), shape_));
      scores.push_back(score(query, rows.back(), head, j - position));
      greatest = std::max(greatest, scores.back());
    }
    double total = shape_.has_sinks ? std::exp(sinks_[static_cast<size_t>(head)] - greatest) : 0.0;
    out.assign(static_cast<size_t>(shape_.value_dim()), 0.0);
    for (size_t i = 0; i < rows.size(); ++i) {
      const double weight = std::exp(scores[i] - greatest);
      total += weight;
      for (int32_t d = 0; d < shape_.value_dim(); ++d) {
        out[static_cast<size_t>(d)] += weight * element(values_, value_scales_, rows[i], d);
      }
    }
    if (total > 0.0) {
      for (double& value : out) value /= total;
    }
    return total > 0.0 ? greatest + std::log(total) : -INFINITY;
  }

 private:
  double score(const Element* query, size_t row, int32_t head, int32_t distance) const {
    double sum = 0.0;
    for (int32_t d = 0; d < shape_.head_dim; ++d) {
      sum +=
          static_cast<double>(static_cast<float>(query[d])) * element(keys_, key_scales_, row, d);
    }
    sum *= PagedCase<Element, Cached>::kScale;
    if (shape_.soft_cap > 0.0F) sum = shape_.soft_cap * std::tanh(sum / shape_.soft_cap);
    if (shape_.has_alibi) sum += slopes_[static_cast<size_t>(head)] * distance;
    return sum;
  }

  double element(const std::vector<Cached>& cache,
                 const std::vector<float>& scales,
                 size_t row,
                 int32_t d) const {
    constexpr int kChunk = 16 / static_cast<int>(sizeof(Cached));
    const int token = static_cast<int>(row % static_cast<size_t>(shape_.block_size));
    const int chunk = swizzled_chunk(shape_.head_dim / kChunk, token, d / kChunk);
    const Cached found = cache[row * static_cast<size_t>(shape_.head_dim) +
                               static_cast<size_t>(chunk * kChunk + d % kChunk)];
    if constexpr (is_code<Cached>) {
      return static_cast<double>(widen(found)) * scales[row];
    } else {
      return static_cast<float>(found);
    }
  }

  const CaseShape& shape_;
  const CaseTables& tables_;
  std::vector<Element> q_;
  std::vector<Cached> keys_;
  std::vector<Cached> values_;
  std::vector<float> key_scales_;
  std::vector<float> value_scales_;
  std::vector<float> slopes_;
  std::vector<float> sinks_;
};

struct Difference {
  double out = 0.0;  // of all rows together, relative
  double lse = 0.0;  // the greatest, absolute
};

template <typename Element, typename Cached>
Difference compare(const PagedCase<Element, Cached>& c) {
  const CaseShape& shape = c.shape();
  const HostAttention<Element, Cached> host(c);
  const std::vector<Element> raw = c.out().to_host();
  const std::vector<float> lses = c.lse().to_host();
  const auto got = [&](size_t i) -> double {
    return shape.out_is_f32 ? reinterpret_cast<const float*>(raw.data())[i]
                            : static_cast<float>(raw[i]);
  };
  // Heads are shared out among threads.
  struct Part {
    double error = 0.0;
    double norm = 1e-30;
    double lse = 0.0;
  };
  const auto compare_head = [&](int32_t h, Part& part) {
    std::vector<double> out;
    for (size_t b = 0; b < shape.context_len.size(); ++b) {
      for (int32_t t = 0; t < shape.num_queries[b]; ++t) {
        const double lse = host.row(b, t, h, out);
        const size_t place = static_cast<size_t>(c.tables().query_begin[b] + t) *
                                 static_cast<size_t>(shape.num_heads) +
                             static_cast<size_t>(h);
        for (size_t d = 0; d < out.size(); ++d) {
          const double by = got(place * out.size() + d) - out[d];
          part.error += by * by;
          part.norm += out[d] * out[d];
        }
        const double by = lse == lses[place] ? 0.0 : std::abs(lse - lses[place]);
        part.lse = by <= part.lse ? part.lse : by;  // NaN stays
      }
    }
  };
  std::vector<Part> parts(static_cast<size_t>(shape.num_heads));
  std::vector<std::thread> threads;
  for (int32_t h = 0; h < shape.num_heads; ++h) {
    threads.emplace_back([&, h] { compare_head(h, parts[static_cast<size_t>(h)]); });
  }
  for (std::thread& thread : threads) thread.join();
  Part all;
  for (const Part& part : parts) {
    all.error += part.error;
    all.norm += part.norm;
    all.lse = part.lse <= all.lse ? all.lse : part.lse;
  }
  return {std::sqrt(all.error / all.norm), all.lse};
}

// What dtypes allow: weights and results are rounded to them.
template <typename Element, typename Cached = Element>
void run(const char* name, const CaseShape& shape, bool drops_blocks = false) {
  if (!cases.takes_next()) return;
  PagedCase<Element, Cached> c(shape, static_cast<uint64_t>(cases.num_run));
  if (drops_blocks) c.drop_blocks(3);
  c.poison_free_places();
  const double limit = std::is_same_v<Element, __half> ? 1e-3 : 8e-3;
  for (int launch = 0; launch < 2; ++launch) {  // the second finds counters as the first left them
    c.out().fill_bytes(0xFF);
    c.lse().fill_bytes(0xFF);
    LAMINA_REQUIRE_CUDA(c.launch(nullptr));
    LAMINA_REQUIRE_CUDA(cudaDeviceSynchronize());
    const Difference difference = compare(c);
    if (difference.out < limit && difference.lse < 2e-3) continue;
    ++cases.num_failed;
    std::printf("FAILED %s, launch %d: head_dim %d, heads %d/%d, block %d: out %.2e, lse %.2e\n",
                name,
                launch,
                shape.head_dim,
                shape.num_heads,
                shape.num_kv_heads,
                shape.block_size,
                difference.out,
                difference.lse);
  }
}

// Keys in which values lie.
template <typename Element>
void run_latent() {
  const std::vector<int32_t> ones(7, 1);
  const std::vector<int32_t> contexts = {1, 15, 16, 65, 512, 513, 1200};
  for (const int32_t num_heads : {1, 5, 16, 17, 64, 128}) {
    run<Element>("latent", {num_heads, 1, kLatentKeyDim, 64, ones, contexts});
  }
  for (const int32_t block_size : {16, 32, 64, 128}) {
    for (const int32_t num_heads : {16, 40}) {
      CaseShape shape{
          num_heads, 1, kLatentKeyDim, block_size, {1, 3, 20, 1}, {600, 77, 2200, 1200}};
      run<Element>("latent chunks", shape);
      run<Element>("latent blocks elsewhere", shape, true);
      shape.out_is_f32 = true;
      shape.window = 100;
      run<Element>("latent window", shape);
      shape.soft_cap = 5.0F;
      shape.has_sinks = true;
      shape.has_alibi = true;
      run<Element>("latent, all forms", shape);
    }
  }
}

template <typename Element, typename Cached = Element>
void run_all() {
  const std::vector<int32_t> ones(7, 1);
  const std::vector<int32_t> contexts = {1, 15, 16, 65, 512, 513, 1200};
  for (const int32_t dim : {64, 80, 96, 128, 192, 256}) {
    for (const int32_t group : {1, 3, 8, 16}) {
      run<Element, Cached>("decode", {2 * group, 2, dim, 16, ones, contexts});
    }
    run<Element, Cached>("decode, many heads", {24, 1, dim, 64, {1, 1}, {700, 130}});
    run<Element, Cached>("chunks", {8, 2, dim, 32, {5, 70, 1, 33}, {5, 600, 900, 64}});
  }
  for (const int32_t block_size : {16, 32, 64, 128}) {
    CaseShape shape{8, 2, 128, block_size, {1, 3, 20, 1}, {600, 77, 2200, 1200}};
    run<Element, Cached>("blocks", shape);
    run<Element, Cached>("blocks elsewhere", shape, true);
    shape.out_is_f32 = true;
    shape.window = 100;
    run<Element, Cached>("window", shape);
    shape.window = 0;
    shape.soft_cap = 5.0F;
    run<Element, Cached>("soft cap", shape);
    shape.soft_cap = 0.0F;
    shape.has_sinks = true;
    run<Element, Cached>("sinks", shape);
    shape.has_alibi = true;
    run<Element, Cached>("ALiBi", shape);
  }
}

}  // namespace
}  // namespace lamina::kernels::cuda::testing

int main(int argc, char** argv) {
  using namespace lamina::kernels::cuda;
  using namespace lamina::kernels::cuda::testing;
  return run_checks(argc, argv, "steps of attention", [] {
    run_all<__nv_bfloat16>();
    run_all<__half>();
    run_all<__nv_bfloat16, E4M3>();
    run_all<__nv_bfloat16, I8>();
    run_latent<__nv_bfloat16>();
    run_latent<__half>();
  });
}
