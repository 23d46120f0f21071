// Whole tokenizers of tests/fixtures/text against what the reference libraries answered.
#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "support/paths.h"
#include "text/detokenizer.h"
#include "text/tokenizer/sentencepiece_model.h"
#include "text/tokenizer/tokenizer_json.h"

namespace lamina {
namespace {

using Ids = std::vector<int32_t>;
using nlohmann::json;
using testing::HasSubstr;

constexpr size_t kMaxFixtureBytes = 1 << 20;

std::string fixture(const std::string& name) {
  return read_text_file(test::fixture_path("text/" + name), kMaxFixtureBytes);
}

const json& expected() {
  static const json kExpected = json::parse(fixture("expected.json"));
  return kExpected;
}

std::vector<std::string> texts() {
  return expected()["texts"].get<std::vector<std::string>>();
}

Ids encode(const Tokenizer& tokenizer, const std::string& text, bool special) {
  return tokenizer.encode(text, {.add_special_tokens = special, .parse_special = special})
      .value_or_throw();
}

// Every text of the fixtures, with `key` "ids" (plain) or "ids_special".
void expect_ids(const Tokenizer& tokenizer, const json& answers, const char* key) {
  const std::vector<std::string> inputs = texts();
  ASSERT_EQ(answers[key].size(), inputs.size());
  const bool special = std::string(key) == "ids_special";
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(encode(tokenizer, inputs[i], special), answers[key][i].get<Ids>())
        << "text " << i << ": " << json(inputs[i]).dump(-1, ' ', true);
  }
}

std::string error_of(const std::string& tokenizer_json) {
  try {
    static_cast<void>(parse_tokenizer_json(tokenizer_json, ""));
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
    return e.what();
  }
  return "no error";
}

class JsonTokenizers : public testing::TestWithParam<const char*> {};

TEST_P(JsonTokenizers, IdsAndTextsAreThoseOfTheReference) {
  const std::string name = GetParam();
  const auto tokenizer = parse_tokenizer_json(fixture(name + ".json"), "");
  const json& answers = expected()["cases"][name];
  expect_ids(*tokenizer, answers, "ids");
  expect_ids(*tokenizer, answers, "ids_special");
  for (size_t i = 0; i < answers["decoded"].size(); ++i) {
    if (answers["decoded"][i].is_null()) continue;
    EXPECT_EQ(tokenizer->decode(answers["ids_special"][i].get<Ids>(), true),
              answers["decoded"][i].get<std::string>());
  }
}

INSTANTIATE_TEST_SUITE_P(All,
                         JsonTokenizers,
                         testing::Values("gpt2_style",
                                         "smollm_style",
                                         "qwen_style",
                                         "llama3_style",
                                         "split_behaviors",
                                         "llama_style",
                                         "no_fallback",
                                         "metaspace_first",
                                         "metaspace_always"),
                         [](const auto& param) { return std::string(param.param); });

TEST(TokenizerJson, TokensAndTheirBytes) {
  const auto tokenizer = parse_tokenizer_json(
      fixture("llama3_style.json"),
      R"({"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}})");
  EXPECT_EQ(tokenizer->bos_id(), tokenizer->find("<|im_start|>"));
  EXPECT_EQ(tokenizer->eos_id(), tokenizer->find("<|im_end|>"));
  EXPECT_TRUE(tokenizer->is_special(*tokenizer->bos_id()));
  EXPECT_FALSE(tokenizer->is_special(*tokenizer->find("<keep>")));
  EXPECT_EQ(tokenizer->token_bytes(*tokenizer->find("\u0120")), " ");
  for (const int32_t id : {-1, tokenizer->vocab_size(), 1 << 30}) {
    EXPECT_EQ(tokenizer->token_bytes(id), "");
    EXPECT_FALSE(tokenizer->is_special(id));
  }
  EXPECT_EQ(tokenizer->decode(Ids{-5, *tokenizer->find("a"), 1 << 30}, false), "a");
  EXPECT_EQ(tokenizer->decode(Ids{*tokenizer->bos_id()}, false), "<|im_start|>");
  EXPECT_EQ(tokenizer->decode(Ids{*tokenizer->bos_id()}, true), "");
}

