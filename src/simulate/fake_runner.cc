#include "simulate/fake_runner.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"

namespace lamina::simulate {
namespace {

Duration scaled(Duration duration, double factor) {
  return Duration(std::llround(static_cast<double>(duration.count()) * factor));
}

}  // namespace

Duration Stopwatch::draw(Duration mean) {
  if (times_.spread == 0) return mean;
  return scaled(mean, 1 + times_.spread * (2 * rng_.next_double() - 1));
}

// ---- slices ----

FakeRunner::FakeRunner(const FakeModel& model,
                       const Place& place,
                       const Stopwatch& stopwatch,
                       int32_t num_micro_batches,
                       int32_t max_tokens)
    : model_(model),
      place_(place),
      stopwatch_(stopwatch),
      max_tokens_(max_tokens),
      batches_(static_cast<size_t>(num_micro_batches)) {}

Status FakeRunner::begin(int32_t micro_batch, const StepInputs& inputs) {
  MicroBatch& batch = batches_[static_cast<size_t>(micro_batch)];
  ++batch.num_steps;
  batch.inputs = inputs;
  // What is there of the step before would be wrong: nothing must be read before it is written.
  batch.states.assign(inputs.token_ids.size(), 0xDEADDEADDEADDEADULL);
  return {};
}

// One at a time: simulated attention has no launch shape.
Status FakeRunner::run_slices(std::span<const SliceRun> runs,
                              std::span<AttentionBackend* const> attention) {
  for (const SliceRun& run : runs) {
    LAMINA_CHECK_EQ(run.count(), 1);
    LAMINA_RETURN_IF_ERROR(run_slice(run.micro_batch, run.begin, attention));
  }
  return {};
}

Status FakeRunner::run_slice(int32_t micro_batch,
                             int32_t slice_idx,
                             std::span<AttentionBackend* const> attention) {
  MicroBatch& batch = batches_[static_cast<size_t>(micro_batch)];
  SimHost& host = *place_.host;
  place_.record->begin_slice(
      {.worker_idx = place_.idx, .micro_batch = micro_batch, .begin = host.now()},
      batch.num_steps - 1,
      slice_idx);
  if (slice_idx > 0) {
    LAMINA_RETURN_IF_ERROR(absorb(batch, micro_batch, slice_idx - 1, *attention[0]));
  } else {
    for (size_t row = 0; row < batch.states.size(); ++row) {
      batch.states[row] =
          FakeModel::embed(batch.inputs.token_ids[row], batch.inputs.positions[row]);
    }
  }
  if (slice_idx + 1 == num_slices()) {
    host.compute(stopwatch_.draw(stopwatch_.times().last_slice));
    write_logits(batch);
    return {};
  }
  const Status sent = send(batch, micro_batch, slice_idx, *attention[0]);
  place_.record->end_slice(place_.idx, host.now());
  return sent;
}

Status FakeRunner::absorb(MicroBatch& batch,
                          int32_t micro_batch,
                          int32_t layer,
                          AttentionBackend& attention) {
  const FakeModelConfig& config = model_.config();
  const auto num_heads = static_cast<size_t>(config.num_heads);
  const auto value_dim = static_cast<size_t>(config.value_dim);
  const size_t num_rows = batch.states.size();
  out_.assign(num_rows * num_heads * value_dim, NAN);
  sums_.resize(num_heads * value_dim);
  LAMINA_RETURN_IF_ERROR(
      attention.receive(micro_batch, layer, view(out_, num_rows, config.num_heads)));
  for (size_t row = 0; row < num_rows; ++row) {
    FakeModel::State& state = batch.states[row];
    for (size_t head = 0; head < num_heads; ++head) {
      const int32_t cls = FakeModel::query_class(state, layer, static_cast<int32_t>(head));
      const int32_t num_seen = model_.num_seen(layer, batch.inputs.positions[row], cls);
      for (size_t dim = 0; dim < value_dim; ++dim) {
        const size_t idx = head * value_dim + dim;
        sums_[idx] = sum_of(out_[row * sums_.size() + idx], num_seen);
      }
    }
    state = FakeModel::absorb(state, layer, sums_);
  }
  return {};
}

// What attention gives is the mean over the keys seen: times their number an integer, or wrong.
int64_t FakeRunner::sum_of(float mean, int32_t num_seen) const {
  constexpr int64_t kWrong = -1;
  const double sum = static_cast<double>(mean) * num_seen;
  const double limit = double{FakeModel::kMaxValue} * model_.config().max_positions;
  if (!(sum > -0.5 && sum < limit)) return kWrong;
  const int64_t nearest = std::llround(sum);
  return std::abs(sum - static_cast<double>(nearest)) < 0.25 ? nearest : kWrong;
}

Status FakeRunner::send(const MicroBatch& batch,
                        int32_t micro_batch,
                        int32_t layer,
                        AttentionBackend& attention) {
  const FakeModelConfig& config = model_.config();
  const Duration whole = stopwatch_.draw(stopwatch_.times().slice);
  const Duration before_q = scaled(whole, stopwatch_.times().q_share);
  const size_t num_rows = batch.states.size();
  place_.host->compute(before_q);
  write_queries(batch, layer);
  LAMINA_RETURN_IF_ERROR(
      attention.send_q(micro_batch, layer, view(q_, num_rows, config.num_heads)));
  place_.host->compute(whole - before_q);
  write_keys_and_values(batch, layer);
  return attention.send_kv(micro_batch,
                           layer,
                           view(k_, num_rows, config.num_kv_heads),
                           view(v_, num_rows, config.num_kv_heads));
}

void FakeRunner::write_queries(const MicroBatch& batch, int32_t layer) {
  const FakeModelConfig& config = model_.config();
  q_.assign(batch.states.size() * static_cast<size_t>(config.num_heads * config.head_dim), 0.0F);
  float* query = q_.data();
  for (const FakeModel::State state : batch.states) {
    for (int32_t head = 0; head < config.num_heads; ++head) {
      query[FakeModel::query_class(state, layer, head)] = FakeModel::kMatchScore;
      query += config.head_dim;
    }
  }
}

void FakeRunner::write_keys_and_values(const MicroBatch& batch, int32_t layer) {
  const FakeModelConfig& config = model_.config();
  k_.assign(batch.states.size() * static_cast<size_t>(config.num_kv_heads * config.head_dim), 0.0F);
  v_.clear();
  float* key = k_.data();
  for (size_t row = 0; row < batch.states.size(); ++row) {
    for (int32_t head = 0; head < config.num_kv_heads; ++head) {
      key[FakeModel::key_class(layer, batch.inputs.positions[row])] = 1.0F;
      key += config.head_dim;
      for (int32_t dim = 0; dim < config.value_dim; ++dim) {
        v_.push_back(static_cast<float>(FakeModel::value_of(batch.states[row], layer, head, dim)));
      }
    }
  }
}

void FakeRunner::write_logits(const MicroBatch& batch) {
  const auto vocab_size = static_cast<size_t>(model_.config().vocab_size);
  logits_.assign(batch.inputs.logits_rows.size() * vocab_size, 0.0F);
  for (size_t i = 0; i < batch.inputs.logits_rows.size(); ++i) {
    const auto row = static_cast<size_t>(batch.inputs.logits_rows[i]);
    logits_[i * vocab_size + static_cast<size_t>(model_.next_token(batch.states[row]))] = 1.0F;
  }
}

TensorView FakeRunner::logits() const {
  const int64_t vocab_size = model_.config().vocab_size;
  // Whoever runs a slice before it takes them samples from another's.
  place_.record->end_slice(place_.idx, place_.host->now());
  // Sampling overwrites it.
  auto* data = const_cast<float*>(logits_.data());
  return {data, DType::kF32, {static_cast<int64_t>(logits_.size()) / vocab_size, vocab_size}};
}

TensorView FakeRunner::view(std::vector<float>& values, size_t rows, int32_t heads) {
  const auto width = static_cast<int64_t>(values.size() / rows / static_cast<size_t>(heads));
  return {values.data(), DType::kF32, {static_cast<int64_t>(rows), heads, width}};
}

// ---- carried values ----

size_t FakeRunner::carried_bytes(int32_t micro_batch, int32_t /*slice_idx*/) const {
  return batches_[static_cast<size_t>(micro_batch)].states.size() * sizeof(FakeModel::State);
}

void FakeRunner::pack_carried(int32_t micro_batch,
                              int32_t /*slice_idx*/,
                              std::span<std::byte> to) const {
  const MicroBatch& batch = batches_[static_cast<size_t>(micro_batch)];
  LAMINA_CHECK_EQ(to.size(), batch.states.size() * sizeof(FakeModel::State));
  std::memcpy(to.data(), batch.states.data(), to.size());
}

void FakeRunner::unpack_carried(int32_t micro_batch,
                                int32_t /*slice_idx*/,
                                std::span<const std::byte> from) {
  MicroBatch& batch = batches_[static_cast<size_t>(micro_batch)];
  LAMINA_CHECK_EQ(from.size(), batch.states.size() * sizeof(FakeModel::State));
  std::memcpy(batch.states.data(), from.data(), from.size());
}

size_t FakeRunner::max_carried_bytes() const {
  return static_cast<size_t>(max_tokens_) * sizeof(FakeModel::State);
}

// ---- attention ----

TimedCore::TimedCore(const AttentionCoreConfig& config,
                     StreamView stream,
                     const Place& place,
                     const Stopwatch& stopwatch)
    : AttentionCore(config, stream),
      place_(place),
      stopwatch_(stopwatch),
      num_attentions_(static_cast<size_t>(config.num_micro_batches)),
      has_started_(static_cast<size_t>(config.num_micro_batches)) {}

Status TimedCore::start(int32_t micro_batch, int32_t layer_idx, TensorView q) {
  const ComputeTimes& times = stopwatch_.times();
  has_started_[static_cast<size_t>(micro_batch)] = true;
  place_.host->compute(stopwatch_.draw(scaled(times.attention, times.early_share)));
  return AttentionCore::start(micro_batch, layer_idx, q);
}

Status TimedCore::attend(
    int32_t micro_batch, int32_t layer_idx, TensorView q, TensorView out, TensorView lse) {
  const ComputeTimes& times = stopwatch_.times();
  const auto idx = static_cast<size_t>(micro_batch);
  const double share = has_started_[idx] ? 1 - times.early_share : 1;
  has_started_[idx] = false;
  Work work{.worker_idx = place_.idx,
            .micro_batch = micro_batch,
            .slice = num_attentions_[idx]++,
            .begin = place_.host->now()};
  place_.host->compute(stopwatch_.draw(scaled(times.attention, share)));
  work.end = place_.host->now();
  place_.record->add_attention(work);
  return AttentionCore::attend(micro_batch, layer_idx, q, out, lse);
}

}  // namespace lamina::simulate
