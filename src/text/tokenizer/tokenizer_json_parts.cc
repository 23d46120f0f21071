// The small parts of tokenizer.json: normalizer, pre-tokenizer, decoder, post-processor. Each may
// be a Sequence of others; parse_json() has bounded how deep they nest.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/tokenizer/json_file.h"
#include "text/tokenizer/split_patterns.h"
#include "text/tokenizer/tokenizer_json.h"
#include "text/tokenizer/utf8.h"

namespace lamina {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxSteps = 32;
constexpr size_t kMaxReplacementBytes = 64;
constexpr std::string_view kMetaspace = "\u2581";

[[noreturn]] void fail(const std::string& message) {
  throw Error(StatusCode::kInvalidArgument, message);
}

[[noreturn]] void refuse(const char* part, std::string_view what) {
  fail(fmt::format("{} {} is not supported", part, in_quotes(what)));
}

// Parts of Sequences, flattened.
void flatten(const Json& part, const char* members, std::vector<const Json*>& parts) {
  if (part.is_null()) return;
  if (json_string(part, "type") != "Sequence") {
    parts.push_back(&part);
    if (parts.size() > kMaxSteps) fail(fmt::format("more than {} {}", kMaxSteps, members));
    return;
  }
  for (const Json& member : json_array(part, members)) flatten(member, members, parts);
}

std::string short_string(const Json& object, const char* key) {
  std::string text = json_string(object, key);
  if (text.size() > kMaxReplacementBytes) {
    fail(fmt::format("\"{}\" has more than {} bytes", key, kMaxReplacementBytes));
  }
  return text;
}

ReplaceStep parse_replace(const Json& step, const char* part) {
  const Json& pattern = json_member(step, "pattern");
  if (!json_member(pattern, "Regex").is_null()) refuse(part, "Replace with a regular expression");
  ReplaceStep replace{short_string(pattern, "String"), short_string(step, "content")};
  if (replace.from.empty()) refuse(part, "Replace of nothing");
  return replace;
}

SplitBehavior parse_behavior(const std::string& name) {
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  refuse("split behavior", name);
}

SplitStep regex_step(std::string_view pattern) {
  return {SplitPattern(pattern, SplitPattern::Syntax::kRegex)};
}

SplitStep parse_split(const Json& step) {
  const Json& pattern = json_member(step, "pattern");
  const bool is_regex = !json_member(pattern, "Regex").is_null();
  return {SplitPattern(json_string(pattern, is_regex ? "Regex" : "String"),
                       is_regex ? SplitPattern::Syntax::kRegex : SplitPattern::Syntax::kLiteral),
          parse_behavior(json_string(step, "behavior")),
          json_bool(step, "invert", false)};
}

std::string metaspace_replacement(const Json& step) {
  std::string replacement = json_string(step, "replacement", kMetaspace);
  if (replacement.empty() || utf8_size(replacement[0]) != replacement.size()) {
    fail("a Metaspace replacement is not one character");
  }
  return replacement;
}

MetaspaceStep::Prepend parse_prepend_scheme(const Json& step) {
  // Files from before prepend_scheme have a flag instead.
  const bool add_prefix = json_bool(step, "add_prefix_space", true);
  const std::string scheme = json_string(step, "prepend_scheme", add_prefix ? "always" : "never");
  if (scheme == "always") return MetaspaceStep::Prepend::kAlways;
  if (scheme == "first") return MetaspaceStep::Prepend::kFirst;
  if (scheme == "never") return MetaspaceStep::Prepend::kNever;
  refuse("prepend_scheme", scheme);
}

void add_token_id(const Json& special_tokens,
                  const std::string& name,
                  const Vocabulary& vocabulary,
                  std::vector<int32_t>& ids) {
  for (const Json& id : json_array(json_member(special_tokens, name.c_str()), "ids")) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 ||
        id.get<int64_t>() >= vocabulary.size()) {
      fail(fmt::format("post-processor token {} has an id that is not in the vocabulary",
                       in_quotes(name)));
    }
    ids.push_back(id.get<int32_t>());
  }
  if (ids.size() > kMaxSteps) fail("too many post-processor tokens");
}

void parse_template(const Json& step, const Vocabulary& vocabulary, SurroundingIds& around) {
  bool after_text = false;
  for (const Json& item : json_array(step, "single")) {
    if (!json_member(item, "Sequence").is_null()) {
      if (after_text) refuse("post-processor", "a text that is used twice");
      after_text = true;
      continue;
    }
    const std::string& name = json_string(json_member(item, "SpecialToken"), "id");
    add_token_id(json_member(step, "special_tokens"),
                 name,
                 vocabulary,
                 after_text ? around.suffix : around.prefix);
  }
  if (!after_text) refuse("post-processor", "a template without the text");
}