TEST(Encode, RefusesBadTexts) {
  const auto tokenizer = parse_tokenizer_json(fixture("qwen_style.json"), "");
  for (const char* text : {"\xFF", "a\xC3", "\xED\xA0\x80", "\xC0\x80", "\xF4\x90\x80\x80"}) {
    EXPECT_EQ(tokenizer->encode(text, {}).status().code(), StatusCode::kInvalidArgument);
  }
  const std::string long_text((16 << 20) + 1, 'a');
  EXPECT_EQ(tokenizer->encode(long_text, {}).status().code(), StatusCode::kResourceExhausted);
}

// Plain text, a client's, must not turn into control tokens on any way.
TEST(Encode, TokensOutsideTheModelAreNotMadeOfPlainText) {
  const char* file = R"({
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"],
              "ignore_merges": true},
    "added_tokens": [{"id": 3, "content": "<", "special": true, "normalized": false},
                     {"id": 4, "content": "ba", "special": true, "normalized": false}],
    "decoder": {"type": "Fuse"}})";
  const auto tokenizer = parse_tokenizer_json(file, "");
  EXPECT_EQ(encode(*tokenizer, "ba", false), (Ids{1, 0}));
  EXPECT_EQ(encode(*tokenizer, "a<b", false), Ids{2});
  EXPECT_EQ(encode(*tokenizer, "a<ba", true), (Ids{0, 3, 4}));
  EXPECT_EQ(tokenizer->find("<"), 3);

  const GgufVocabulary gguf{.model = "gpt2",
                            .pre = "llama-bpe",
                            .tokens = {"a", "b", "ba"},
                            .scores = {},
                            .token_types = {1, 1, 3},
                            .merges = {},
                            .bos_id = {},
                            .eos_id = {},
                            .unknown_id = {}};
  EXPECT_EQ(encode(*make_gguf_tokenizer(gguf), "ba", false), (Ids{1, 0}));
  EXPECT_EQ(encode(*make_gguf_tokenizer(gguf), "ba", true), Ids{2});
}

// Quadratic code would need hours for these, not the tests' time limit.
TEST(Encode, LongTextsWithoutAnyPlaceToCut) {
  constexpr size_t kSize = 1 << 19;
  for (const char* name : {"qwen_style", "llama_style"}) {
    const auto tokenizer = parse_tokenizer_json(fixture(std::string(name) + ".json"), "");
    for (const std::string unit : {"a", " ", "another", "<|im_", "\u0323\u0301", "1"}) {
      std::string text;
      while (text.size() < kSize) text += unit;
      const Ids ids = encode(*tokenizer, text, false);
      const bool nfc_changes_it = unit == "\u0323\u0301" && std::string(name) == "qwen_style";
      if (!nfc_changes_it) {
        EXPECT_EQ(tokenizer->decode(ids, false), text) << unit;
      }
    }
  }
}

TEST(SentencePiece, IdsAreThoseOfTheReference) {
  const auto tokenizer = parse_sentencepiece_model(fixture("sentencepiece_bpe.model"), "");
  expect_ids(*tokenizer, expected()["cases"]["sentencepiece_bpe"], "ids");
  for (const std::string& text : texts()) {
    if (text.find("\u2581") != std::string::npos) continue;  // comes back as a space
    EXPECT_EQ(tokenizer->decode(encode(*tokenizer, text, false), false), text);
  }
}

TEST(SentencePiece, BosAndEosAsTheConfigSays) {
  const std::string model = fixture("sentencepiece_bpe.model");
  EXPECT_EQ(encode(*parse_sentencepiece_model(model, ""), "", true), Ids{1});
  const char* config = R"({"add_bos_token": false, "add_eos_token": true})";
  EXPECT_EQ(encode(*parse_sentencepiece_model(model, config), "", true), Ids{2});
  EXPECT_EQ(encode(*parse_sentencepiece_model(model, config), "<s></s>", true), (Ids{1, 2, 2}));
}

TEST(SentencePiece, RefusesWhatItIsNot) {
  const auto error = [](const std::string& bytes) -> std::string {
    try {
      static_cast<void>(parse_sentencepiece_model(bytes, ""));
      return "no error";
    } catch (const Error& e) {
      return e.what();
    }
  };
  EXPECT_EQ(error(fixture("sentencepiece_unigram.model")),
            "tokenizer model 'unigram' is not supported");
  EXPECT_EQ(error(""), "a SentencePiece model without pieces");
  EXPECT_EQ(error("{\"json\": 1}"), "not a SentencePiece model");
  const std::string whole = fixture("sentencepiece_bpe.model");
  EXPECT_NE(error(whole.substr(0, whole.size() / 2)), "no error");
}

