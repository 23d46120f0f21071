#include "transport/endpoint_testing.h"

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>
#include <thread>

#include "base/check.h"
#include "base/error.h"
#include "base/rng.h"

namespace lamina::transport_testing {
namespace {

constexpr uint64_t kListenerId = 1;
constexpr uint64_t kConnectorId = 2;

// One blob over a datagram socket: the control plane of these tests.
void send_blob(int socket, const std::string& blob) {
  LAMINA_CHECK_EQ(::send(socket, blob.data(), blob.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(blob.size()));
}
std::string receive_blob(int socket) {
  std::array<char, 1024> text{};
  const ssize_t got = ::recv(socket, text.data(), text.size(), 0);
  LAMINA_CHECK(got > 0, "no blob from the other process");
  return {text.data(), static_cast<size_t>(got)};
}

[[noreturn]] void run_child(const EndpointConfig& config,
                            int control,
                            const std::function<bool(Endpoint&)>& body) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  bool good = false;
  try {
    const auto pending = prepare_endpoint(config);
    send_blob(control, pending->blob());
    const auto endpoint = pending->complete(receive_blob(control), patience());
    good = body(*endpoint);
  } catch (const Error& error) {
    std::fprintf(stderr, "child: %s\n", error.what());
  }
  ::_exit(good ? 0 : 1);
}

}  // namespace

constexpr uint32_t kDeviceSlotBytes = 4096;  // cuda_p2p alone

EndpointConfig listener_config(TransportKind kind, const Slots& slots, uint64_t epoch) {
  return {.kind = kind,
          .self = {.id = kListenerId, .epoch = epoch},
          .peer = {.id = kConnectorId, .epoch = epoch},
          .receive_slots = slots.to_listener,
          .send_slots = slots.to_connector,
          .listens = true,
          .device_receive_slots = {kDeviceSlotBytes},
          .device_send_slots = {kDeviceSlotBytes}};
}

EndpointConfig connector_config(TransportKind kind, const Slots& slots, uint64_t epoch) {
  return {.kind = kind,
          .self = {.id = kConnectorId, .epoch = epoch},
          .peer = {.id = kListenerId, .epoch = epoch},
          .receive_slots = slots.to_connector,
          .send_slots = slots.to_listener,
          .listens = false,
          .device_receive_slots = {kDeviceSlotBytes},
          .device_send_slots = {kDeviceSlotBytes}};
}

Pair complete_pair(PendingEndpoint& listener, PendingEndpoint& connector) {
  Pair pair;
  std::thread other([&] { pair.listener = listener.complete(connector.blob(), patience()); });
  pair.connector = connector.complete(listener.blob(), patience());
  other.join();
  return pair;
}

Pair connect_pair(TransportKind kind, const Slots& slots, uint64_t epoch) {
  const auto listener = prepare_endpoint(listener_config(kind, slots, epoch));
  const auto connector = prepare_endpoint(connector_config(kind, slots, epoch));
  return complete_pair(*listener, *connector);
}

StatusCode thrown_code(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return StatusCode::kOk;
}

void fill(std::span<std::byte> bytes, uint64_t seed) {
  Rng rng(seed);
  size_t done = 0;
  while (done < bytes.size()) {
    const uint64_t word = rng.next_u64();
    const size_t count = std::min(sizeof(word), bytes.size() - done);
    std::memcpy(bytes.data() + done, &word, count);
    done += count;
  }
}

bool is_filled(std::span<const std::byte> bytes, uint64_t seed) {
  std::vector<std::byte> expected(bytes.size());
  fill(expected, seed);
  return bytes.empty() || std::memcmp(bytes.data(), expected.data(), bytes.size()) == 0;
}

void put_filled(Endpoint& endpoint, SlotIdx slot, size_t size_bytes, uint64_t seq) {
  fill(endpoint.stage(slot, size_bytes), seq);
  const Status status = endpoint.commit(slot, size_bytes, seq);
  EXPECT_TRUE(status.ok()) << status.message();
}

ChildPeer::ChildPeer(TransportKind kind,
                     const Slots& slots,
                     const std::function<bool(Endpoint&)>& body) {
  std::array<int, 2> control{};
  LAMINA_CHECK_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control.data()), 0);
  const FileHandle ours(control[0]);
  FileHandle theirs(control[1]);
  pid_ = ::fork();
  LAMINA_CHECK_GE(pid_, 0);
  if (pid_ == 0) run_child(connector_config(kind, slots), theirs.get(), body);
  theirs.reset();
  const auto pending = prepare_endpoint(listener_config(kind, slots));
  const std::string blob = receive_blob(ours.get());
  send_blob(ours.get(), pending->blob());
  endpoint_ = pending->complete(blob, patience());
}

ChildPeer::~ChildPeer() {
  if (pid_ < 0) return;
  signal(SIGKILL);
  join();
}

void ChildPeer::signal(int number) const {
  ::kill(pid_, number);
}

int ChildPeer::join() {
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0) {
    LAMINA_CHECK_EQ(errno, EINTR);
  }
  pid_ = -1;
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace lamina::transport_testing
