// GenerationOptions: the request fields that /v1/completions and /v1/chat/completions share,
// validated. Parsing is pure: the same body and ParseContext give the same result, and nothing here
// knows sockets, tokenizers or an engine. Used by completion_request.cc and chat_request.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "engine/engine.h"
#include "model/model_config.h"
#include "server/openai/api_error.h"

namespace lamina::server {

inline constexpr int32_t kMaxChoices = 64;   // n
inline constexpr int32_t kMaxLogprobs = 20;  // logprobs, top_logprobs
inline constexpr size_t kMaxStopStrings = 16;
inline constexpr size_t kMaxStopBytes = 4096;     // of one stop string
inline constexpr size_t kMaxListedTokens = 1024;  // stop_token_ids, logit_bias
inline constexpr int32_t kMaxPrompts = 1024;      // of one /v1/completions call

// What parsing depends on besides the body. Immutable while the server runs.
struct ParseContext {
  std::vector<std::string> served_model_names;  // the first one is what responses say
  GenerationDefaults defaults;
  int32_t vocab_size = 0;
  bool has_tokenizer = true;
  std::string bos_token, eos_token;  // for chat templates; may be empty
};

struct GenerationOptions {
  std::string model;             // served name to answer with
  GenerationRequest generation;  // all but id, prompt_ids, max_tokens and, where not given, seed
  std::optional<int32_t> max_tokens;
  std::optional<uint64_t> seed;
  bool stream = false;
  bool include_usage = false;     // stream_options
  bool continuous_usage = false;  // stream_options.continuous_usage_stats
  bool return_token_ids = false;
};

// Throws ApiError. Refuses by name what is asked for and would silently not happen.
GenerationOptions parse_generation_options(const nlohmann::json& body, const ParseContext& context);

// The served name for what the body's "model" says; throws ApiError 404 for an unknown one.
std::string resolve_model(const nlohmann::json& body, const ParseContext& context);
ApiError unknown_model(const std::string& name, const std::vector<std::string>& served_names);
// One debug line for each field that neither is shared by both endpoints nor is in `known`.
void log_ignored_fields(const nlohmann::json& body, std::span<const std::string_view> known);
// Throws ApiError 400 if `name` is present and neither null, false, empty nor {"type": "text"}.
void refuse_field(const nlohmann::json& body, const char* name, const char* reason);

}  // namespace lamina::server
