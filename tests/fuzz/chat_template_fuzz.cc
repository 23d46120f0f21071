// Template and context, both hostile: the input up to the first zero byte is the template, the rest
// the context (a stock one if it is empty). Limits are small, so that slow inputs show.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/error.h"
#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string kContext =
      R"({"messages": [{"role": "user", "content": "hé"}, {"role": "assistant", "content": null,
      "tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, 2.5, true]}}}]}],
      "tools": [], "n": 3, "add_generation_prompt": true})";
  const std::string input(reinterpret_cast<const char*>(data), size);
  const size_t split = input.find('\0');
  const std::string source = input.substr(0, split);
  const std::string context = split == std::string::npos ? kContext : input.substr(split + 1);
  const lamina::TemplateLimits limits = {
      .max_steps = 20'000, .max_depth = 32, .max_output_bytes = 64 * 1024};
  try {
    const lamina::ChatTemplate parsed(source, limits);
    (void)parsed.render(context);
  } catch (const lamina::Error&) {
  }
  return 0;
}
