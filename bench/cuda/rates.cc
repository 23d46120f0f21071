#include "rates.h"

#include <algorithm>
#include <array>
#include <atomic>

#include "base/error.h"
#include "card_reads.h"
#include "kernels/cuda/products/blas_lt.h"
#include "kernels/linear.h"
#include "random_model.h"

namespace lamina::bench {
namespace {

// What is read is used, or the compiler would leave it out.
uint64_t sum_words(const uint64_t* words, int64_t count) {
  constexpr int64_t kLanes = 8;
  std::array<uint64_t, kLanes> sums{};
  for (int64_t i = 0; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      sums[static_cast<size_t>(lane)] += words[i + lane];
    }
  }
  uint64_t sum = 0;
  for (const uint64_t part : sums) sum += part;
  return sum;
}

}  // namespace

double measure_products(StreamView stream, int64_t num_rows) {
  struct Weight {
    int64_t width, depth;
  };
  constexpr int kCalls = 20;
  const auto seconds_of = [&](const auto& multiply) {
    return median_seconds(2,
                          5,
                          stream,
                          [&] {
                            for (int i = 0; i < kCalls; ++i) throw_if_error(multiply());
                          }) /
           kCalls;
  };
  // The first three stay in the cache, so that few rows are not measured by how memory is read.
  constexpr std::array<Weight, 5> kWeights = {
      {{16384, 1024}, {8192, 2048}, {4096, 4096}, {8192, 8192}, {28672, 8192}}};
  use_device_of(stream);
  double best = 0.0;
  for (const auto& [width, depth] : kWeights) {
    const Buffer x = random_numbers(static_cast<size_t>(num_rows * depth), stream);
    const Buffer weight = random_numbers(static_cast<size_t>(width * depth), stream);
    const Buffer out(MemoryKind::kCuda, static_cast<size_t>(num_rows * width) * sizeof(BFloat16));
    // Of few rows the operator's are our own, made for weights in memory: of those in the cache
    // cuBLASLt's may be faster.
    const auto by_operator = [&] {
      return kernels::linear({.x = {x.data(), DType::kBF16, {num_rows, depth}},
                              .weight = TensorView(weight.data(), DType::kBF16, {width, depth}),
                              .bias = {},
                              .out = {out.data(), DType::kBF16, {num_rows, width}}},
                             stream);
    };
    const auto by_library = [&] {
      return kernels::cuda::multiply({.x = x.data(),
                                      .weight = weight.data(),
                                      .out = out.data(),
                                      .dtype = DType::kBF16,
                                      .out_dtype = DType::kBF16,
                                      .num_rows = num_rows,
                                      .num_columns = width,
                                      .depth = depth,
                                      .x_strides = {.row_stride = depth},
                                      .weight_strides = {.row_stride = depth},
                                      .out_strides = {.row_stride = width}},
                                     stream);
    };
    const auto work = 2.0 * static_cast<double>(num_rows * width * depth);
    best = std::max({best, work / seconds_of(by_operator), work / seconds_of(by_library)});
  }
  return best;
}

DeviceRates measure_card(StreamView stream) {
  constexpr int64_t kManyRows = 8192;
  use_device_of(stream);
  return {measure_card_reads(), measure_products(stream, kManyRows)};
}

double measure_host_reads(ThreadPool& pool) {
  constexpr int64_t kBytes = int64_t{4} << 30;
  constexpr int64_t kPiece = int64_t{1} << 20;
  constexpr int64_t kWords = kPiece / static_cast<int64_t>(sizeof(uint64_t));
  const Buffer memory(MemoryKind::kHost, kBytes);
  auto* words = reinterpret_cast<uint64_t*>(memory.data());
  pool.parallel_for(kBytes / kPiece, 1, [&](int64_t begin, int64_t end) {
    std::fill(words + begin * kWords, words + end * kWords, uint64_t{1});
  });
  std::atomic<uint64_t> sum{0};
  const double seconds = median_seconds(1, 7, StreamView(pool), [&] {
    pool.parallel_for(kBytes / kPiece, 1, [&](int64_t begin, int64_t end) {
      sum += sum_words(words + begin * kWords, (end - begin) * kWords);
    });
  });
  return static_cast<double>(kBytes) / seconds;
}

LinkRates measure_link(StreamView stream) {
  constexpr size_t kBytes = size_t{256} << 20;
  const Buffer card(MemoryKind::kCuda, kBytes);
  const Buffer host(MemoryKind::kPinnedHost, kBytes);
  const auto rate = [&](const Buffer& to, const Buffer& from) {
    return kBytes / median_seconds(2, 9, stream, [&] {
             throw_if_error(copy(to.data(), from.data(), kBytes, stream));
           });
  };
  return {.to_host = rate(host, card), .to_card = rate(card, host)};
}

}  // namespace lamina::bench
