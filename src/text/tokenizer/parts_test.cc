// The tokenizer's parts on their own: what whole tokenizers do not reach easily.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "text/tokenizer/added_tokens.h"
#include "text/tokenizer/bpe_model.h"
#include "text/tokenizer/byte_alphabet.h"
#include "text/tokenizer/normalizer.h"
#include "text/tokenizer/pre_tokenizer.h"
#include "text/tokenizer/split_pattern.h"
#include "text/tokenizer/utf8.h"

namespace lamina {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Utf8, EncodesAndDecodesEveryCodePoint) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    std::string text;
    append_utf8(text, c);
    const bool surrogate = c >= 0xD800 && c < 0xE000;
    ASSERT_EQ(is_valid_utf8(text), !surrogate) << static_cast<uint32_t>(c);
    if (surrogate) continue;
    ASSERT_EQ(utf8_size(text[0]), text.size());
    ASSERT_EQ(decode_utf8(text, 0), c);
  }
}

TEST(Utf8, MaximalSubpartsBecomeOneReplacementEach) {
  const auto drained = [](std::string pending) {
    std::string text;
    drain_utf8(pending, text);
    return std::pair(text, pending);
  };
  EXPECT_EQ(drained("a\x80z"), std::pair(std::string("a\uFFFDz"), std::string()));
  EXPECT_EQ(drained("\xF0\x9F\x99z"), std::pair(std::string("\uFFFDz"), std::string()));
  EXPECT_EQ(drained("\xE0\x80"), std::pair(std::string("\uFFFD\uFFFD"), std::string()));
  EXPECT_EQ(drained("a\xF0\x9F"), std::pair(std::string("a"), std::string("\xF0\x9F")));
}

TEST(ByteAlphabet, EveryByteComesBack) {
  std::string bytes;
  for (int b = 0; b < 256; ++b) bytes.push_back(static_cast<char>(b));
  const std::string text = to_byte_alphabet(bytes);
  EXPECT_TRUE(is_valid_utf8(text));
  EXPECT_EQ(from_byte_alphabet(text), bytes);
  EXPECT_EQ(to_byte_alphabet(" a\n"), "\u0120a\u010A");
  EXPECT_EQ(from_byte_alphabet("a b"), std::nullopt);
  EXPECT_EQ(from_byte_alphabet("\u4E2D"), std::nullopt);
}

TEST(ByteToken, ReadsAndWrites) {
  EXPECT_EQ(byte_token(0x0A), "<0x0A>");
  EXPECT_EQ(parse_byte_token("<0xE4>"), '\xE4');
  for (const char* text : {"<0xE4", "<0xG4>", "<0x4>>", "0xE4", "<0xE41>", ""}) {
    EXPECT_EQ(parse_byte_token(text), std::nullopt) << text;
  }
}

TEST(Nfc, ComposesAsUnicodeSays) {
  EXPECT_EQ(to_nfc("cafe\u0301"), "caf\u00E9");
  EXPECT_EQ(to_nfc("\u1112\u1161\u11AB"), "\uD55C");
  EXPECT_EQ(to_nfc("\u212B"), "\u00C5");
  EXPECT_EQ(to_nfc("q\u0307\u0323"), "q\u0323\u0307");
  EXPECT_EQ(to_nfc("\u0958"), "\u0915\u093C");  // excluded from composition
  EXPECT_EQ(to_nfc("plain"), "plain");
  EXPECT_EQ(to_nfc(""), "");
}

