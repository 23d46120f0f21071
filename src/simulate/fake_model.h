// FakeModel: a model small enough to be understood, in which every mistake with a token, a carried
// value or a row of the KV cache shows as a wrong token. It is a chain of hashes: a token's state
// starts from its id and position, each layer mixes into it the sums of the values that attention
// sees, exact integers, and the last state gives the next token. The real attention kernels compute
// the sums: a query matches half of the positions, whose values are small integers. Immutable.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace lamina::simulate {

struct FakeModelConfig {
  int32_t num_layers = 1;
  int32_t num_heads = 1;
  int32_t num_kv_heads = 1;
  int32_t head_dim = 2;  // of q and k, at least 2
  int32_t value_dim = 2;
  int32_t vocab_size = 61;
  int32_t max_positions = 64;
  std::vector<std::optional<int32_t>> windows;  // of each layer
};

class FakeModel {
 public:
  // What a token carries from one slice to the next.
  using State = uint64_t;

  // The score of a query and a key that match; 0 if not, of which e^-32 is left.
  static constexpr float kMatchScore = 32.0F;
  // Sums of a layer stay exact in f32: values are below, contexts below max_positions.
  static constexpr int32_t kMaxValue = 128;

  explicit FakeModel(FakeModelConfig config);

  [[nodiscard]] const FakeModelConfig& config() const { return config_; }

  [[nodiscard]] static State embed(int32_t token, int32_t position);
  // A query sees the keys of its own class; where there is none, all of them.
  [[nodiscard]] static int32_t query_class(State state, int32_t layer, int32_t head);
  [[nodiscard]] static int32_t key_class(int32_t layer, int32_t position);
  [[nodiscard]] static int32_t value_of(State state, int32_t layer, int32_t kv_head, int32_t dim);
  // Keys that count for a query at `position`.
  [[nodiscard]] int32_t num_seen(int32_t layer, int32_t position, int32_t query_class) const;
  // sums: [heads, value_dim] of what the layer's attention saw.
  [[nodiscard]] static State absorb(State state, int32_t layer, std::span<const int64_t> sums);
  [[nodiscard]] int32_t next_token(State state) const;

  // The `count` tokens that follow a prompt: plain code that knows no slice, block or batch.
  [[nodiscard]] std::vector<int32_t> continuation(std::vector<int32_t> tokens, int32_t count) const;

 private:
  // Positions that the query's layer lets it see: [first, position].
  [[nodiscard]] int32_t first_seen(int32_t layer, int32_t position) const;
  [[nodiscard]] int32_t num_of_class(int32_t layer, int32_t begin, int32_t end, int32_t cls) const;

  FakeModelConfig config_;
  std::vector<std::vector<int32_t>> class_ones_;  // [layer][p]: keys of class 1 before position p
};

}  // namespace lamina::simulate
