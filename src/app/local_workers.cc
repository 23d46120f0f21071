#include "app/local_workers.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <random>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"

extern char** environ;

namespace lamina::app {
namespace {

constexpr Duration kStartTimeout = std::chrono::seconds(20);
constexpr Duration kStopTimeout = std::chrono::seconds(3);
constexpr auto kSupervisionInterval = std::chrono::milliseconds(50);
constexpr int kAnnounceFd = 3;  // in the child

int64_t now_ns() {
  return steady_clock().now().time_since_epoch().count();
}

// 0.1 s, doubling up to 5 s: a worker that cannot live must not spin.
Duration restart_pause(int32_t num_restarts) {
  return std::min<Duration>(std::chrono::milliseconds(100) * (1 << std::min(num_restarts, 6)),
                            std::chrono::seconds(5));
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  result.reserve(strings.size() + 1);
  for (std::string& text : strings) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

// This process's environment with the secret in it, and without settings meant for the parent
// alone.
std::vector<std::string> child_environment(const std::string& secret) {
  std::vector<std::string> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (!std::string_view(*entry).starts_with("LAMINA_")) variables.emplace_back(*entry);
  }
  variables.push_back("LAMINA_CLUSTER_SECRET=" + secret);
  return variables;
}

// posix_spawn rather than fork: other threads of this process may hold locks.
pid_t spawn_process(std::vector<std::string> arguments,
                    const std::string& secret,
                    int announce_fd) {
  std::vector<std::string> environment = child_environment(secret);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, announce_fd, kAnnounceFd);
  // Sockets of the HTTP server must not live on in a worker.
  posix_spawn_file_actions_addclosefrom_np(&actions, kAnnounceFd + 1);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t no_signals;
  sigemptyset(&no_signals);
  posix_spawnattr_setsigmask(&attributes, &no_signals);
  // A group of its own: Ctrl-C reaches the server alone, which ends its workers when it is done
  // with them.
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
  pid_t pid = -1;
  const int error = ::posix_spawn(&pid,
                                  "/proc/self/exe",
                                  &actions,
                                  &attributes,
                                  pointers(arguments).data(),
                                  pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    throw Error(StatusCode::kUnavailable,
                fmt::format("cannot start an attention worker: error {}", error));
  }
  return pid;
}

// The port that a child writes, or 0 if it ended first or the time was up.
uint16_t read_port(int fd) {
  const Deadline deadline = Deadline::after(kStartTimeout);
  std::string line;
  while (line.find('\n') == std::string::npos) {
    pollfd waiting{.fd = fd, .events = POLLIN, .revents = 0};
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline.remaining()).count();
    if (::poll(&waiting, 1, static_cast<int>(left)) <= 0) return 0;
    std::array<char, 16> chunk{};
    const ssize_t got = ::read(fd, chunk.data(), chunk.size());
    if (got <= 0) return 0;
    line.append(chunk.data(), static_cast<size_t>(got));
  }
  uint16_t port = 0;
  std::from_chars(line.data(), line.data() + line.size(), port);
  return port;
}

}  // namespace

std::string random_secret() {
  std::random_device device;
  std::string secret;
  for (int i = 0; i < 8; ++i) secret += fmt::format("{:08x}", device());
  return secret;
}

LocalWorkers::LocalWorkers(const LocalWorkersConfig& config)
    : config_(config), children_(config.cpus.size()) {
  for (size_t i = 0; i < children_.size(); ++i) {
    const uint16_t port = spawn(i, 0);
    if (port == 0) {
      for (size_t started = 0; started <= i; ++started) reap(started);
      throw Error(StatusCode::kUnavailable,
                  fmt::format("local attention worker {} did not start; its log is above", i));
    }
    addresses_.push_back({.host = "127.0.0.1", .port = port});
  }
  supervisor_ = std::thread([this] { supervise(); });
}

