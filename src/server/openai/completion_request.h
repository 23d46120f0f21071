// CompletionRequest: the body of POST /v1/completions, parsed and validated. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "server/openai/generation_options.h"

namespace lamina::server {

using Prompt = std::variant<std::string, std::vector<int32_t>>;

struct CompletionRequest {
  GenerationOptions options;
  std::vector<Prompt> prompts;  // at least one, at most kMaxPrompts
  bool echo = false;
  bool add_special_tokens = true;
};

// Throws ApiError.
CompletionRequest parse_completion_request(std::string_view body, const ParseContext& context);

}  // namespace lamina::server
