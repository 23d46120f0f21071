#include "model/model_config.h"

#include <nlohmann/json.hpp>

namespace lamina {

JsonFields ModelConfig::fields() const {
  static const nlohmann::json kEmpty = nlohmann::json::object();
  return {json != nullptr ? *json : kEmpty, source};
}

}  // namespace lamina
