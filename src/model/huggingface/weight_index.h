// model.safetensors.index.json: which file of a sharded model holds which tensor. Internal to
// huggingface/.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace lamina {

inline constexpr size_t kMaxIndexBytes = size_t{32} << 20;

// Tensor name to shard, a plain file name: nothing outside the model's folder can be named. Throws
// Error kInvalidArgument naming `source` and the entry.
std::map<std::string, std::string> parse_weight_index(std::string_view text,
                                                      const std::string& source);

}  // namespace lamina