TEST(Nfc, ManyMarksInARow) {
  std::string text = "a";
  for (int i = 0; i < 300'000; ++i) text += "\u0301\u0323";  // quadratic by swapping neighbours
  const std::string nfc = to_nfc(text);
  EXPECT_THAT(nfc.substr(0, 6), HasSubstr("\u1EA1"));
  EXPECT_EQ(to_nfc(nfc), nfc);
}

TEST(Normalizer, RefusesToGrowWithoutEnd) {
  const Normalizer normalizer({ReplaceStep{"a", std::string(64, 'a')},
                               ReplaceStep{"a", std::string(64, 'a')},
                               ReplaceStep{"a", std::string(64, 'a')}});
  EXPECT_TRUE(normalizer.apply("a").ok());
  EXPECT_EQ(normalizer.apply(std::string(10'000, 'a')).status().code(),
            StatusCode::kResourceExhausted);
}

std::vector<std::pair<std::string, int32_t>> split(const AddedTokens& tokens,
                                                   std::string_view text,
                                                   bool parse_special = true) {
  std::vector<std::pair<std::string, int32_t>> parts;
  for (const auto& part : tokens.split(text, parse_special)) {
    parts.emplace_back(part.text, part.id);
  }
  return parts;
}

TEST(AddedTokens, LeftmostThenLongest) {
  const AddedTokens tokens({{.content = "<a", .id = 1},
                            {.content = "<a>", .id = 2},
                            {.content = "a><a>>", .id = 3},
                            {.content = "", .id = 4}});
  EXPECT_THAT(
      split(tokens, "x<a><ab"),
      ElementsAre(std::pair("x", -1), std::pair("<a>", 2), std::pair("<a", 1), std::pair("b", -1)));
  EXPECT_THAT(split(tokens, ""), ElementsAre());
  EXPECT_THAT(split(tokens, "<"), ElementsAre(std::pair("<", -1)));
}

TEST(AddedTokens, SpecialOnesArePlainTextUnlessAsked) {
  const AddedTokens tokens(
      {{.content = "<s>", .id = 1, .special = true}, {.content = "k", .id = 2}});
  EXPECT_THAT(split(tokens, "a<s>k", false), ElementsAre(std::pair("a<s>", -1), std::pair("k", 2)));
  EXPECT_THAT(split(tokens, "a<s>k", true),
              ElementsAre(std::pair("a", -1), std::pair("<s>", 1), std::pair("k", 2)));
}

TEST(AddedTokens, SwallowWhiteSpace) {
  const AddedTokens tokens(
      {{.content = "L", .id = 1, .lstrip = true}, {.content = "R", .id = 2, .rstrip = true}});
  EXPECT_THAT(split(tokens, "a \u3000L b R \n L"),
              ElementsAre(std::pair("a", -1),
                          std::pair(" \u3000L", 1),
                          std::pair(" b ", -1),
                          std::pair("R \n ", 2),
                          std::pair("L", 1)));
}

// What tokenizers 0.23 answers, but for the last, where it panics.
TEST(AddedTokens, WhiteSpaceThatIsATokenItself) {
  const AddedTokens tokens({{.content = "<r>", .id = 1, .rstrip = true},
                            {.content = "  ", .id = 2, .rstrip = true},
                            {.content = " x", .id = 3},
                            {.content = "\n\n", .id = 4, .lstrip = true}});
  const auto ids = [&](std::string_view text) {
    std::vector<int32_t> found;
    for (const auto& part : tokens.split(text, true)) found.push_back(part.id);
    return found;
  };
  EXPECT_THAT(ids("<r> x"), ElementsAre(1, 3));
  EXPECT_THAT(ids("a      i"), ElementsAre(-1, 2, 2, 2, -1));
  EXPECT_THAT(ids("a  \n\ni"), ElementsAre(-1, 2, -1));
  EXPECT_THAT(ids("  \n\n "), ElementsAre(2));
}

TEST(AddedTokens, LongWhiteSpaceIsWalkedOnce) {
  const AddedTokens tokens({{.content = "  ", .id = 1, .rstrip = true}});
  EXPECT_EQ(tokens.split(std::string(2 << 20, ' '), true).size(), 1U << 20);
}

TEST(AddedTokens, RefusesLongContents) {
  EXPECT_THROW(AddedTokens({{.content = std::string(2000, 'x'), .id = 1}}), Error);
}

std::string pattern_error(std::string_view pattern) {
  try {
    const SplitPattern compiled(pattern, SplitPattern::Syntax::kRegex);
    return "no error";
  } catch (const Error& e) {
    return e.what();
  }
}

TEST(SplitPattern, RefusesWhatReadsDifferently) {
  for (const char* pattern :
       {R"(\w+)",  R"(\bx)",  R"(\h)", R"(\K)",   R"(\1)", "a{1,3}+", "a{,3}", "[a&&b]",
        "[a[bc]]", R"([\S])", "[]a]",  "(*UTF)a", "(?R)",  "(?m)a",   "(?i)a", "(?<n>a)",
        "a\\",     "",        "[a",    "(",       "\xFF",  "a**b("}) {
    EXPECT_THAT(pattern_error(pattern), HasSubstr("is not supported")) << pattern;
  }
  EXPECT_THAT(pattern_error(std::string(10'000, 'a')), HasSubstr("8192 bytes"));
  for (const char* pattern :
       {R"(\p{L}+)", R"(\p{Lu}?+x)", "a{1,3}", R"([^\s\]\\]+)", "(?>a)(?<=b)"}) {
    EXPECT_EQ(pattern_error(pattern), "no error") << pattern;
  }
}

std::vector<TextRange> find_all(std::string_view pattern, std::string_view text) {
  std::vector<TextRange> matches;
  throw_if_error(SplitPattern(pattern, SplitPattern::Syntax::kRegex).find_all(text, matches));
  return matches;
}

TEST(SplitPattern, FindsMatchesOfAnySize) {
  EXPECT_THAT(find_all(R"(\s+)", "a\u3000 b\u180E"), ElementsAre(TextRange{1, 5}));
  EXPECT_THAT(find_all("(?=\u00E9)", "a\u00E9\u00E9"),
              ElementsAre(TextRange{1, 1}, TextRange{3, 3}));
  EXPECT_THAT(find_all("x", ""), ElementsAre());
  const std::string long_text(1 << 17, 'a');  // past the stack of JIT code
  EXPECT_THAT(find_all("(?:a|b)+", long_text), ElementsAre(TextRange{0, 1 << 17}));
}

TEST(SplitPattern, EmptyMatchesDoNotTouchOthers) {
  EXPECT_THAT(find_all("a*", "aab"), ElementsAre(TextRange{0, 2}));
  EXPECT_THAT(find_all("a*", "baa"), ElementsAre(TextRange{0, 0}, TextRange{1, 3}));
}

TEST(PreTokenizer, OnlyTextThatStartsTheTextGetsThePrefix) {
  std::vector<PreTokenizerStep> steps;
  steps.emplace_back(
      SplitStep{SplitPattern("x", SplitPattern::Syntax::kLiteral), SplitBehavior::kRemoved});
  steps.emplace_back(MetaspaceStep{"_", MetaspaceStep::Prepend::kFirst});
  const PreTokenizer pre_tokenizer(std::move(steps));
  EXPECT_EQ(pre_tokenizer.apply("axb", true).value_or_throw().text, "_ab");
  EXPECT_EQ(pre_tokenizer.apply("xb", true).value_or_throw().text, "b");
  EXPECT_EQ(pre_tokenizer.apply("b", false).value_or_throw().text, "b");
}

TEST(SplitPattern, GivesUpOnExponentialPatterns) {
  std::vector<TextRange> matches;
  const SplitPattern pattern("(?:(?:a|a)+)+c", SplitPattern::Syntax::kRegex);
  EXPECT_EQ(pattern.find_all(std::string(64, 'a') + "bc", matches).code(),
            StatusCode::kResourceExhausted);
}

// Merges the leftmost pair of the lowest rank until none is left: the definition, quadratic.
std::vector<int32_t> merge_naively(std::vector<int32_t> ids, const PairMerges& merges) {
  while (true) {
    Merge best;
    size_t at = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const Merge merge = merges.find(ids[i], ids[i + 1]);
      if (merge.id >= 0 && (best.id < 0 || merge.rank < best.rank)) {
        best = merge;
        at = i;
      }
    }
    if (best.id < 0) return ids;
    ids[at] = best.id;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

TEST(BpeModel, EqualsTheDefinition) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    Vocabulary vocabulary;
    std::vector<std::string> tokens = {"a", "b", "c"};
    for (const std::string& token : tokens) vocabulary.add(token, vocabulary.size());
    std::vector<PairMerges::Rule> rules;
    for (int i = 0; i < 30; ++i) {
      const auto left = static_cast<int32_t>(rng.next_below(tokens.size()));
      const auto right = static_cast<int32_t>(rng.next_below(tokens.size()));
      const std::string joined =
          tokens[static_cast<size_t>(left)] + tokens[static_cast<size_t>(right)];
      if (joined.size() > 12) continue;
      if (!vocabulary.find(joined)) {
        tokens.push_back(joined);
        vocabulary.add(joined, vocabulary.size());
      }
      rules.push_back(
          {left, right, {static_cast<uint32_t>(rules.size()), *vocabulary.find(joined)}});
    }
    const PairMerges merges(rules, vocabulary.size());
    const BpeModel model(std::move(vocabulary), merges, {});
    std::string text;
    std::vector<int32_t> letters;
    for (int i = 0; i < 60; ++i) {
      letters.push_back(static_cast<int32_t>(rng.next_below(3)));
      text.push_back("abc"[letters.back()]);
    }
    BpeModel::Scratch scratch;
    std::vector<int32_t> ids;
    model.encode(text, scratch, ids);
    EXPECT_EQ(ids, merge_naively(letters, merges));
  }
}

TEST(BpeModel, CharactersWithoutATokenLetTheirNeighboursMerge) {
  const auto encode = [](const BpeModel::Options& options) {
    Vocabulary vocabulary;
    for (const char* token : {"a", "b", "ab", "<unk>", "<0x63>"}) {
      vocabulary.add(token, vocabulary.size());
    }
    const BpeModel model(std::move(vocabulary), PairMerges({{0, 1, {0, 2}}}, 5), options);
    BpeModel::Scratch scratch;
    std::vector<int32_t> ids;
    for (const char* text : {"a\u00E9b", "acb", "\u00E9"}) model.encode(text, scratch, ids);
    return ids;
  };
  EXPECT_THAT(encode({}), ElementsAre(2, 2));
  EXPECT_THAT(encode({.byte_fallback = true}), ElementsAre(2, 0, 4, 1));
  EXPECT_THAT(encode({.unknown_id = 3}), ElementsAre(0, 3, 1, 0, 3, 1, 3));
}

TEST(Vocabulary, RefusesTwoTextsForAnId) {
  Vocabulary vocabulary;
  vocabulary.add("a", 5);
  EXPECT_THROW(vocabulary.add("b", 5), Error);
  EXPECT_THROW(vocabulary.add("c", -1), Error);
  EXPECT_THROW(vocabulary.add("c", Vocabulary::kMaxSize), Error);
  EXPECT_THROW(vocabulary.add(std::string(5000, 'x'), 1), Error);
  EXPECT_EQ(vocabulary.size(), 6);
  EXPECT_FALSE(vocabulary.contains(4));
  EXPECT_EQ(in_quotes(std::string(100, 'y') + "\n"), "'" + std::string(60, 'y') + "...'");
  EXPECT_EQ(in_quotes("a\nb\xFF"), "'a?b\uFFFD'");
}

}  // namespace
}  // namespace lamina
