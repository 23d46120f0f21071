// Profile: what a machine was measured to take for products, attention and round trips; one YAML
// file, written by `lamina profile`, read by `lamina plan`. Plain values; and the fits that turn
// the points into times of other shapes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "plan/device_spec.h"
#include "plan/step_costs.h"
#include "planner/profile/fit.h"

namespace lamina::planner {

struct ProductPoint {  // x [rows, inputs] bf16 by a weight [outputs, inputs]
  int32_t rows = 0;
  int64_t outputs = 0;
  int64_t inputs = 0;
  double seconds = 0;
};

struct SlicePoint {  // all slices of the profile's model and sampling: a decoding step's
  int32_t rows = 0;
  double seconds = 0;
  double first_seconds = 0;  // of them, the slice before the first attention
  double layer_seconds = 0;  // and each that lies between two layers' attention
  // All of them where the device rests as long between two steps: a GPU that computes without rest
  // comes to the limit of its power, and its clocks go down.
  double rested_seconds = 0;
};

// Slices of so many sequences and the attention of as many, each on its own pool of one machine:
// what they take while they take turns, layer by layer, and while both go on, of what either takes
// by itself over and over.
struct PacePoint {
  int32_t rows = 0;
  PaceFactors in_turns;
  PaceFactors side_by_side;
};

struct AttentionPoint {  // append and attention of one layer of a decoding step, bf16
  int32_t sequences = 0;
  int32_t context = 0;  // cached tokens of each
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t num_layers = 1;  // that took turns, so that caches do not hold one
  double seconds = 0;

  // Of keys and values.
  [[nodiscard]] double layer_bytes() const {
    constexpr double kPairBytes = 4;
    return kPairBytes * sequences * context * kv_heads * head_dim;
  }
};

// There and back, as many bytes each way; whoever waits sleeps meanwhile, as between layers.
struct TransportPoint {
  int64_t bytes = 0;
  double seconds = 0;
};

struct Profile {
  std::string machine;    // for people
  std::string device;     // name of the device in plans: "cpu"
  std::string transport;  // whose round trips they are
  int32_t threads = 1;
  double memory_bytes = 0;
  std::string model;               // whose slices were measured, or empty
  std::vector<SlicePoint> slices;  // by rows; none without a model
  std::vector<PacePoint> paces;    // none where one pool, or a device each, has both
  std::vector<ProductPoint> products;
  std::vector<AttentionPoint> attention;
  std::vector<TransportPoint> transports;  // none of one GPU

  // Throws Error kInvalidArgument naming file and key, kNotFound, kResourceExhausted.
  static Profile read(const std::filesystem::path& path);
  static Profile parse(const std::string& yaml, const std::string& source);
  [[nodiscard]] std::string to_yaml() const;
};

// Times of any shape. Of a point that was measured more than once the least counts. Immutable.
class ProfileFit {
 public:
  // Throws Error kInvalidArgument unless there are products and attention.
  explicit ProfileFit(const Profile& profile);

  // Between numbers of rows that were measured times are interpolated, beyond them continued.
  [[nodiscard]] double product_s(double rows, double outputs, double inputs) const;
  // Of all slices of the model that was measured whole: between numbers of rows as product_s().
  [[nodiscard]] double slices_s(double rows) const;
  // One by one, of a model with so many layers.
  [[nodiscard]] SliceTimes each_slice_s(double rows, int32_t num_layers) const;
  // What slices take after a rest, of what they take without: 1 at most.
  [[nodiscard]] double rested_pace(double rows) const;
  // 1 where nothing was measured.
  [[nodiscard]] PaceFactors in_turns(double rows) const { return pace(rows, &PacePoint::in_turns); }
  [[nodiscard]] PaceFactors side_by_side(double rows) const {
    return pace(rows, &PacePoint::side_by_side);
  }
  [[nodiscard]] bool has_slices_of(const std::string& model) const {
    return !slices_.empty() && model == model_;
  }
  // Of heads grouped as those that were measured; interpolated in all three numbers.
  [[nodiscard]] double attention_s(double sequences,
                                   double positions,  // of all of them
                                   double kv_heads,
                                   double head_dim) const;
  // There and back. CHECKs that there are any.
  [[nodiscard]] double round_trip_s(double bytes) const;
  [[nodiscard]] bool has_round_trips() const { return transport_.has_value(); }
  // Whether a step of so many sequences lies within what was measured: beyond it times are
  // continued in proportion.
  [[nodiscard]] bool covers(double sequences, double context) const;

  // What the fits say of the machine, in the catalogue's terms; without a price.
  [[nodiscard]] DeviceSpec device(const Profile& profile) const;
  // Points beside their fit: a table with residuals, and a summary of each kind.
  [[nodiscard]] std::string residuals(const Profile& profile) const;

 private:
  [[nodiscard]] PaceFactors pace(double rows, PaceFactors PacePoint::* how) const;
  void add_slices(const Profile& profile);
  void add_paces(const Profile& profile);
  void add_attention(const Profile& profile);
  void add_transports(const Profile& profile);

  std::string model_;
  std::map<int32_t, SlicePoint> slices_;  // by rows
  std::map<int32_t, PacePoint> paces_;
  std::map<int32_t, LinearFit> products_;  // by rows
  // By KV heads, sequences and context. No sum of a few features describes it: what caches hold is
  // read at another pace, and a fit through all points is 15 % off where it matters.
  std::map<int32_t, std::map<int32_t, std::map<int32_t, double>>> attention_;
  int32_t head_dim_ = 1;
  std::optional<LinearFit> transport_;
};

}  // namespace lamina::planner
