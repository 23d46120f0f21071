#include "model/huggingface/weight_index.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "model/json_fields.h"
#include "model/weights/printable.h"

namespace lamina {
namespace {

bool is_plain_shard_name(std::string_view name) {
  return name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos &&
         name.ends_with(".safetensors");
}

}  // namespace

std::map<std::string, std::string> parse_weight_index(std::string_view text,
                                                      const std::string& source) {
  const nlohmann::json json = parse_json_object(text, source);
  const JsonFields fields(json, source);
  const nlohmann::json* weight_map = fields.find("weight_map");
  if (weight_map == nullptr || !weight_map->is_object() || weight_map->empty()) {
    fields.refuse("'weight_map' is missing");
  }
  std::map<std::string, std::string> shards;
  for (const auto& [name, shard] : weight_map->items()) {
    if (!shard.is_string() || !is_plain_shard_name(shard.get_ref<const std::string&>())) {
      fields.refuse(
          fmt::format("tensor {} is said to lie in {}, expected a .safetensors file of this folder",
                      printable(name),
                      shard.is_string() ? printable(shard.get_ref<const std::string&>())
                                        : "something that is no file name"));
    }
    shards.emplace(name, shard.get<std::string>());
  }
  return shards;
}

}  // namespace lamina