GgufVocabulary byte_level_vocabulary(const std::string& name, const char* pre) {
  const json file = json::parse(fixture(name + ".json"));
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  const auto put = [&](const std::string& text, size_t id, int32_t type) {
    if (tokens.size() <= id) tokens.resize(id + 1);
    types.resize(tokens.size());
    tokens[id] = text;
    types[id] = type;
  };
  for (const auto& [text, id] : file["model"]["vocab"].items()) put(text, id, 1);
  for (const json& token : file["added_tokens"]) {
    put(token["content"], token["id"], token["special"] ? 3 : 4);
  }
  std::vector<std::string> merges;
  for (const json& merge : file["model"]["merges"]) {
    merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  return {.model = "gpt2",
          .pre = pre,
          .tokens = std::move(tokens),
          .scores = {},
          .token_types = std::move(types),
          .merges = std::move(merges),
          .bos_id = {},
          .eos_id = {},
          .unknown_id = {}};
}

// GGUF has no lstrip and rstrip: texts with such tokens are left out.
void expect_gguf_ids(const Tokenizer& tokenizer, const json& answers) {
  const std::vector<std::string> inputs = texts();
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].find("<<") != std::string::npos) continue;
    EXPECT_EQ(encode(tokenizer, inputs[i], false), answers["ids"][i].get<Ids>()) << inputs[i];
  }
}

TEST(Gguf, ByteLevelIdsAreThoseOfTheSameJson) {
  const json& cases = expected()["cases"];
  expect_gguf_ids(*make_gguf_tokenizer(byte_level_vocabulary("smollm_style", "smollm")),
                  cases["smollm_style"]);
  expect_gguf_ids(*make_gguf_tokenizer(byte_level_vocabulary("qwen_style", "qwen2")),
                  cases["qwen_style"]);
  expect_gguf_ids(*make_gguf_tokenizer(byte_level_vocabulary("llama3_style", "llama-bpe")),
                  cases["llama3_style"]);
}

TEST(Gguf, BosAndEosAsTheVocabularySays) {
  GgufVocabulary vocabulary = byte_level_vocabulary("smollm_style", "smollm");
  vocabulary.bos_id = 1;
  vocabulary.eos_id = 2;
  vocabulary.add_bos = true;
  vocabulary.add_eos = true;
  const auto tokenizer = make_gguf_tokenizer(vocabulary);
  EXPECT_EQ(encode(*tokenizer, "", true), (Ids{1, 2}));
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
}

GgufVocabulary scored_vocabulary() {
  GgufVocabulary vocabulary{.model = "llama",
                            .pre = "default",
                            .tokens = {},
                            .scores = {},
                            .token_types = {},
                            .merges = {},
                            .bos_id = 1,
                            .eos_id = 2,
                            .unknown_id = 0};
  for (const json& piece : expected()["sentencepiece_pieces"]) {
    vocabulary.tokens.push_back(piece[0]);
    vocabulary.scores.push_back(piece[1]);
    vocabulary.token_types.push_back(piece[2]);
  }
  return vocabulary;
}

TEST(Gguf, ScoredIdsAreThoseOfSentencePiece) {
  const auto tokenizer = make_gguf_tokenizer(scored_vocabulary());
  const json& answers = expected()["cases"]["sentencepiece_bpe"]["ids"];
  const std::vector<std::string> inputs = texts();
  for (size_t i = 0; i < inputs.size(); ++i) {
    // User-defined pieces are looked for before the space prefix here.
    if (inputs[i].find("<keep>") != std::string::npos) continue;
    if (inputs[i].find("  ") != std::string::npos) continue;
    if (inputs[i].find("\u2581") != std::string::npos) continue;
    EXPECT_EQ(encode(*tokenizer, inputs[i], false), answers[i].get<Ids>()) << inputs[i];
  }
  GgufVocabulary without_prefix = scored_vocabulary();
  without_prefix.add_space_prefix = false;
  const auto bare = make_gguf_tokenizer(without_prefix);
  EXPECT_FALSE(bare->strips_leading_space());
  EXPECT_EQ(bare->decode(encode(*bare, " the", false), false), " the");
}

