// ChatRequest: the body of POST /v1/chat/completions, parsed and validated. The messages stay JSON:
// only a chat template reads them. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "server/openai/generation_options.h"

namespace lamina::server {

inline constexpr size_t kMaxMessages = 4096;

// Messages on their way to a prompt: what a chat template needs, and what follows it. Also part of
// POST /tokenize.
struct ChatPrompt {
  std::string template_context;               // JSON object of the template's variables
  std::optional<std::string> continued_text;  // continue_final_message: the prompt ends with it
  bool add_special_tokens = false;            // templates bring their own
};

struct ChatRequest {
  GenerationOptions options;
  ChatPrompt prompt;
};

// Both throw ApiError.
ChatRequest parse_chat_request(std::string_view body, const ParseContext& context);
ChatPrompt parse_chat_prompt(const nlohmann::json& body, const ParseContext& context);

// The rendered template, cut after the continued message where one is. kInvalidArgument if the
// template changed that message beyond recognition.
Result<std::string> finish_chat_prompt(const ChatPrompt& prompt, std::string rendered);

}  // namespace lamina::server
