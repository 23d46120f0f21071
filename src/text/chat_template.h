// ChatTemplate: a model's chat template, a bounded subset of Jinja, rendered with the caller's
// messages. Templates come from model files and are hostile: steps, depth and output are limited.
// Immutable after construction, thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"

namespace lamina {

struct TemplateLimits {
  int64_t max_steps = 1'000'000;                // nodes evaluated
  int32_t max_depth = 64;                       // nesting of expressions, blocks and macro calls
  int64_t max_output_bytes = int64_t{8} << 20;  // also of any intermediate string
};

class ChatTemplate {
 public:
  // Throws Error kInvalidArgument with line and column for a template that does not parse or uses
  // what the subset lacks.
  explicit ChatTemplate(const std::string& source, const TemplateLimits& limits = {});
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // `context_json`: a JSON object whose members are the template's variables: messages,
  // add_generation_prompt, bos_token, eos_token, tools and others. kInvalidArgument with the
  // message of raise_exception() or what went wrong; kResourceExhausted past a limit.
  [[nodiscard]] Result<std::string> render(const std::string& context_json) const;

 private:
  struct Program;
  std::unique_ptr<const Program> program_;
  TemplateLimits limits_;
};

}  // namespace lamina
