// A body of any endpoint, as its first byte chooses: parsed into a request or refused with an
// ApiError that itself is valid JSON. What was accepted keeps its promises.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include <nlohmann/json.hpp>

#include "server/openai/api_error.h"
#include "server/openai/chat_request.h"
#include "server/openai/completion_request.h"
#include "server/openai/tokenize_request.h"

namespace {

using namespace lamina;
using namespace lamina::server;

void require(bool condition) {
  if (!condition) std::abort();
}

void check(const GenerationOptions& options) {
  const GenerationRequest& generation = options.generation;
  require(generation.n >= 1 && generation.n <= kMaxChoices);
  require(generation.sampling.num_logprobs <= kMaxLogprobs);
  require(generation.sampling.temperature >= 0 && generation.sampling.temperature <= 2);
  require(generation.stop.size() <= kMaxStopStrings);
  require(!options.max_tokens || *options.max_tokens >= 0);
}

void parse(uint8_t endpoint, std::string_view body, const ParseContext& context) {
  if (endpoint % 4 == 0) {
    const CompletionRequest request = parse_completion_request(body, context);
    check(request.options);
    require(!request.prompts.empty());
  } else if (endpoint % 4 == 1) {
    const ChatRequest request = parse_chat_request(body, context);
    check(request.options);
    require(nlohmann::json::accept(request.prompt.template_context));
    static_cast<void>(finish_chat_prompt(request.prompt, std::string(body)));
  } else if (endpoint % 4 == 2) {
    parse_tokenize_request(body, context);
  } else {
    for (const int32_t id : parse_detokenize_request(body, context)) {
      require(id >= 0 && id < context.vocab_size);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  ParseContext context;
  context.served_model_names = {"tiny"};
  context.vocab_size = 300;
  context.has_tokenizer = (data[0] & 0x80U) == 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    parse(data[0] & 0x7FU, body, context);
  } catch (const ApiError& error) {
    require(nlohmann::json::accept(error.body()));
  }
  return 0;
}
