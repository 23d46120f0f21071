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

struct AttentionPoint {  // one layer of a decoding step, bf16
  int32_t sequences = 0;
  int32_t context = 0;  // cached tokens of each
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  double seconds = 0;
};

struct TransportPoint {  // there and back, as many bytes each way
  int64_t bytes = 0;
  double seconds = 0;
};

struct Profile {
  std::string machine;    // for people
  std::string device;     // name of the device in plans: "cpu"
  std::string transport;  // whose round trips they are
  int32_t threads = 1;
  double memory_bytes = 0;
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
  [[nodiscard]] double attention_s(double sequences,
                                   double positions,  // of all of them
                                   double heads,
                                   double kv_heads,
                                   double head_dim) const;
  // There and back.
  [[nodiscard]] double round_trip_s(double bytes) const;

  // What the fits say of the machine, in the catalogue's terms; without a price.
  [[nodiscard]] DeviceSpec device(const Profile& profile) const;
  // Points beside their fit: a table with residuals, and a summary of each kind.
  [[nodiscard]] std::string residuals(const Profile& profile) const;

 private:
  std::map<int32_t, LinearFit> products_;  // by rows
  LinearFit attention_;
  LinearFit transport_;
};

}  // namespace lamina::planner
