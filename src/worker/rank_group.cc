#include "worker/rank_group.h"

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "worker/packing.h"

namespace lamina {
namespace {

// How often somebody looks whether GPUs wait for ever.
constexpr Duration kWatchInterval = std::chrono::milliseconds(500);

// The exchange that there is: a group that failed gets others.
class CurrentExchange final : public CollectivePort {
 public:
  void set(std::unique_ptr<RankExchange> exchange) { exchange_ = std::move(exchange); }
  void abort() const { exchange_->abort(); }
  Status exchange(std::span<const std::byte> mine) override { return exchange_->exchange(mine); }
  [[nodiscard]] std::span<const std::span<const std::byte>> all() const override {
    return exchange_->all();
  }

 private:
  std::unique_ptr<RankExchange> exchange_;
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
  Rank(const RankModel& shard, const StepLimits& limits, int32_t num_micro_batches)
      : stream(shard.stream),
        executor(*shard.model, *shard.weights, limits, num_micro_batches, shard.stream, &exchange) {
  }

  StreamView stream;
  CurrentExchange exchange;
  SliceExecutor executor;
  Status status;  // of the job; written by its thread, read when all are done
};

RankGroup::RankGroup(std::span<const RankModel> ranks,
                     const StepLimits& limits,
                     int32_t num_micro_batches,
                     Duration exchange_timeout)
    : limits_(limits), exchange_timeout_(exchange_timeout), last_call_(steady_clock().now()) {
  LAMINA_CHECK(!ranks.empty());
  for (const RankModel& shard : ranks) {
    exchange_bytes_ = std::max(exchange_bytes_, largest_exchange(*shard.model, limits));
    ranks_.push_back(std::make_unique<Rank>(shard, limits, num_micro_batches));
  }
  connect();
  for (size_t rank = 1; rank < ranks_.size(); ++rank) {
    threads_.emplace_back([this, rank] { rank_loop(rank); });
  }
  if (ranks_.size() > 1 && ranks_[0]->stream.device().kind == DeviceKind::kCuda) {
    threads_.emplace_back([this] { watch(); });
  }
  use_device_of(ranks_[0]->stream);
}

RankGroup::~RankGroup() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  stopped_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  forget_graphs();
}

void RankGroup::forget_graphs() {
  for (const auto& rank : ranks_) rank->executor.forget_graphs();
}

void RankGroup::connect() {
  std::vector<StreamView> streams;
  for (const auto& rank : ranks_) streams.push_back(rank->stream);
  auto exchanges = connect_ranks(streams, exchange_bytes_, exchange_timeout_);
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    ranks_[rank]->exchange.set(std::move(exchanges[rank]));
  }
}

// After an error, when no rank runs.
Status RankGroup::reconnect() {
  for (const auto& rank : ranks_) {
    // What was under way has been aborted: it ends.
    LAMINA_RETURN_IF_ERROR(synchronize(rank->stream));
    rank->executor.forget_graphs();
  }
  try {
    connect();
  } catch (const Error& error) {
    return error.status();
  }
  const std::lock_guard lock(mutex_);
  is_broken_ = is_late_ = false;
  return {};
}

int32_t RankGroup::num_slices() const {
  return ranks_[0]->executor.num_slices();
}

Status RankGroup::begin(int32_t micro_batch, const StepInputs& inputs) {
  if (!check_exchanges().ok()) LAMINA_RETURN_IF_ERROR(reconnect());
  {
    const std::lock_guard lock(mutex_);
    last_call_ = steady_clock().now();
  }
  for (const auto& rank : ranks_) {
    LAMINA_RETURN_IF_ERROR(rank->executor.begin(micro_batch, inputs));
  }
  use_device_of(ranks_[0]->stream);
  return {};
}

int64_t RankGroup::num_rows(int32_t micro_batch) const {
  return ranks_[0]->executor.num_rows(micro_batch);
}