TEST(Gguf, RefusesWhatDoesNotFit) {
  const auto error = [](const GgufVocabulary& vocabulary) -> std::string {
    try {
      static_cast<void>(make_gguf_tokenizer(vocabulary));
      return "no error";
    } catch (const Error& e) {
      return e.what();
    }
  };
  const auto changed = [&](auto change) {
    GgufVocabulary vocabulary = byte_level_vocabulary("smollm_style", "smollm");
    change(vocabulary);
    return error(vocabulary);
  };
  EXPECT_EQ(changed([](auto& v) { v.pre = "falcon9"; }),
            "pre-tokenizer 'falcon9' is not supported");
  EXPECT_EQ(changed([](auto& v) { v.model = "bert"; }), "tokenizer model 'bert' is not supported");
  EXPECT_EQ(changed([](auto& v) { v.tokens.clear(); }), "a vocabulary without tokens");
  EXPECT_THAT(changed([](auto& v) { v.token_types.pop_back(); }), HasSubstr("token types"));
  EXPECT_EQ(changed([](auto& v) { v.token_types[0] = 9; }), "token type 9 is not known");
  EXPECT_THAT(changed([](auto& v) { v.eos_id = 1 << 20; }), HasSubstr("EOS id 1048576"));
  EXPECT_EQ(changed([](auto& v) { v.merges.emplace_back("zz"); }),
            "merge 'zz' is not \"left right\"");
  EXPECT_EQ(changed([](auto& v) { v.merges.emplace_back("zq qz"); }),
            "merge 'zq qz' is not in the vocabulary");
  EXPECT_THAT(changed([](auto& v) { v.tokens[3] = "\xFF"; }), HasSubstr("token 3 is not UTF-8"));
  GgufVocabulary scored = scored_vocabulary();
  scored.scores[7] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(error(scored), "the score of token 7 is not a number");
  scored.scores.pop_back();
  EXPECT_THAT(error(scored), HasSubstr("scores"));
}

struct Refusal {
  const char* path;   // JSON pointer into qwen_style.json
  const char* value;  // what it becomes
  const char* error;
};

TEST(TokenizerJson, RefusesByName) {
  const Refusal refusals[] = {
      {"/model/type", R"("Unigram")", "tokenizer model 'Unigram' is not supported"},
      {"/model/type", "7", "\"type\" is not a string"},
      {"/model/dropout", "0.1", "BPE dropout is not supported"},
      {"/model/end_of_word_suffix", R"("</w>")", "end_of_word_suffix is not supported"},
      {"/model/unk_token", R"("<nope>")", "unk_token '<nope>' is not in the vocabulary"},
      {"/model/byte_fallback", "true", "byte_fallback of a byte-level vocabulary is not supported"},
      {"/model/vocab", "[]", "\"vocab\" is not an object"},
      {"/model/vocab/a", "-1", "token 'a' has id -1, not in [0, 4194304)"},
      {"/model/vocab/a", "99999999999", "token 'a' has id 99999999999, not in [0, 4194304)"},
      {"/model/vocab/a", "1.5", "token 'a' has no integer id"},
      {"/model/merges", "{}", "\"merges\" is not a list"},
      {"/model/merges/0",
       R"("abc")",
       "a merge is neither \"left right\" nor [\"left\", \"right\"]"},
      {"/model/merges/0", R"(["qz", "zq"])", "merge 0 of 'qz' and 'zq' is not in the vocabulary"},
      {"/normalizer", R"({"type": "Lowercase"})", "normalizer 'Lowercase' is not supported"},
      {"/normalizer",
       R"({"type": "Replace", "pattern": {"Regex": "a"}, "content": "b"})",
       "normalizer 'Replace with a regular expression' is not supported"},
      {"/normalizer",
       R"({"type": "Replace", "pattern": {"String": ""}, "content": "b"})",
       "normalizer 'Replace of nothing' is not supported"},
      {"/pre_tokenizer",
       R"({"type": "Whitespace"})",
       "pre-tokenizer 'Whitespace' is not supported"},
      {"/pre_tokenizer",
       R"({"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated"})",
       "split pattern '(a' is not supported: missing closing parenthesis at 2"},
      {"/pre_tokenizer",
       R"({"type": "Split", "pattern": {"String": "a"}, "behavior": "Odd"})",
       "split behavior 'Odd' is not supported"},
      {"/decoder", "null", "decoder 'null' is not supported"},
      {"/decoder", R"({"type": "WordPiece"})", "decoder 'WordPiece' is not supported"},
      {"/post_processor",
       R"({"type": "BertProcessing"})",
       "post-processor 'BertProcessing' is not supported"},
      {"/added_tokens/0/single_word",
       "true",
       "added token '<|im_start|>': single_word is not supported"},
      {"/added_tokens/0/content", "5", "\"content\" is not a string"},
      {"/added_tokens", "5", "\"added_tokens\" is not a list"},
  };
  const json whole = json::parse(fixture("qwen_style.json"));
  EXPECT_EQ(error_of(whole.dump()), "no error");
  for (const Refusal& refusal : refusals) {
    json changed = whole;
    changed[json::json_pointer(refusal.path)] = json::parse(refusal.value);
    EXPECT_EQ(error_of(changed.dump()), refusal.error);
  }
}

