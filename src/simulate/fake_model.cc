#include "simulate/fake_model.h"

#include <algorithm>

#include "base/check.h"

namespace lamina::simulate {
namespace {

uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t z = a * 0x9E3779B97F4A7C15ULL + b + 0xD1B54A32D192ED03ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

uint64_t pair(int32_t a, int32_t b) {
  return uint64_t{static_cast<uint32_t>(a)} << 32 | static_cast<uint32_t>(b);
}

// The states and values that one sequence left behind, layer by layer.
class PlainSequence {
 public:
  explicit PlainSequence(const FakeModel& model)
      : model_(model), states_(static_cast<size_t>(model.config().num_layers)) {}

  FakeModel::State append(int32_t token, int32_t position) {
    FakeModel::State state = FakeModel::embed(token, position);
    for (int32_t layer = 0; layer < model_.config().num_layers; ++layer) {
      std::vector<FakeModel::State>& of_layer = states_[static_cast<size_t>(layer)];
      of_layer.push_back(state);
      state = FakeModel::absorb(state, layer, attend(layer, of_layer));
    }
    return state;
  }

 private:
  // As the last token of the layer sees the tokens.
  [[nodiscard]] std::vector<int64_t> attend(int32_t layer,
                                            const std::vector<FakeModel::State>& states) const {
    const FakeModelConfig& config = model_.config();
    const auto position = static_cast<int32_t>(states.size()) - 1;
    const std::optional<int32_t> window = config.windows[static_cast<size_t>(layer)];
    const int32_t first = window ? std::max(0, position - *window + 1) : 0;
    std::vector<int64_t> sums;
    for (int32_t head = 0; head < config.num_heads; ++head) {
      const int32_t cls = FakeModel::query_class(states.back(), layer, head);
      bool is_matched = false;
      for (int32_t p = first; p <= position; ++p) {
        is_matched |= FakeModel::key_class(layer, p) == cls;
      }
      const int32_t kv_head = head / (config.num_heads / config.num_kv_heads);
      for (int32_t dim = 0; dim < config.value_dim; ++dim) {
        int64_t sum = 0;
        for (int32_t p = first; p <= position; ++p) {
          if (is_matched && FakeModel::key_class(layer, p) != cls) continue;
          sum += FakeModel::value_of(states[static_cast<size_t>(p)], layer, kv_head, dim);
        }
        sums.push_back(sum);
      }
    }
    return sums;
  }

  const FakeModel& model_;
  std::vector<std::vector<FakeModel::State>> states_;  // [layer][position], before the layer
};

}  // namespace

FakeModel::FakeModel(FakeModelConfig config) : config_(std::move(config)) {
  LAMINA_CHECK_EQ(config_.windows.size(), static_cast<size_t>(config_.num_layers));
  LAMINA_CHECK_EQ(config_.num_heads % config_.num_kv_heads, 0);
  LAMINA_CHECK_GE(config_.head_dim, 2);
  for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
    std::vector<int32_t>& ones = class_ones_.emplace_back(1, 0);
    for (int32_t p = 0; p < config_.max_positions; ++p) {
      ones.push_back(ones.back() + key_class(layer, p));
    }
  }
}

FakeModel::State FakeModel::embed(int32_t token, int32_t position) {
  return mix(1, pair(token, position));
}

int32_t FakeModel::query_class(State state, int32_t layer, int32_t head) {
  return static_cast<int32_t>(mix(state, pair(layer, head)) >> 63);
}

int32_t FakeModel::key_class(int32_t layer, int32_t position) {
  return static_cast<int32_t>(mix(2, pair(layer, position)) >> 63);
}

int32_t FakeModel::value_of(State state, int32_t layer, int32_t kv_head, int32_t dim) {
  return static_cast<int32_t>(mix(mix(state, pair(layer, kv_head)), pair(3, dim)) % kMaxValue);
}

int32_t FakeModel::first_seen(int32_t layer, int32_t position) const {
  const std::optional<int32_t> window = config_.windows[static_cast<size_t>(layer)];
  return window ? std::max(0, position - *window + 1) : 0;
}

int32_t FakeModel::num_of_class(int32_t layer, int32_t begin, int32_t end, int32_t cls) const {
  const std::vector<int32_t>& ones = class_ones_[static_cast<size_t>(layer)];
  const int32_t num_ones = ones[static_cast<size_t>(end)] - ones[static_cast<size_t>(begin)];
  return cls == 1 ? num_ones : end - begin - num_ones;
}

int32_t FakeModel::num_seen(int32_t layer, int32_t position, int32_t query_class) const {
  const int32_t first = first_seen(layer, position);
  const int32_t matching = num_of_class(layer, first, position + 1, query_class);
  return matching > 0 ? matching : position + 1 - first;
}

FakeModel::State FakeModel::absorb(State state, int32_t layer, std::span<const int64_t> sums) {
  State next = mix(state, pair(4, layer));
  for (const int64_t sum : sums) next = mix(next, static_cast<uint64_t>(sum));
  return next;
}

int32_t FakeModel::next_token(State state) const {
  return static_cast<int32_t>(state % static_cast<uint64_t>(config_.vocab_size));
}

std::vector<int32_t> FakeModel::continuation(std::vector<int32_t> tokens, int32_t count) const {
  PlainSequence sequence(*this);
  std::vector<int32_t> generated;
  State last = 0;
  for (size_t p = 0; p < tokens.size(); ++p) {
    last = sequence.append(tokens[p], static_cast<int32_t>(p));
  }
  while (static_cast<int32_t>(generated.size()) < count) {
    generated.push_back(next_token(last));
    last = sequence.append(generated.back(),
                           static_cast<int32_t>(tokens.size() + generated.size()) - 1);
  }
  return generated;
}

}  // namespace lamina::simulate