void parse_strip(const Json& step, bool fused, Decoding& decoding) {
  const int64_t start = json_integer(step, "start");
  if (json_integer(step, "stop") != 0 || start < 0 || start > 1 ||
      json_string(step, "content") != " ") {
    refuse("decoder", "Strip of anything but one leading space");
  }
  if (start == 1 && !fused) refuse("decoder", "Strip before Fuse");
  if (start == 1) decoding.strips_leading_space = true;
}

}  // namespace

std::vector<NormalizerStep> parse_normalizer(const Json& normalizer) {
  std::vector<const Json*> parts;
  flatten(normalizer, "normalizers", parts);
  std::vector<NormalizerStep> steps;
  for (const Json* part : parts) {
    const std::string& type = json_string(*part, "type");
    if (type == "NFC") {
      steps.emplace_back(NfcStep{});
    } else if (type == "Prepend") {
      steps.emplace_back(PrependStep{short_string(*part, "prepend")});
    } else if (type == "Replace") {
      steps.emplace_back(parse_replace(*part, "normalizer"));
    } else {
      refuse("normalizer", type);
    }
  }
  return steps;
}

PreTokenizerParts parse_pre_tokenizer(const Json& pre_tokenizer) {
  std::vector<const Json*> parts;
  flatten(pre_tokenizer, "pretokenizers", parts);
  PreTokenizerParts result;
  for (const Json* part : parts) {
    const std::string& type = json_string(*part, "type");
    if (result.byte_level) refuse("pre-tokenizer", type + " after ByteLevel");
    if (type == "ByteLevel") {
      result.byte_level = true;
      if (json_bool(*part, "add_prefix_space", true)) result.steps.emplace_back(PrefixSpaceStep{});
      if (json_bool(*part, "use_regex", true)) result.steps.emplace_back(regex_step(kGpt2Pattern));
    } else if (type == "Split") {
      result.steps.emplace_back(parse_split(*part));
    } else if (type == "Digits") {
      const bool individual = json_bool(*part, "individual_digits", false);
      result.steps.emplace_back(regex_step(individual ? kDigitPattern : kDigitsPattern));
    } else if (type == "Metaspace") {
      result.steps.emplace_back(MetaspaceStep{metaspace_replacement(*part),
                                              parse_prepend_scheme(*part),
                                              json_bool(*part, "split", true)});
    } else {
      refuse("pre-tokenizer", type);
    }
  }
  return result;
}

Decoding parse_decoder(const Json& decoder) {
  if (decoder.is_null()) refuse("decoder", "null");
  std::vector<const Json*> parts;
  flatten(decoder, "decoders", parts);
  Decoding decoding;
  bool fused = false;
  for (const Json* part : parts) {
    const std::string& type = json_string(*part, "type");
    if (fused && type != "Strip") refuse("decoder", type + " after Fuse");
    if (type == "Replace") {
      decoding.replacements.push_back(parse_replace(*part, "decoder"));
    } else if (type == "ByteFallback") {
      decoding.byte_fallback = true;
    } else if (type == "Fuse") {
      fused = true;
    } else if (type == "Strip") {
      parse_strip(*part, fused, decoding);
    } else if (type == "Metaspace") {
      decoding.replacements.push_back({metaspace_replacement(*part), " "});
      decoding.strips_leading_space = parse_prepend_scheme(*part) != MetaspaceStep::Prepend::kNever;
    } else if (type != "ByteLevel") {  // what ByteLevel decodes follows from the pre-tokenizer
      refuse("decoder", type);
    }
  }
  return decoding;
}

SurroundingIds parse_post_processor(const Json& post_processor, const Vocabulary& vocabulary) {
  std::vector<const Json*> parts;
  flatten(post_processor, "processors", parts);
  SurroundingIds around;
  for (const Json* part : parts) {
    const std::string& type = json_string(*part, "type");
    if (type == "TemplateProcessing") {
      SurroundingIds inner;
      parse_template(*part, vocabulary, inner);
      around.prefix.insert(around.prefix.begin(), inner.prefix.begin(), inner.prefix.end());
      around.suffix.insert(around.suffix.end(), inner.suffix.begin(), inner.suffix.end());
    } else if (type != "ByteLevel") {  // ByteLevel only trims offsets, which nobody asks us for
      refuse("post-processor", type);
    }
  }
  return around;
}

}  // namespace lamina
