#include "engine/choice_text.h"

#include <gtest/gtest.h>

#include <map>

namespace lamina {
namespace {

// Token i is the i-th byte string.
class ByteTokenizer final : public Tokenizer {
 public:
  explicit ByteTokenizer(std::vector<std::string> tokens) : tokens_(std::move(tokens)) {}
  [[nodiscard]] Result<std::vector<int32_t>> encode(std::string_view,
                                                    const EncodeOptions&) const override {
    return unimplemented("not needed here");
  }
  [[nodiscard]] std::string_view token_bytes(int32_t id) const override {
    return tokens_[static_cast<size_t>(id)];
  }
  [[nodiscard]] bool strips_leading_space() const override { return false; }
  [[nodiscard]] bool is_special(int32_t) const override { return false; }
  [[nodiscard]] std::optional<int32_t> find(std::string_view) const override {
    return std::nullopt;
  }
  [[nodiscard]] int32_t vocab_size() const override { return static_cast<int32_t>(tokens_.size()); }
  [[nodiscard]] std::optional<int32_t> bos_id() const override { return std::nullopt; }
  [[nodiscard]] std::optional<int32_t> eos_id() const override { return std::nullopt; }

 private:
  std::vector<std::string> tokens_;
};

struct Outcome {
  std::string text;
  std::vector<std::string> deltas;
  std::optional<FinishReason> reason;
  std::optional<std::variant<int32_t, std::string>> stop_reason;
};

Outcome play(const std::vector<std::string>& pieces,
             const GenerationRequest& request,
             const std::vector<int32_t>& eos) {
  const ByteTokenizer tokenizer(pieces);
  ChoiceText text(&tokenizer, request, eos);
  Outcome outcome;
  for (size_t i = 0; i < pieces.size() && !outcome.reason; ++i) {
    GenerationDelta delta = text.add({.id = static_cast<int32_t>(i)}, i + 1 == pieces.size());
    outcome.text += delta.text;
    outcome.deltas.push_back(delta.text);
    outcome.reason = delta.finish_reason;
    outcome.stop_reason = delta.stop_reason;
  }
  return outcome;
}

TEST(ChoiceText, HoldsBackWhatMayBecomeAStopString) {
  GenerationRequest request;
  request.stop = {"END", "###"};
  const Outcome outcome = play({"a", "E", "N", "x", "#", "#", "#", "never"}, request, {});
  EXPECT_EQ(outcome.deltas, (std::vector<std::string>{"a", "", "", "ENx", "", "", ""}));
  EXPECT_EQ(outcome.text, "aENx");
  EXPECT_EQ(outcome.reason, FinishReason::kStop);
  EXPECT_EQ(std::get<std::string>(*outcome.stop_reason), "###");
}

TEST(ChoiceText, KeepsTheStopStringWhenAsked) {
  GenerationRequest request;
  request.stop = {"END"};
  request.include_stop_str_in_output = true;
  EXPECT_EQ(play({"a", "ENDs", "b"}, request, {}).text, "aEND");
}

TEST(ChoiceText, TheEarliestStopStringWins) {
  GenerationRequest request;
  request.stop = {"cd", "bc"};
  const Outcome outcome = play({"abcd"}, request, {});
  EXPECT_EQ(outcome.text, "a");
  EXPECT_EQ(std::get<std::string>(*outcome.stop_reason), "bc");
}

TEST(ChoiceText, ReleasesHeldTextAtTheLengthLimit) {
  GenerationRequest request;
  request.stop = {"END"};
  const Outcome outcome = play({"a", "EN"}, request, {});
  EXPECT_EQ(outcome.text, "aEN");
  EXPECT_EQ(outcome.reason, FinishReason::kLength);
}

TEST(ChoiceText, EndOfSequenceStopsUnlessIgnored) {
  GenerationRequest request;
  EXPECT_EQ(play({"a", "</s>", "b"}, request, {1}).text, "a");
  EXPECT_EQ(play({"a", "</s>", "b"}, request, {1}).reason, FinishReason::kStop);
  request.ignore_eos = true;
  EXPECT_EQ(play({"a", "</s>", "b"}, request, {1}).text, "a</s>b");
}

TEST(ChoiceText, StopIdsHoldEvenWhereEosIsIgnored) {
  GenerationRequest request;
  request.ignore_eos = true;
  request.stop_ids = {1};
  const Outcome outcome = play({"a", "x", "b"}, request, {1});
  EXPECT_EQ(outcome.text, "a");
  EXPECT_EQ(std::get<int32_t>(*outcome.stop_reason), 1);
}

TEST(ChoiceText, MinTokensDelaysStopStrings) {
  GenerationRequest request;
  request.stop = {"a"};
  request.min_tokens = 2;
  EXPECT_EQ(play({"a", "b", "c"}, request, {}).text, "abc");
  EXPECT_EQ(play({"x", "b", "a"}, request, {}).text, "xb");
}

TEST(ChoiceText, NeverSplitsACharacter) {
  const GenerationRequest request;
  const Outcome outcome = play({"\xE2", "\x82", "\xAC", "!"}, request, {});
  EXPECT_EQ(outcome.deltas, (std::vector<std::string>{"", "", "\xE2\x82\xAC", "!"}));
}

TEST(ChoiceText, WorksWithoutATokenizer) {
  const GenerationRequest request;
  const std::vector<int32_t> eos_ids;
  ChoiceText text(nullptr, request, eos_ids);
  const GenerationDelta delta = text.add({.id = 7}, true);
  EXPECT_EQ(delta.text, "");
  EXPECT_EQ(delta.tokens[0].id, 7);
  EXPECT_EQ(delta.finish_reason, FinishReason::kLength);
}

}  // namespace
}  // namespace lamina
