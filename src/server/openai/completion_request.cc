#include "server/openai/completion_request.h"

#include <fmt/format.h>

#include <array>

#include <nlohmann/json.hpp>

#include "server/openai/json_fields.h"

namespace lamina::server {

namespace {

using Json = nlohmann::json;

Prompt parse_text_prompt(const Json& value, const ParseContext& context) {
  if (!context.has_tokenizer) {
    throw bad_field("prompt",
                    "the server runs with --skip-tokenizer-init: prompts must be token ids");
  }
  return value.get<std::string>();
}

Prompt parse_prompt(const Json& value, const std::string& name, const ParseContext& context) {
  if (value.is_string()) return parse_text_prompt(value, context);
  return read_token_ids(value, name, context.vocab_size);
}

// string | [string] | [int] | [[int]]
std::vector<Prompt> parse_prompts(const Json& body, const ParseContext& context) {
  const Json* value = FieldReader(body).find("prompt");
  if (value == nullptr) throw bad_field("prompt", "prompt is missing");
  if (value->is_array() && value->empty()) throw bad_field("prompt", "prompt is an empty list");
  const bool is_one = !value->is_array() || value->front().is_number();
  if (is_one) return {parse_prompt(*value, "prompt", context)};
  if (value->size() > static_cast<size_t>(kMaxPrompts)) {
    throw bad_field(
        "prompt",
        fmt::format(
            "prompt may be a list of at most {} prompts, got {}", kMaxPrompts, value->size()));
  }
  std::vector<Prompt> prompts;
  for (const Json& element : *value) {
    prompts.push_back(parse_prompt(element, fmt::format("prompt[{}]", prompts.size()), context));
  }
  return prompts;
}

}  // namespace

CompletionRequest parse_completion_request(std::string_view text, const ParseContext& context) {
  const Json body = parse_json_object(text);
  const FieldReader fields(body);
  log_ignored_fields(body, std::array<std::string_view, 4>{"prompt", "echo", "suffix", "best_of"});
  CompletionRequest request;
  request.options = parse_generation_options(body, context);
  refuse_field(body, "suffix", "is not supported");
  request.prompts = parse_prompts(body, context);
  request.echo = fields.boolean("echo", false);
  request.add_special_tokens = fields.boolean("add_special_tokens", true);

  GenerationRequest& generation = request.options.generation;
  if (fields.integer("best_of", 1, kMaxChoices).value_or(generation.n) != generation.n) {
    throw bad_field("best_of", "best_of other than n is not supported", "unsupported_parameter");
  }
  if (const auto logprobs = fields.integer("logprobs", 0, kMaxLogprobs)) {
    generation.sampling.num_logprobs = static_cast<int32_t>(*logprobs);
    generation.prompt_logprobs = request.echo;
  }
  if (request.options.max_tokens == 0 && !request.echo) {
    throw bad_field("max_tokens", "max_tokens must be at least 1 unless echo is true, got 0");
  }
  return request;
}

}  // namespace lamina::server
