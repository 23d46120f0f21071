// Api: the endpoints without HTTP: bodies in, answers out. Joins request parsing with the
// tokenizer, the chat template and the engine's limits. Immutable but for the seeds it hands out;
// every method may be called from any thread, and those that tokenize take long for long prompts.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/rng.h"
#include "engine/engine.h"
#include "server/http_message.h"
#include "server/openai/chat_request.h"
#include "server/openai/completion_request.h"
#include "server/openai/response.h"
#include "server/server_config.h"
#include "text/tokenizer.h"

namespace lamina::server {

// A generation call, ready to be submitted.
struct PreparedCall {
  ResponseContext response;
  std::vector<GenerationRequest> requests;  // one for each prompt
  bool stream = false;
};

class Api {
 public:
  // The arguments outlive this. `tokenizer` may be null.
  Api(const ServerConfig& config, Engine& engine, const Tokenizer* tokenizer);

  // All throw ApiError.
  [[nodiscard]] PreparedCall prepare(ApiKind kind, std::string_view body);
  [[nodiscard]] std::string tokenize(std::string_view body) const;
  [[nodiscard]] std::string detokenize(std::string_view body) const;
  [[nodiscard]] std::string model(const std::string& name) const;

  [[nodiscard]] std::string models() const;
  [[nodiscard]] std::string version() const;
  // 200 or 503; `is_draining`: the server is about to stop.
  [[nodiscard]] HttpReply health(bool is_draining) const;

 private:
  PreparedCall prepare_completion(std::string_view body);
  PreparedCall prepare_chat(std::string_view body);
  [[nodiscard]] PreparedCall begin_call(ApiKind kind, const GenerationOptions& options) const;
  // `param` is what errors about the prompt name.
  void add_prompt(const GenerationOptions& options,
                  int32_t default_max_tokens,
                  std::string_view param,
                  PromptInfo info,
                  PreparedCall* call);
  void set_max_tokens(const GenerationOptions& options,
                      int32_t default_max_tokens,
                      std::string_view param,
                      GenerationRequest* request) const;
  void require_room_for(size_t num_prompts, int32_t n) const;
  [[nodiscard]] std::vector<int32_t> encode(std::string_view text,
                                            bool add_special_tokens,
                                            std::string_view param) const;
  [[nodiscard]] std::string render(const ChatPrompt& prompt) const;

  const ServerConfig& config_;
  Engine& engine_;
  const Tokenizer* tokenizer_;
  ParseContext context_;
  int64_t created_;
  uint64_t seed_;  // of the seeds of requests that bring none
  std::atomic<uint64_t> num_draws_{0};
};

// The refusal while the engine has no room.
ApiError server_is_full();

// 24 hexadecimal digits, different each time.
std::string make_unique_id();

}  // namespace lamina::server