Status RankGroup::run_slices(std::span<const SliceRun> runs,
                             std::span<AttentionBackend* const> attention) {
  LAMINA_CHECK_EQ(attention.size(), ranks_.size());
  const Job job = {runs, attention};
  if (threads_.empty()) return ranks_[0]->status = run_and_report(0, job);
  {
    const std::lock_guard lock(mutex_);
    job_ = job;
    num_running_ = ranks_.size() - 1;
    is_running_ = true;
    last_call_ = steady_clock().now();
    ++generation_;
  }
  changed_.notify_all();
  ranks_[0]->status = run_and_report(0, job);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return num_running_ == 0; });
  is_running_ = false;
  last_call_ = steady_clock().now();
  return is_broken_ ? first_error() : Status();
}

Status RankGroup::check_exchanges() {
  const std::lock_guard lock(mutex_);
  return is_broken_ ? first_error() : Status();
}

// The rank that failed first made the others fail by ending their exchanges.
Status RankGroup::first_error() const {
  Status first;
  if (is_late_) first = deadline_exceeded("GPUs have waited for each other for too long");
  for (const auto& rank : ranks_) {
    if (rank->status.ok()) continue;
    if (rank->status.code() != StatusCode::kUnavailable) return rank->status;
    if (first.ok()) first = rank->status;
  }
  return first;
}

void RankGroup::rank_loop(size_t rank) {
  ranks_[rank]->stream.adopt_this_thread();
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
  std::vector<MicroBatchPort> own;
  std::vector<AttentionPort*> ports;
  own.reserve(job.runs.size());
  for (const SliceRun& run : job.runs) {
    ports.push_back(&own.emplace_back(*job.attention[rank], run.micro_batch));
  }
  Status status = ranks_[rank]->executor.run_slices(job.runs, ports);
  if (status.ok()) return status;
  const std::lock_guard lock(mutex_);
  break_off();
  return status;
}

void RankGroup::break_off() {
  is_broken_ = true;
  for (const auto& rank : ranks_) rank->exchange.abort();
}

// Threads of ranks have deadlines, streams have none: a GPU waits for another as long as it takes.
void RankGroup::watch() {
  use_device_of(ranks_[0]->stream);
  std::unique_lock lock(mutex_);
  while (!stopped_.wait_for(lock, kWatchInterval, [this] { return stopping_; })) {
    if (is_broken_ || !is_stuck()) continue;
    is_late_ = true;
    break_off();
  }
}

// No step or slice has begun or ended for long, and one is under way or has left work behind.
bool RankGroup::is_stuck() const {
  if (steady_clock().now() - last_call_ < exchange_timeout_) return false;
  return is_running_ || std::ranges::any_of(ranks_, [](const auto& rank) {
           return has_pending_work(rank->stream);
         });
}

TensorView RankGroup::logits() const {
  return ranks_[0]->executor.logits();
}

size_t RankGroup::carried_bytes(int32_t micro_batch, int32_t slice_idx) const {
  size_t bytes = 0;
  for (const auto& rank : ranks_) {
    for (const TensorView& value : rank->executor.carried(micro_batch, slice_idx)) {
      bytes += value.size_bytes();
    }
  }
  return bytes;
}

void RankGroup::pack_carried(int32_t micro_batch,
                             int32_t slice_idx,
                             std::span<std::byte> to) const {
  for (const auto& rank : ranks_) {
    for (const TensorView& value : rank->executor.carried(micro_batch, slice_idx)) {
      pack_rows(value, to);
      to = to.subspan(value.size_bytes());
    }
  }
}

void RankGroup::unpack_carried(int32_t micro_batch,
                               int32_t slice_idx,
                               std::span<const std::byte> from) {
  for (const auto& rank : ranks_) {
    for (const TensorView& value : rank->executor.carried(micro_batch, slice_idx)) {
      unpack_rows(from.first(value.size_bytes()), value);
      from = from.subspan(value.size_bytes());
    }
  }
}

size_t RankGroup::max_carried_bytes() const {
  size_t bytes = 0;
  for (const auto& rank : ranks_) bytes += rank->executor.max_carried_bytes();
  return bytes;
}

size_t RankGroup::activation_bytes() const {
  size_t bytes = 0;
  for (const auto& rank : ranks_) bytes += rank->executor.activation_bytes();
  return bytes;
}

}  // namespace lamina
