#include "support/worker_process.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "base/error.h"
#include "wire/slots.h"

namespace lamina::test {
namespace {

constexpr Duration kTimeout = std::chrono::seconds(20);

void send_text(int fd, const std::string& text) {
  const auto size = static_cast<uint32_t>(text.size());
  if (::write(fd, &size, sizeof(size)) != sizeof(size) ||
      ::write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    throw Error(StatusCode::kUnavailable, "the other process is gone");
  }
}

std::string receive_text(int fd) {
  uint32_t size = 0;
  if (::recv(fd, &size, sizeof(size), MSG_WAITALL) != sizeof(size)) {
    throw Error(StatusCode::kUnavailable, "the other process is gone");
  }
  std::string text(size, '\0');
  if (size > 0 && ::recv(fd, text.data(), size, MSG_WAITALL) != static_cast<ssize_t>(size)) {
    throw Error(StatusCode::kUnavailable, "the other process is gone");
  }
  return text;
}

}  // namespace

WorkerProcess::WorkerProcess(TransportKind kind, std::vector<AttentionWorkerConfig> parts)
    : kind_(kind), parts_(std::move(parts)) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    throw Error(StatusCode::kResourceExhausted, "no socket pair");
  }
  pid_ = ::fork();
  if (pid_ == 0) {
    ::close(ends[0]);
    to_child_ = from_child_ = ends[1];
    run_child();
  }
  ::close(ends[1]);
  to_child_ = from_child_ = ends[0];
}

WorkerProcess::~WorkerProcess() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  ::close(to_child_);
}

EndpointConfig WorkerProcess::endpoint_config(size_t part, bool is_worker) const {
  const AttentionWorkerConfig& config = parts_[part];
  const AttentionCoreConfig& core = config.core;
  const int32_t total_blocks = std::max(config.total_blocks, core.num_blocks);
  const wire::SlotGeometry geometry{
      .num_micro_batches = static_cast<uint32_t>(core.num_micro_batches),
      .max_tokens = static_cast<uint32_t>(core.max_tokens),
      .max_sequences = static_cast<uint32_t>(core.max_sequences),
      .num_blocks = static_cast<uint32_t>(total_blocks),
      .num_heads = static_cast<uint32_t>(core.num_heads),
      .num_kv_heads = static_cast<uint32_t>(core.kv.num_kv_heads),
      .head_dim = static_cast<uint32_t>(core.kv.head_dim),
      .value_dim = static_cast<uint32_t>(core.kv.value_dim),
      .latent = core.kv.latent,
      .dtype = config.dtype,
      .out_dtype = config.dtype,
      .may_be_partial = core.num_blocks < total_blocks};
  const PeerId engine{1, config.epoch};
  const PeerId worker{part + 2, config.epoch};
  const auto worker_slots = wire::attention_worker_slots(geometry);
  const auto engine_slots = wire::model_worker_slots(geometry);
  return {.kind = kind_,
          .self = is_worker ? worker : engine,
          .peer = is_worker ? engine : worker,
          .receive_slots = is_worker ? worker_slots : engine_slots,
          .send_slots = is_worker ? engine_slots : worker_slots,
          .listens = is_worker,
          .host = "127.0.0.1"};
}

void WorkerProcess::run_child() const {
  try {
    ThreadPool pool(1);
    std::vector<std::unique_ptr<Endpoint>> endpoints;
    std::vector<std::unique_ptr<AttentionWorker>> workers;
    std::vector<AttentionWorker*> served;
    for (size_t i = 0; i < parts_.size(); ++i) {
      std::vector<Endpoint*> replicas;
      for (int32_t replica = 0; replica < parts_[i].num_replicas; ++replica) {
        auto pending = prepare_endpoint(endpoint_config(i, /*is_worker=*/true));
        send_text(to_child_, pending->blob());
        endpoints.push_back(
            pending->complete(receive_text(from_child_), Deadline::after(kTimeout)));
        replicas.push_back(endpoints.back().get());
      }
      workers.push_back(
          std::make_unique<AttentionWorker>(parts_[i], std::move(replicas), StreamView(pool)));
      served.push_back(workers.back().get());
    }
    const std::atomic<bool> should_stop{false};
    static_cast<void>(AttentionWorker::serve(served, should_stop, WaitPolicy{}, kTimeout));
    ::_exit(0);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "worker process: %s\n", error.what());
    ::_exit(1);
  }
}

std::vector<std::unique_ptr<Endpoint>> WorkerProcess::connect() {
  std::vector<std::unique_ptr<Endpoint>> endpoints;
  for (size_t i = 0; i < parts_.size(); ++i) {
    for (int32_t replica = 0; replica < parts_[i].num_replicas; ++replica) {
      auto pending = prepare_endpoint(endpoint_config(i, /*is_worker=*/false));
      const std::string blob = receive_text(from_child_);
      send_text(to_child_, pending->blob());
      endpoints.push_back(pending->complete(blob, Deadline::after(kTimeout)));
    }
  }
  return endpoints;
}

}  // namespace lamina::test
