#include "worker/rank_group.h"

#include <algorithm>

#include "base/check.h"

namespace lamina {
namespace {

// Adds up the time spent waiting for attention.
class TimedPort final : public MicroBatchPort {
 public:
  TimedPort(AttentionBackend& backend, Duration& waited)
      : MicroBatchPort(backend, 0), waited_(waited) {}
  Status receive(int32_t attention_idx, TensorView out) override {
    const TimePoint begin = steady_clock().now();
    Status status = MicroBatchPort::receive(attention_idx, out);
    waited_ += steady_clock().now() - begin;
    return status;
  }

 private:
  Duration& waited_;
};

class CollectiveExchange final : public CollectivePort {
 public:
  void set(std::unique_ptr<Collective> collective) { collective_ = std::move(collective); }
  void abort() const { collective_->abort(); }
  Status exchange(std::span<const std::byte> mine) override { return collective_->exchange(mine); }
  [[nodiscard]] std::span<const std::span<const std::byte>> all() const override {
    return collective_->all();
  }

 private:
  std::unique_ptr<Collective> collective_;
};

// The most bytes that one exchange of a model carries.
size_t largest_exchange(const SlicedModel& model, const StepLimits& limits) {
  int64_t most = 0;
  for (const Node& node : model.graph.nodes()) {
    if (node.kind != OpKind::kAllReduce && node.kind != OpKind::kAllGather) continue;
    const ValueType& type = model.graph.type(node.inputs[0]);
    const int64_t rows = type.rows == RowAxis::kTokens ? limits.max_tokens : limits.max_logits_rows;
    most = std::max(most, rows * type.row_bytes());
  }
  return static_cast<size_t>(most);
}

}  // namespace

struct RankGroup::Rank {
  Rank(const RankModel& shard, const StepLimits& limits)
      : executor(*shard.model, *shard.weights, limits, shard.stream, &exchange) {}

  CollectiveExchange exchange;
  SliceExecutor executor;
  Status status;  // of the job; written by its thread, read when all are done
};

RankGroup::RankGroup(std::span<const RankModel> ranks,
                     const StepLimits& limits,
                     Duration exchange_timeout)
    : limits_(limits), exchange_timeout_(exchange_timeout) {
  LAMINA_CHECK(!ranks.empty());
  for (const RankModel& shard : ranks) {
    exchange_bytes_ = std::max(exchange_bytes_, largest_exchange(*shard.model, limits));
    ranks_.push_back(std::make_unique<Rank>(shard, limits));
  }
  connect();
  for (size_t rank = 1; rank < ranks_.size(); ++rank) {
    threads_.emplace_back([this, rank] { rank_loop(rank); });
  }
}

RankGroup::~RankGroup() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void RankGroup::connect() {
  auto collectives = connect_threads(num_ranks(), exchange_bytes_, exchange_timeout_);
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    ranks_[rank]->exchange.set(std::move(collectives[rank]));
  }
  is_broken_ = false;
}

Status RankGroup::run(const StepPlan& plan,
                      const StepInputs& inputs,
                      std::span<AttentionBackend* const> attention) {
  LAMINA_CHECK_EQ(attention.size(), ranks_.size());
  if (is_broken_) connect();
  {
    const std::lock_guard lock(mutex_);
    job_ = {&plan, inputs, attention};
    num_running_ = threads_.size();
    ++generation_;
  }
  changed_.notify_all();
  ranks_[0]->status = run_and_report(0, job_);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return num_running_ == 0; });
  if (!is_broken_) return {};
  // The rank that failed first made the others fail by ending their exchanges.
  for (const auto& rank : ranks_) {
    if (!rank->status.ok() && rank->status.code() != StatusCode::kUnavailable) return rank->status;
  }
  const auto failed =
      std::ranges::find_if(ranks_, [](const auto& rank) { return !rank->status.ok(); });
  return (*failed)->status;
}

void RankGroup::rank_loop(size_t rank) {
  uint64_t done = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || generation_ != done; });
    if (stopping_) return;
    done = generation_;
    const Job job = job_;
    lock.unlock();
    Status status = run_and_report(rank, job);
    lock.lock();
    ranks_[rank]->status = std::move(status);
    --num_running_;
    changed_.notify_all();
  }
}

Status RankGroup::run_and_report(size_t rank, const Job& job) {
  Status status = run_rank(rank, job);
  if (status.ok()) return status;
  const std::lock_guard lock(mutex_);
  is_broken_ = true;
  for (const auto& other : ranks_) other->exchange.abort();
  return status;
}

Status RankGroup::run_rank(size_t rank, const Job& job) {
  SliceExecutor& executor = ranks_[rank]->executor;
  AttentionBackend& attention = *job.attention[rank];
  LAMINA_RETURN_IF_ERROR(executor.begin(job.inputs));
  LAMINA_RETURN_IF_ERROR(attention.begin_step(0, *job.plan));
  const TimePoint begin = steady_clock().now();
  Duration waited{};
  TimedPort port(attention, waited);
  for (int32_t slice = 0; slice < executor.num_slices(); ++slice) {
    LAMINA_RETURN_IF_ERROR(executor.run_slice(slice, port));
  }
  if (rank == 0) {
    times_.attention_wait += waited;
    times_.slices += steady_clock().now() - begin - waited;
  }
  return {};
}

TensorView RankGroup::logits() const {
  return ranks_[0]->executor.logits();
}

size_t RankGroup::activation_bytes() const {
  size_t bytes = 0;
  for (const auto& rank : ranks_) bytes += rank->executor.activation_bytes();
  return bytes;
}

}  // namespace lamina
