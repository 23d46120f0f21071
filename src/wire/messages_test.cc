#include "wire/messages.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "base/rng.h"
#include "wire/wire_testing.h"

namespace lamina::wire {
namespace {

constexpr ExpectedHeader kExpected{
    .kind = MessageKind::kQ, .epoch = 9, .step = 41, .layer = 3, .micro_batch = 1};

MessageHeader q_header(size_t payload_bytes) {
  return {.kind = static_cast<uint16_t>(MessageKind::kQ),
          .epoch = 9,
          .step = 41,
          .layer = 3,
          .micro_batch = 1,
          .num_rows = 5,
          .dtype = static_cast<uint16_t>(DType::kBF16),
          .payload_bytes = payload_bytes};
}

StatusCode decode_code(const MessageHeader& header, size_t payload_bytes) {
  std::vector<std::byte> message(sizeof(MessageHeader) + payload_bytes);
  encode_header(header, message);
  return decode_header(message, kExpected).status().code();
}

TEST(MessageHeader, MatchesItsGoldenBytes) {
  std::vector<std::byte> message(sizeof(MessageHeader));
  encode_header(q_header(320), message);
  const std::string hex = to_hex(message);
  EXPECT_EQ(hex, golden("header_q.hex", hex));
}

TEST(MessageHeader, RoundTripsAnyValues) {
  Rng rng(1);
  for (int round = 0; round < 1000; ++round) {
    MessageHeader header{.kind = static_cast<uint16_t>(MessageKind::kOut),
                         .epoch = rng.next_u64(),
                         .step = 1 + rng.next_below(1ULL << 40),
                         .layer = static_cast<uint32_t>(rng.next_u64()),
                         .micro_batch = static_cast<uint32_t>(rng.next_u64()),
                         .num_rows = static_cast<uint32_t>(rng.next_u64()),
                         .dtype = static_cast<uint16_t>(rng.next_below(5)),
                         .payload_bytes = rng.next_below(100)};
    if (header.payload_bytes == 0) header.status = static_cast<uint8_t>(rng.next_below(17));
    std::vector<std::byte> message(sizeof(MessageHeader) + header.payload_bytes);
    encode_header(header, message);
    const Result<MessageHeader> decoded = decode_header(message,
                                                        {.kind = MessageKind::kOut,
                                                         .epoch = header.epoch,
                                                         .step = header.step,
                                                         .layer = header.layer,
                                                         .micro_batch = header.micro_batch});
    ASSERT_TRUE(decoded.ok()) << decoded.status().message();
    EXPECT_EQ(std::memcmp(&*decoded, &header, sizeof(header)), 0);
  }
}

TEST(MessageHeader, RefusesEveryTruncation) {
  std::vector<std::byte> message(sizeof(MessageHeader) + 8);
  encode_header(q_header(8), message);
  ASSERT_TRUE(decode_header(message, kExpected).ok());
  for (size_t size = 0; size < message.size(); ++size) {
    const auto cut = std::span(message).first(size);
    EXPECT_EQ(decode_header(cut, kExpected).status().code(), StatusCode::kDataLoss) << size;
  }
}

TEST(MessageHeader, RefusesMalformedFields) {
  const std::vector<std::function<void(MessageHeader&)>> lies = {
      [](MessageHeader& header) { header.magic ^= 1; },
      [](MessageHeader& header) { header.version = kVersion + 1; },
      [](MessageHeader& header) { header.kind = 0; },
      [](MessageHeader& header) { header.kind = 9; },
      [](MessageHeader& header) { header.dtype = 5; },
      [](MessageHeader& header) { header.step = 0; },
      [](MessageHeader& header) { header.step = ~uint64_t{0}; },
      [](MessageHeader& header) { header.payload_bytes = 7; },
      [](MessageHeader& header) { header.payload_bytes = ~uint64_t{0}; },
      [](MessageHeader& header) { header.status = 1; },
      [](MessageHeader& header) { header.flags = kIdleForQ; },
      [](MessageHeader& header) {
        header.kind = static_cast<uint16_t>(MessageKind::kOut);
        header.flags = 4;
      },
      [](MessageHeader& header) {
        header.kind = static_cast<uint16_t>(MessageKind::kOut);
        header.status = 1;  // a refusal carries no payload
      },
      [](MessageHeader& header) {
        header.kind = static_cast<uint16_t>(MessageKind::kCarried);
        header.status = 1;
      },
      [](MessageHeader& header) {
        header.kind = static_cast<uint16_t>(MessageKind::kResult);
        header.layer = 0;
        header.dtype = 0;
        header.status = 17;
      },
  };
  for (size_t i = 0; i < lies.size(); ++i) {
    MessageHeader header = q_header(8);
    lies[i](header);
    EXPECT_EQ(decode_code(header, 8), StatusCode::kDataLoss) << "lie " << i;
  }
}

// The code after `header`, with the payload it announces and no place expected.
StatusCode form_of(MessageHeader header) {
  std::vector<std::byte> message(sizeof(MessageHeader) + header.payload_bytes);
  encode_header(header, message);
  return decode_header(message).status().code();
}

TEST(MessageHeader, HasLayerAndDTypeWithATensorOnly) {
  for (uint16_t kind = 1; kind <= static_cast<uint16_t>(MessageKind::kCarried); ++kind) {
    const auto named = static_cast<MessageKind>(kind);
    const bool has_tensor = named == MessageKind::kQ || named == MessageKind::kKv ||
                            named == MessageKind::kOut || named == MessageKind::kCarried;
    const StatusCode expected = has_tensor ? StatusCode::kOk : StatusCode::kDataLoss;
    EXPECT_EQ(form_of({.kind = kind, .step = 1}), StatusCode::kOk) << kind;
    EXPECT_EQ(form_of({.kind = kind, .step = 1, .layer = 1}), expected) << kind;
    EXPECT_EQ(form_of({.kind = kind, .step = 1, .dtype = 1}), expected) << kind;
  }
}

TEST(MessageHeader, AnAcknowledgementIsAHeaderAlone) {
  const auto ack = static_cast<uint16_t>(MessageKind::kAck);
  EXPECT_EQ(form_of({.kind = ack, .step = 1}), StatusCode::kOk);
  EXPECT_EQ(form_of({.kind = ack, .step = 1, .num_rows = 1}), StatusCode::kDataLoss);
  EXPECT_EQ(form_of({.kind = ack, .step = 1, .payload_bytes = 8}), StatusCode::kDataLoss);
  EXPECT_EQ(form_of({.kind = ack, .step = 1, .status = 1}), StatusCode::kDataLoss);
}

TEST(MessageHeader, AResultMayRefuseInWords) {
  const auto result = static_cast<uint16_t>(MessageKind::kResult);
  EXPECT_EQ(form_of({.kind = result, .step = 1, .status = 13}), StatusCode::kOk);
  EXPECT_EQ(form_of({.kind = result, .step = 1, .status = 13, .payload_bytes = 8}),
            StatusCode::kOk);
}

TEST(MessageHeader, AbortsOnAnotherPlaceInTheSession) {
  const std::vector<std::function<void(MessageHeader&)>> elsewhere = {
      [](MessageHeader& header) { header.epoch = 8; },
      [](MessageHeader& header) { header.kind = static_cast<uint16_t>(MessageKind::kKv); },
      [](MessageHeader& header) { header.step = 40; },
      [](MessageHeader& header) { header.layer = 4; },
      [](MessageHeader& header) { header.micro_batch = 0; },
  };
  for (size_t i = 0; i < elsewhere.size(); ++i) {
    MessageHeader header = q_header(0);
    elsewhere[i](header);
    EXPECT_EQ(decode_code(header, 0), StatusCode::kAborted) << "place " << i;
  }
}

TEST(MessageHeader, EncodingIntoTooLittleRoomIsABug) {
  std::vector<std::byte> message(sizeof(MessageHeader) - 1);
  EXPECT_DEATH(encode_header(q_header(0), message), "80 vs. 79");
}

}  // namespace
}  // namespace lamina::wire
