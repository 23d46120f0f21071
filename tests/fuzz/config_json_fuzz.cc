// JSON of model folders: whatever the text is, it is read or refused with an Error, and a
// configuration that is read is consistent.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "model/huggingface/config_json.h"
#include "model/huggingface/generation_json.h"
#include "model/huggingface/weight_index.h"

namespace {

template <typename Action>
void attempt(const Action& action) {
  try {
    action();
  } catch (const lamina::Error&) {  // refused: fine
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  attempt([&] {
    const lamina::ModelConfig config = lamina::parse_config_json(text, "fuzz");
    LAMINA_CHECK_EQ(config.num_heads % config.num_kv_heads, 0);
    LAMINA_CHECK_EQ(config.windows.size(), static_cast<size_t>(config.num_layers));
  });
  attempt([&] { (void)lamina::parse_generation_json(text, "fuzz", 512); });
  attempt([&] { (void)lamina::parse_weight_index(text, "fuzz"); });
  return 0;
}