LocalWorkers::~LocalWorkers() {
  should_stop_ = true;
  supervisor_.join();
  for (const Child& child : children_) {  // all at once, so that they end side by side
    if (child.pid > 0) ::kill(child.pid, SIGTERM);
  }
  for (size_t i = 0; i < children_.size(); ++i) reap(i);
}

std::vector<std::string> LocalWorkers::arguments_of(size_t idx, uint16_t port) const {
  const CpuShare& cpus = config_.cpus[idx];
  std::vector<std::string> arguments = {"lamina",
                                        "attention-worker",
                                        "--listen",
                                        fmt::format("127.0.0.1:{}", port),
                                        "--threads",
                                        fmt::format("{}", cpus.num_threads),
                                        "--cpu-bind",
                                        cpus.cpus.empty() ? "none" : format_cpu_list(cpus.cpus),
                                        "--numa-node",
                                        fmt::format("{}", cpus.node),
                                        "--log-level",
                                        config_.log_level,
                                        "--parent-pid",
                                        fmt::format("{}", ::getpid()),
                                        "--gpu-memory-utilization",
                                        fmt::format("{}", config_.gpu_memory_utilization)};
  const auto add = [&](std::string flag, std::string value) {
    arguments.push_back(std::move(flag));
    arguments.push_back(std::move(value));
  };
  if (!config_.devices.empty()) add("--device", config_.devices[idx % config_.devices.size()]);
  if (config_.kv_memory_bytes != 0) {
    add("--kv-cache-memory-bytes", fmt::format("{}", config_.kv_memory_bytes));
  }
  return arguments;
}

uint16_t LocalWorkers::spawn(size_t idx, uint16_t port) {
  std::vector<std::string> arguments = arguments_of(idx, port);
  if (port != 0) {  // a restart: nobody waits, the engine asks until the worker answers
    children_[idx].pid = spawn_process(arguments, config_.secret, STDERR_FILENO);
    return port;
  }
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    throw Error(StatusCode::kResourceExhausted, "cannot make a pipe");
  }
  const FileHandle read_end(ends[0]);
  FileHandle write_end(ends[1]);
  arguments.insert(arguments.end(), {"--announce-fd", fmt::format("{}", kAnnounceFd)});
  children_[idx].pid = spawn_process(arguments, config_.secret, write_end.get());
  write_end.reset();  // so that the child's end closes the pipe
  return read_port(read_end.get());
}

void LocalWorkers::supervise() {
  while (!should_stop_) {
    for (size_t i = 0; i < children_.size(); ++i) {
      Child& child = children_[i];
      int status = 0;
      if (child.pid > 0 && ::waitpid(child.pid, &status, WNOHANG) == child.pid) {
        const Duration pause = restart_pause(child.num_restarts++);
        log_warning("local attention worker {} (pid {}) ended with {} {}; it is started again",
                    i,
                    child.pid,
                    WIFSIGNALED(status) ? "signal" : "status",
                    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        child.pid = -1;
        child.restart_at_ns = now_ns() + pause.count();
      }
      if (child.pid < 0 && now_ns() >= child.restart_at_ns) {
        try {
          spawn(i, addresses_[i].port);
        } catch (const Error& error) {
          log_error("local attention worker {}: {}", i, error.what());
          child.restart_at_ns = now_ns() + restart_pause(child.num_restarts++).count();
        }
      }
    }
    std::this_thread::sleep_for(kSupervisionInterval);
  }
}

// Tells a child to end, waits for it, and ends it by force when the time is up.
void LocalWorkers::reap(size_t idx) {
  Child& child = children_[idx];
  if (child.pid <= 0) return;
  ::kill(child.pid, SIGTERM);
  const Deadline deadline = Deadline::after(kStopTimeout);
  int status = 0;
  while (::waitpid(child.pid, &status, WNOHANG) == 0) {
    if (deadline.has_passed()) {
      ::kill(child.pid, SIGKILL);
      ::waitpid(child.pid, &status, 0);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  child.pid = -1;
}

}  // namespace lamina::app