TEST(TokenizerJson, RefusesBrokenJson) {
  EXPECT_THAT(error_of(""), HasSubstr("not JSON"));
  EXPECT_THAT(error_of("{\"a\": \"\xFF\"}"), HasSubstr("not JSON"));
  EXPECT_THAT(error_of("[]"), HasSubstr("the parent of \"model\" is not an object"));
  EXPECT_EQ(error_of(std::string(100'000, '[')), "JSON nested deeper than 32");
  std::string many_values = "[0";
  for (int i = 0; i < 8'000'000; ++i) many_values += ",0";
  EXPECT_EQ(error_of(many_values), "JSON of more than 8000000 values");
}

TEST(LoadTokenizer, NamesTheFile) {
  const auto dir = std::filesystem::path(testing::TempDir()) / "lamina_no_tokenizer";
  std::filesystem::create_directories(dir);
  try {
    static_cast<void>(load_tokenizer(dir));
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), StatusCode::kNotFound);
    EXPECT_THAT(e.what(), HasSubstr("neither tokenizer.json nor tokenizer.model"));
  }
  const auto path = test::fixture_path("text/expected.json");
  try {
    static_cast<void>(load_tokenizer_json(path, ""));
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("expected.json: "));
  }
}

// Feeding ids one at a time gives the same text as all at once, and every part of it is whole.
TEST(Detokenizer, IncrementalEqualsWhole) {
  for (const std::string name : {"gpt2_style", "llama_style"}) {
    const auto tokenizer = parse_tokenizer_json(fixture(name + ".json"), "");
    for (const json& ids_json : expected()["cases"][name]["ids_special"]) {
      const Ids ids = ids_json.get<Ids>();
      for (const bool skip : {false, true}) {
        Detokenizer detokenizer(*tokenizer, skip, false);
        std::string text;
        for (const int32_t id : ids) {
          const std::string part = detokenizer.add(id);
          EXPECT_NO_THROW(static_cast<void>(json(part).dump())) << "not UTF-8";
          text += part;
        }
        EXPECT_EQ(text + detokenizer.finish(), tokenizer->decode(ids, skip));
      }
    }
  }
}

TEST(Detokenizer, HoldsHalfACharacterBack) {
  const auto tokenizer = parse_tokenizer_json(fixture("llama_style.json"), "");
  const auto byte = [&](const char* name) { return *tokenizer->find(name); };
  Detokenizer detokenizer(*tokenizer, true, false);
  EXPECT_EQ(detokenizer.add(byte("<0xF0>")), "");
  EXPECT_EQ(detokenizer.add(byte("<0x9F>")), "");
  EXPECT_EQ(detokenizer.add(byte("<s>")), "");  // skipped, does not cut the character
  EXPECT_EQ(detokenizer.add(byte("<0x99>")), "");
  EXPECT_EQ(detokenizer.add(byte("<0x82>")), "\U0001F642");
  EXPECT_EQ(detokenizer.add(byte("<0xE4>")), "");
  EXPECT_EQ(detokenizer.add(byte("<0xFF>")), "\uFFFD\uFFFD");
  EXPECT_EQ(detokenizer.add(byte("<0xE4>")), "");
  EXPECT_EQ(detokenizer.add(byte("<0xBD>")), "");
  EXPECT_EQ(detokenizer.finish(), "\uFFFD");
  EXPECT_EQ(detokenizer.finish(), "");
}

TEST(Detokenizer, StripsOneSpaceUnlessTextGoesBefore) {
  const auto tokenizer = parse_tokenizer_json(fixture("llama_style.json"), "");
  const int32_t space = *tokenizer->find("\u2581");
  Detokenizer first(*tokenizer, true, false);
  EXPECT_EQ(first.add(*tokenizer->find("<s>")), "");
  EXPECT_EQ(first.add(space), "");
  EXPECT_EQ(first.add(space), " ");
  Detokenizer later(*tokenizer, true, true);
  EXPECT_EQ(later.add(space), " ");
}

}  // namespace
}  // namespace lamina
