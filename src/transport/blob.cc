#include "transport/blob.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <cerrno>
#include <charconv>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/error.h"

namespace lamina {
namespace {

constexpr std::string_view kFormat = "lamina-endpoint/1";
constexpr size_t kMaxBlobBytes = 512;
constexpr size_t kNumFields = 10;

[[noreturn]] void bad_blob(const std::string& why) {
  throw Error(StatusCode::kInvalidArgument, "not a valid endpoint blob: " + why);
}

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> fields;
  while (true) {
    const size_t space = text.find(' ');
    fields.push_back(text.substr(0, space));
    if (space == std::string_view::npos) return fields;
    text.remove_prefix(space + 1);
  }
}

uint64_t parse_number(std::string_view text, int base) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) {
    bad_blob(fmt::format("'{}' is no number", text));
  }
  return value;
}

Token parse_token(std::string_view hex) {
  Token token;
  if (hex.size() != 2 * token.size()) bad_blob("its token has another length");
  for (size_t i = 0; i < token.size(); ++i) {
    token[i] = static_cast<std::byte>(parse_number(hex.substr(2 * i, 2), 16));
  }
  return token;
}

TransportKind parse_kind(std::string_view name) {
  for (const auto kind : {TransportKind::kLoopback,
                          TransportKind::kShm,
                          TransportKind::kTcp,
                          TransportKind::kCudaP2p,
                          TransportKind::kNccl}) {
    if (name == transport_name(kind)) return kind;
  }
  bad_blob(fmt::format("unknown transport '{}'", name));
}

Blob parse_blob(std::string_view text) {
  if (text.size() > kMaxBlobBytes) bad_blob(fmt::format("it has {} bytes", text.size()));
  const std::vector<std::string_view> fields = split(text);
  if (fields.size() != kNumFields || fields[0] != kFormat || fields[9].empty()) {
    bad_blob(fmt::format("it is not of the form '{} ...'", kFormat));
  }
  return {.kind = parse_kind(fields[1]),
          .from = {.id = parse_number(fields[2], 10), .epoch = parse_number(fields[3], 10)},
          .to = {.id = parse_number(fields[4], 10), .epoch = parse_number(fields[5], 10)},
          .token = parse_token(fields[6]),
          .receive_digest = parse_number(fields[7], 16),
          .send_digest = parse_number(fields[8], 16),
          .locator = std::string(fields[9])};
}

void check_peer(const char* what, const PeerId& got, const PeerId& expected) {
  if (got == expected) return;
  throw Error(StatusCode::kUnauthenticated,
              fmt::format("blob is {} peer {} epoch {}, expected peer {} epoch {}",
                          what,
                          got.id,
                          got.epoch,
                          expected.id,
                          expected.epoch));
}

}  // namespace

Token random_token() {
  Token token;
  // Up to 256 bytes come whole or not at all.
  while (::getrandom(token.data(), token.size(), 0) != static_cast<ssize_t>(token.size())) {
    if (errno == EINTR) continue;
    throw Error(StatusCode::kUnavailable,
                fmt::format("cannot get random bytes: {}", std::generic_category().message(errno)));
  }
  return token;
}

bool equal_constant_time(std::span<const std::byte> a, std::span<const std::byte> b) {
  if (a.size() != b.size()) return false;
  std::byte difference{0};
  for (size_t i = 0; i < a.size(); ++i) difference |= a[i] ^ b[i];
  return difference == std::byte{0};
}

std::string to_hex(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned>(byte));
  return text;
}

uint64_t slots_digest(std::span<const size_t> capacities) {
  uint64_t hash = 0xCBF29CE484222325ULL;
  for (const uint64_t capacity : capacities) {
    for (int shift = 0; shift < 64; shift += 8) {
      hash = (hash ^ ((capacity >> shift) & 0xFF)) * 0x100000001B3ULL;
    }
  }
  return hash;
}

Blob make_blob(const EndpointConfig& config, const Token& token, std::string locator) {
  return {.kind = config.kind,
          .from = config.self,
          .to = config.peer,
          .token = token,
          .receive_digest = slots_digest(config.receive_slots),
          .send_digest = slots_digest(config.send_slots),
          .locator = std::move(locator)};
}

std::string encode_blob(const Blob& blob) {
  return fmt::format("{} {} {} {} {} {} {} {:x} {:x} {}",
                     kFormat,
                     transport_name(blob.kind),
                     blob.from.id,
                     blob.from.epoch,
                     blob.to.id,
                     blob.to.epoch,
                     to_hex(blob.token),
                     blob.receive_digest,
                     blob.send_digest,
                     blob.locator);
}

Blob decode_blob(const std::string& text, const EndpointConfig& config) {
  Blob blob = parse_blob(text);
  if (blob.kind != config.kind) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("peer uses transport {}, this side {}",
                            transport_name(blob.kind),
                            transport_name(config.kind)));
  }
  check_peer("from", blob.from, config.peer);
  check_peer("for", blob.to, config.self);
  if (blob.receive_digest != slots_digest(config.send_slots) ||
      blob.send_digest != slots_digest(config.receive_slots)) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("peer {} has other slots: both sides must be configured alike",
                            config.peer.id));
  }
  return blob;
}

}  // namespace lamina
