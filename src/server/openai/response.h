// Answers of /v1/completions and /v1/chat/completions: ResponseBody gathers events into one JSON
// object, ResponseStream turns each into server-sent events. Both are fed what the engine reports
// about the call's prompts, in any interleaving. Pure; each is confined to one thread at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "engine/engine.h"
#include "server/openai/api_error.h"

namespace lamina::server {

enum class ApiKind : uint8_t { kCompletion, kChat };

struct PromptInfo {
  std::vector<int32_t> ids;
  std::string text;  // only with echo
};

// What an answer needs to know of its call. The tokenizer (null: none) outlives it.
struct ResponseContext {
  ApiKind kind = ApiKind::kCompletion;
  std::string id;       // "cmpl-..." or "chatcmpl-..."
  int64_t created = 0;  // seconds since 1970
  std::string model;
  int32_t n = 1;
  std::vector<PromptInfo> prompts;
  bool echo = false;
  bool wants_logprobs = false;
  bool skip_special_tokens = true;
  bool return_token_ids = false;
  bool include_usage = false;     // of streams; a body always has it
  bool continuous_usage = false;  // usage in every chunk of a stream
  const Tokenizer* tokenizer = nullptr;

  [[nodiscard]] int32_t num_choices() const { return n * static_cast<int32_t>(prompts.size()); }
};

// Counts what all kinds of answers need to count.
class ResponseProgress {
 public:
  explicit ResponseProgress(const ResponseContext& context);
  // The choice's index in the whole answer.
  int32_t add(int32_t prompt_idx, const GenerationDelta& delta);
  // Every choice has its finish reason.
  [[nodiscard]] bool is_complete() const { return num_open_choices_ == 0; }
  [[nodiscard]] int64_t num_prompt_tokens() const { return num_prompt_tokens_; }
  [[nodiscard]] int64_t num_generated_tokens() const { return num_generated_tokens_; }

 private:
  int32_t n_;
  int32_t num_choices_;
  int32_t num_open_choices_;
  int64_t num_prompt_tokens_ = 0;
  int64_t num_generated_tokens_ = 0;
};

class ResponseBody {
 public:
  explicit ResponseBody(ResponseContext context);
  void add(int32_t prompt_idx, PromptScores scores);
  void add(int32_t prompt_idx, GenerationDelta delta);
  [[nodiscard]] const ResponseProgress& progress() const { return progress_; }
  // Once complete. May take a while for many logprobs: not for an io thread.
  [[nodiscard]] std::string json() const;

 private:
  struct Choice {
    std::string text;
    std::vector<ScoredToken> tokens;
    std::optional<FinishReason> finish_reason;
    std::optional<std::variant<int32_t, std::string>> stop_reason;
  };
  [[nodiscard]] nlohmann::ordered_json completion_logprobs_json(size_t prompt_idx,
                                                                const Choice& choice) const;

  ResponseContext context_;
  ResponseProgress progress_;
  std::vector<PromptScores> scores_;  // one a prompt; empty where not asked for
  std::vector<Choice> choices_;
};

class ResponseStream {
 public:
  explicit ResponseStream(ResponseContext context);
  void add(int32_t prompt_idx, PromptScores scores);
  // Zero or more events. A chat choice opens with its role; deltas that show nothing give nothing.
  [[nodiscard]] std::string add(int32_t prompt_idx, const GenerationDelta& delta);
  [[nodiscard]] const ResponseProgress& progress() const { return progress_; }
  // Usage, if asked for, and [DONE].
  [[nodiscard]] std::string finish() const;

 private:
  struct Choice {
    bool is_open = false;  // its first chunk is out
    int64_t text_offset = 0;
  };
  std::string open_choice(int32_t prompt_idx, int32_t choice_idx);

  ResponseContext context_;
  ResponseProgress progress_;
  std::vector<PromptScores> scores_;
  std::vector<Choice> choices_;
};

// One server-sent event.
std::string sse_event(std::string_view data);
// How a stream that failed ends; clients raise it as an exception.
std::string sse_error(const ApiError& error);
// A comment line, which clients skip: keeps proxies from closing a quiet connection.
inline constexpr std::string_view kSseKeepAlive = ": keep-alive\n\n";

}  // namespace lamina::server
