#include "wire/messages.h"

#include <fmt/format.h>

#include "wire/byte_codec.h"

namespace lamina::wire {
namespace {

constexpr auto kLastKind = static_cast<uint16_t>(MessageKind::kCarried);
constexpr auto kLastDType = static_cast<uint16_t>(DType::kU8);
constexpr auto kLastStatus = static_cast<uint16_t>(StatusCode::kUnauthenticated);
// Far beyond any session, and small enough that step * layers never wraps.
constexpr uint64_t kMaxStep = uint64_t{1} << 48;

bool has_tensor(MessageKind kind) {
  return kind == MessageKind::kQ || kind == MessageKind::kKv || kind == MessageKind::kOut ||
         kind == MessageKind::kCarried;
}

// What the kind says about the other fields.
Status check_kind(const MessageHeader& header) {
  const auto kind = static_cast<MessageKind>(header.kind);
  if (!has_tensor(kind) && (header.layer != 0 || header.dtype != 0)) {
    return data_loss(fmt::format("message of kind {} has layer or dtype", header.kind));
  }
  if (kind == MessageKind::kAck && (header.payload_bytes != 0 || header.num_rows != 0)) {
    return data_loss("an acknowledgement is more than a header");
  }
  if (header.flags > (kind == MessageKind::kOut ? kIdleForQ | kIdleForKv : 0)) {
    return data_loss(fmt::format("message of kind {} has flags {}", header.kind, header.flags));
  }
  const bool may_refuse =
      kind == MessageKind::kResult || (kind == MessageKind::kOut && header.payload_bytes == 0);
  if (header.status > kLastStatus || (header.status != 0 && !may_refuse)) {
    return data_loss(fmt::format("message of kind {} with {} bytes has status {}",
                                 header.kind,
                                 header.payload_bytes,
                                 header.status));
  }
  return {};
}

// What holds for every message of this version, whoever waits for it.
Status check_form(const MessageHeader& header, size_t payload_bytes) {
  if (header.magic != kMagic) {
    return data_loss(fmt::format("message has magic {:#x}, not {:#x}", header.magic, kMagic));
  }
  if (header.version != kVersion) {
    return data_loss(
        fmt::format("message has version {}, this program speaks {}", header.version, kVersion));
  }
  if (header.payload_bytes != payload_bytes) {
    return data_loss(fmt::format(
        "message announces {} payload bytes and carries {}", header.payload_bytes, payload_bytes));
  }
  if (header.kind == 0 || header.kind > kLastKind) {
    return data_loss(fmt::format("message has unknown kind {}", header.kind));
  }
  if (header.dtype > kLastDType) {
    return data_loss(fmt::format("message has unknown dtype {}", header.dtype));
  }
  if (header.step == 0 || header.step > kMaxStep) {
    return data_loss(fmt::format("message has impossible step {}", header.step));
  }
  return check_kind(header);
}

Status mismatch(const char* what, uint64_t got, uint64_t expected) {
  return {StatusCode::kAborted, fmt::format("message of {} {}, expected {}", what, got, expected)};
}

Status check_place(const MessageHeader& header, const ExpectedHeader& expected) {
  if (header.epoch != expected.epoch) return mismatch("epoch", header.epoch, expected.epoch);
  if (header.kind != static_cast<uint16_t>(expected.kind)) {
    return mismatch("kind", header.kind, static_cast<uint64_t>(expected.kind));
  }
  if (header.step != expected.step) return mismatch("step", header.step, expected.step);
  if (header.layer != expected.layer) return mismatch("layer", header.layer, expected.layer);
  if (header.micro_batch != expected.micro_batch) {
    return mismatch("micro-batch", header.micro_batch, expected.micro_batch);
  }
  return {};
}

}  // namespace

void encode_header(const MessageHeader& header, std::span<std::byte> message) {
  ByteWriter(message).write(header);
}

Result<MessageHeader> decode_header(std::span<const std::byte> message) {
  ByteReader reader(message);
  MessageHeader header;
  if (!reader.read(header)) {
    return data_loss(fmt::format(
        "message of {} bytes is shorter than its {}-byte header", message.size(), sizeof(header)));
  }
  LAMINA_RETURN_IF_ERROR(check_form(header, reader.remaining()));
  return header;
}

Result<MessageHeader> decode_header(std::span<const std::byte> message,
                                    const ExpectedHeader& expected) {
  LAMINA_ASSIGN_OR_RETURN(const MessageHeader header, decode_header(message));
  LAMINA_RETURN_IF_ERROR(check_place(header, expected));
  return header;
}

}  // namespace lamina::wire
