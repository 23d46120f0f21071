#include "text/tokenizer/tokenizer_json.h"

#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/tokenizer/json_file.h"

namespace lamina {
namespace {

using Json = nlohmann::json;

[[noreturn]] void fail(const std::string& message) {
  throw Error(StatusCode::kInvalidArgument, message);
}

Vocabulary parse_vocabulary(const Json& model) {
  const Json& tokens = json_member(model, "vocab");
  if (!tokens.is_object()) fail("\"vocab\" is not an object");
  Vocabulary vocabulary;
  for (const auto& [text, id] : tokens.items()) {
    if (!id.is_number_integer()) fail(fmt::format("token {} has no integer id", in_quotes(text)));
    vocabulary.add(text, id.get<int64_t>());
  }
  return vocabulary;
}

// Tokens outside "vocab" go into the vocabulary under the id of the list; one that is in it keeps
// its id there. What is looked for in normalised text is normalised itself, prefix and all.
std::vector<AddedToken> parse_added_tokens(const Json& root,
                                           const Normalizer& normalizer,
                                           Vocabulary& vocabulary) {
  std::vector<AddedToken> tokens;
  if (json_member(root, "added_tokens").is_null()) return tokens;
  for (const Json& entry : json_array(root, "added_tokens")) {
    AddedToken token;
    token.content = json_string(entry, "content");
    if (json_bool(entry, "single_word", false)) {
      fail(fmt::format("added token {}: single_word is not supported", in_quotes(token.content)));
    }
    if (!vocabulary.find(token.content)) {
      vocabulary.add_outside_model(token.content, json_integer(entry, "id"));
    }
    token.id = *vocabulary.find(token.content);
    token.special = json_bool(entry, "special", false);
    token.normalized = json_bool(entry, "normalized", true);
    token.lstrip = json_bool(entry, "lstrip", false);
    token.rstrip = json_bool(entry, "rstrip", false);
    if (token.normalized) token.content = normalizer.apply(token.content).value_or_throw();
    tokens.push_back(std::move(token));
  }
  return tokens;
}

// A merge is "left right" or ["left", "right"], by the file's age.
std::pair<std::string, std::string> parse_merge(const Json& merge) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  if (merge.is_string()) {
    const auto& text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  fail("a merge is neither \"left right\" nor [\"left\", \"right\"]");
}

PairMerges parse_merges(const Json& model, const Vocabulary& vocabulary) {
  std::vector<PairMerges::Rule> rules;
  for (const Json& merge : json_array(model, "merges")) {
    if (merge.is_string() && merge.get_ref<const std::string&>().starts_with("#version")) continue;
    const auto [left, right] = parse_merge(merge);
    const std::optional<int32_t> left_id = vocabulary.find_in_model(left);
    const std::optional<int32_t> right_id = vocabulary.find_in_model(right);
    const std::optional<int32_t> id = vocabulary.find_in_model(left + right);
    if (!left_id || !right_id || !id) {
      fail(fmt::format("merge {} of {} and {} is not in the vocabulary",
                       rules.size(),
                       in_quotes(left),
                       in_quotes(right)));
    }
    rules.push_back({*left_id, *right_id, {static_cast<uint32_t>(rules.size()), *id}});
  }
  return {std::move(rules), vocabulary.size()};
}

void check_model(const Json& model) {
  // Old files do not say BPE, but then they have merges.
  const char* guess = json_member(model, "merges").is_null() ? "of no type" : "BPE";
  const std::string type = json_string(model, "type", guess);
  if (type != "BPE") fail(fmt::format("tokenizer model {} is not supported", in_quotes(type)));
  const Json& dropout = json_member(model, "dropout");
  if (!dropout.is_null() && !(dropout.is_number() && dropout.get<double>() == 0.0)) {
    fail("BPE dropout is not supported");
  }
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!json_string(model, affix, "").empty()) fail(fmt::format("{} is not supported", affix));
  }
}

BpeModel::Options parse_options(const Json& model, const Vocabulary& vocabulary, bool byte_level) {
  BpeModel::Options options;
  options.byte_level = byte_level;
  options.byte_fallback = json_bool(model, "byte_fallback", false);
  options.ignore_merges = json_bool(model, "ignore_merges", false);
  options.fuse_unknown = json_bool(model, "fuse_unk", false);
  const std::string unknown = json_string(model, "unk_token", "");
  if (!unknown.empty()) {
    options.unknown_id = vocabulary.find_in_model(unknown);
    if (!options.unknown_id) {
      fail(fmt::format("unk_token {} is not in the vocabulary", in_quotes(unknown)));
    }
  }
  if (byte_level && options.byte_fallback) {
    fail("byte_fallback of a byte-level vocabulary is not supported");
  }
  return options;
}

// tokenizer_config.json writes a token as a string or as an object with "content".
std::optional<int32_t> find_named_token(const Json& config,
                                        const char* key,
                                        const Vocabulary& vocabulary) {
  const Json& token = json_member(config, key);
  if (token.is_null()) return std::nullopt;
  return vocabulary.find(token.is_object() ? json_string(token, "content")
                                           : json_string(config, key));
}

}  // namespace

std::unique_ptr<Tokenizer> parse_tokenizer_json(std::string_view json, std::string_view config) {
  const Json root = parse_json(json);
  const Json& model = json_member(root, "model");
  check_model(model);
  Vocabulary vocabulary = parse_vocabulary(model);
  Normalizer normalizer(parse_normalizer(json_member(root, "normalizer")));
  std::vector<AddedToken> added = parse_added_tokens(root, normalizer, vocabulary);
  PreTokenizerParts pre = parse_pre_tokenizer(json_member(root, "pre_tokenizer"));
  Decoding decoding = parse_decoder(json_member(root, "decoder"));
  const BpeModel::Options options = parse_options(model, vocabulary, pre.byte_level);
  PairMerges merges = parse_merges(model, vocabulary);
  SurroundingIds around = parse_post_processor(json_member(root, "post_processor"), vocabulary);
  const Json settings = config.empty() ? Json::object() : parse_json(config);
  const auto bos_id = find_named_token(settings, "bos_token", vocabulary);
  const auto eos_id = find_named_token(settings, "eos_token", vocabulary);
  return std::make_unique<BpeTokenizer>(TokenizerParts{
      .model = BpeModel(std::move(vocabulary), std::move(merges), options),
      .added_tokens = std::move(added),
      .normalizer = std::move(normalizer),
      .pre_tokenizer = PreTokenizer(std::move(pre.steps)),
      .decoding = std::move(decoding),
      .prefix_ids = std::move(around.prefix),
      .suffix_ids = std::move(around.suffix),
      .bos_id = bos_id,
      .eos_id = eos_id,
  });
}

}  // namespace lamina
