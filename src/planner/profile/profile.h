// Profile: what a machine was measured to take for products, attention and round trips; one YAML
// file, written by `lamina profile`, read by `lamina plan`. Plain values; and the fits that turn
// the points into times of other shapes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "plan/device_spec.h"
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
};

struct AttentionPoint {  // append and attention of one layer of a decoding step, bf16
  int32_t sequences = 0;
  int32_t context = 0;  // cached tokens of each
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t num_layers = 1;  // that took turns, so that caches do not hold one
  double seconds = 0;
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
  // What slices and attention take side by side, of what they take alone: they share caches and
  // memory where one machine has both.
  double slices_beside = 1;
  double attention_beside = 1;
  std::vector<ProductPoint> products;
  std::vector<AttentionPoint> attention;
  std::vector<TransportPoint> transports;

  // Throws Error kInvalidArgument naming file and key, kNotFound, kResourceExhausted.
  static Profile read(const std::filesystem::path& path);
  static Profile parse(const std::string& yaml, const std::string& source);
  [[nodiscard]] std::string to_yaml() const;
};

// Times of any shape. Immutable.
class ProfileFit {
 public:
  // Throws Error kInvalidArgument unless there are points of each kind.
  explicit ProfileFit(const Profile& profile);

  // Between numbers of rows that were measured times are interpolated, beyond them continued.
  [[nodiscard]] double product_s(double rows, double outputs, double inputs) const;
  // Of all slices of the model that was measured whole: between numbers of rows as product_s().
  [[nodiscard]] double slices_s(double rows) const;
  [[nodiscard]] bool has_slices_of(const std::string& model) const {
    return !slices_.empty() && model == model_;
  }
  // Of heads grouped as those that were measured; interpolated in all three numbers.
  [[nodiscard]] double attention_s(double sequences,
                                   double positions,  // of all of them
                                   double kv_heads,
                                   double head_dim) const;
  // There and back.
  [[nodiscard]] double round_trip_s(double bytes) const;

  // What the fits say of the machine, in the catalogue's terms; without a price.
  [[nodiscard]] DeviceSpec device(const Profile& profile) const;
  // Points beside their fit: a table with residuals, and a summary of each kind.
  [[nodiscard]] std::string residuals(const Profile& profile) const;

 private:
  void add_attention(const Profile& profile);

  std::string model_;
  std::map<int32_t, double> slices_;       // by rows
  std::map<int32_t, LinearFit> products_;  // by rows
  // By KV heads, sequences and context. No sum of a few features describes it: what caches hold is
  // read at another pace, and a fit through all points is 15 % off where it matters.
  std::map<int32_t, std::map<int32_t, std::map<int32_t, double>>> attention_;
  int32_t head_dim_ = 1;
  LinearFit transport_;
};

}  // namespace lamina::planner
