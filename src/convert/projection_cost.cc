#include "convert/projection_cost.h"

#include <algorithm>

namespace lamina {
namespace {

class Clock {
 public:
  Clock(const ProjectionShape& shape,
        const ProjectionRates& rates,
        const ProjectionWorkload& workload)
      : shape_(shape), rates_(rates), workload_(workload), tokens_(workload.batch) {}

  [[nodiscard]] double split_s() const {
    const double q_ready = product_s(shape_.q_width);
    return attention_s(q_ready, q_ready + product_s(shape_.kv_width));
  }
  [[nodiscard]] double fused_s() const {
    const double ready = product_s(shape_.q_width + shape_.kv_width);
    return attention_s(ready, ready);
  }

 private:
  // [tokens, in] x [in, width]: bound by arithmetic or by what it reads and writes.
  [[nodiscard]] double product_s(int64_t out_width) const {
    const auto in = static_cast<double>(shape_.in_width);
    const auto out = static_cast<double>(out_width);
    const double bytes =
        (in * out + tokens_ * (in + out)) * static_cast<double>(shape_.element_bytes);
    return rates_.launch_s +
           std::max(2.0 * tokens_ * in * out / rates_.flop_per_s, bytes / rates_.bytes_per_s);
  }

  // When the attention is complete whose q and k, v are ready to be sent at these times.
  [[nodiscard]] double attention_s(double q_ready, double kv_ready) const {
    const double q_sent = q_ready + wire_s(shape_.q_bytes);
    const double kv_sent = std::max(kv_ready, q_sent) + wire_s(shape_.kv_bytes);
    const int32_t context =
        std::min(workload_.context_len, shape_.window.value_or(workload_.context_len));
    const double read_s = tokens_ * static_cast<double>(context) *
                          static_cast<double>(shape_.kv_bytes) / rates_.attention_bytes_per_s;
    return rates_.wire_latency_s + std::max(q_sent + read_s, kv_sent);
  }
  [[nodiscard]] double wire_s(int64_t bytes_per_token) const {
    return tokens_ * static_cast<double>(bytes_per_token) / rates_.wire_bytes_per_s;
  }

  const ProjectionShape& shape_;
  const ProjectionRates& rates_;
  const ProjectionWorkload& workload_;
  double tokens_;
};

}  // namespace

ProjectionEstimate estimate_projection(const ProjectionShape& shape,
                                       const ProjectionRates& rates,
                                       const ProjectionWorkload& workload) {
  const Clock clock(shape, rates, workload);
  return {.split_us = clock.split_s() * 1e6, .fused_us = clock.fused_s() * 1e6};
}

}  // namespace lamina
