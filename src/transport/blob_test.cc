#include "transport/blob.h"

#include <gtest/gtest.h>

#include <set>

#include "base/error.h"

namespace lamina {
namespace {

EndpointConfig here() {
  return {.kind = TransportKind::kShm,
          .self = {.id = 3, .epoch = 5},
          .peer = {.id = 4, .epoch = 6},
          .receive_slots = {1, 2},
          .send_slots = {3}};
}

EndpointConfig there() {
  return {.kind = TransportKind::kShm,
          .self = {.id = 4, .epoch = 6},
          .peer = {.id = 3, .epoch = 5},
          .receive_slots = {3},
          .send_slots = {1, 2}};
}

TEST(Blob, IsReadByTheSideItIsFor) {
  const Token token = random_token();
  const Blob blob = decode_blob(encode_blob(make_blob(there(), token, "/somewhere")), here());
  EXPECT_EQ(blob.from, there().self);
  EXPECT_EQ(blob.to, here().self);
  EXPECT_EQ(blob.token, token);
  EXPECT_EQ(blob.locator, "/somewhere");
}

TEST(Blob, HasAFixedForm) {
  Token token{};
  token[0] = std::byte{0xAB};
  EXPECT_EQ(encode_blob(make_blob(there(), token, "x")),
            "lamina-endpoint/1 shm 4 6 3 5 ab000000000000000000000000000000 c7c2bf3b330983e6 "
            "7717980363c8e066 x");
}

TEST(Blob, RefusesItsOwnSide) {
  EXPECT_THROW(decode_blob(encode_blob(make_blob(here(), random_token(), "x")), here()), Error);
}

TEST(Token, IsRandom) {
  std::set<std::string> seen;
  for (int i = 0; i < 100; ++i) seen.insert(to_hex(random_token()));
  EXPECT_EQ(seen.size(), 100U);
}

TEST(Token, ComparesEveryByte) {
  const Token token = random_token();
  EXPECT_TRUE(equal_constant_time(token, token));
  for (size_t i = 0; i < token.size(); ++i) {
    Token other = token;
    other[i] ^= std::byte{1};
    EXPECT_FALSE(equal_constant_time(token, other)) << i;
  }
  EXPECT_FALSE(equal_constant_time(token, std::span(token).first(15)));
}

TEST(SlotsDigest, TellsShapesApart) {
  EXPECT_NE(slots_digest(std::vector<size_t>{}), slots_digest(std::vector<size_t>{0}));
  EXPECT_NE(slots_digest(std::vector<size_t>{1, 2}), slots_digest(std::vector<size_t>{2, 1}));
  EXPECT_EQ(slots_digest(std::vector<size_t>{1, 2}), slots_digest(std::vector<size_t>{1, 2}));
}

}  // namespace
}  // namespace lamina
