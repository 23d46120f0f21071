#include "planner/profile/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "base/error.h"
#include "planner/yaml_fields.h"

namespace lamina::planner {
namespace {

constexpr size_t kMaxPoints = 10'000;
constexpr int32_t kMaxCount = 1 << 30;
constexpr double kMaxSeconds = 1e4;
constexpr double kMostBeside = 100;
constexpr double kMinSeconds = 1e-9;

double seconds_of(YamlFields& fields) {
  const double seconds = fields.number("seconds", kMinSeconds, kMaxSeconds);
  fields.refuse_others();
  return seconds;
}

ProductPoint read_product(YamlFields& fields) {
  ProductPoint point{.rows = fields.integer("rows", 1, kMaxCount),
                     .outputs = fields.integer("outputs", 1, kMaxCount),
                     .inputs = fields.integer("inputs", 1, kMaxCount)};
  point.seconds = seconds_of(fields);
  return point;
}

AttentionPoint read_attention(YamlFields& fields) {
  AttentionPoint point{.sequences = fields.integer("sequences", 1, kMaxCount),
                       .context = fields.integer("context", 1, kMaxCount),
                       .heads = fields.integer("heads", 1, kMaxCount),
                       .kv_heads = fields.integer("kv_heads", 1, kMaxCount),
                       .head_dim = fields.integer("head_dim", 1, kMaxCount),
                       .num_layers = fields.integer("layers", 1, kMaxCount)};
  point.seconds = seconds_of(fields);
  return point;
}

SlicePoint read_slice(YamlFields& fields) {
  SlicePoint point{.rows = fields.integer("rows", 1, kMaxCount)};
  point.seconds = seconds_of(fields);
  return point;
}

TransportPoint read_transport(YamlFields& fields) {
  TransportPoint point{.bytes = fields.integer("bytes", 1, kMaxCount)};
  point.seconds = seconds_of(fields);
  return point;
}

template <typename Point>
std::vector<Point> read_points(YamlFields& root,
                               const std::string& key,
                               Point (*read)(YamlFields& fields)) {
  const auto list = root.find(key);
  if (!list || !list->IsSequence() || list->size() == 0 || list->size() > kMaxPoints) {
    root.refuse(fmt::format("'{}' must be a list of 1 to {} points", key, kMaxPoints));
  }
  std::vector<Point> points;
  for (size_t i = 0; i < list->size(); ++i) {
    YamlFields fields((*list)[i], fmt::format("{}: {}[{}]", root.where(), key, i));
    points.push_back(read(fields));
  }
  return points;
}

// Quotes, so that any text comes back as it was.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out + "\"";
}

std::vector<double> product_features(double outputs, double inputs) {
  return {1.0, outputs * inputs, outputs + inputs};
}

// Of what was measured at some numbers of rows, or of others: seconds at those between.
template <typename Measured, typename Seconds>
double between(const std::map<int32_t, Measured>& by_rows, double rows, const Seconds& seconds) {
  const auto above = by_rows.lower_bound(static_cast<int32_t>(std::ceil(rows)));
  if (above == by_rows.end()) {  // computing bounds it: as long for each row
    const auto& [most, measured] = *by_rows.rbegin();
    return seconds(measured) * rows / most;
  }
  const double above_s = seconds(above->second);
  if (above == by_rows.begin()) return above_s;
  const auto below = std::prev(above);
  const double share = (rows - below->first) / (above->first - below->first);
  const double below_s = seconds(below->second);
  return below_s + share * (above_s - below_s);
}

std::string residual_line(const std::string& what, double measured_s, double fitted_s) {
  return fmt::format("{:<52} {:>12.1f} {:>12.1f} {:>+8.1f} %\n",
                     what,
                     1e6 * measured_s,
                     1e6 * fitted_s,
                     100 * (fitted_s / measured_s - 1));
}

}  // namespace

Profile Profile::parse(const std::string& yaml, const std::string& source) {
  YamlFields root(parse_yaml(yaml, source), source);
  Profile profile;
  profile.machine = root.text("machine");
  profile.device = root.text("device");
  profile.transport = root.text("transport");
  profile.threads = root.integer("threads", 1, 1 << 20);
  profile.memory_bytes = root.number("memory_bytes", 1, 1e18);
  if (root.find("model")) {
    profile.model = root.text("model");
    profile.slices = read_points(root, "slices", read_slice);
    profile.slices_beside = root.number("slices_beside", 1, kMostBeside);
    profile.attention_beside = root.number("attention_beside", 1, kMostBeside);
  }
  profile.products = read_points(root, "products", read_product);
  profile.attention = read_points(root, "attention", read_attention);
  profile.transports = read_points(root, "round_trips", read_transport);
  root.refuse_others();
  return profile;
}

Profile Profile::read(const std::filesystem::path& path) {
  const YAML::Node root = read_yaml(path);
  return parse(YAML::Dump(root), path.string());
}

std::string Profile::to_yaml() const {
  std::string text = fmt::format(
      "# Written by `lamina profile`. Seconds are medians.\n"
      "machine: {}\ndevice: {}\ntransport: {}\nthreads: {}\nmemory_bytes: {:.0f}\n",
      quoted(machine),
      quoted(device),
      quoted(transport),
      threads,
      memory_bytes);
  if (!slices.empty()) {
    text += fmt::format(
        "model: {}\n# times of what is alone, where one machine has both at once\n"
        "slices_beside: {:.4g}\nattention_beside: {:.4g}\nslices:\n",
        quoted(model),
        slices_beside,
        attention_beside);
  }
  for (const SlicePoint& p : slices) {
    text += fmt::format("  - {{rows: {}, seconds: {:.4g}}}\n", p.rows, p.seconds);
  }
  text += "products:\n";
  for (const ProductPoint& p : products) {
    text += fmt::format("  - {{rows: {}, outputs: {}, inputs: {}, seconds: {:.4g}}}\n",
                        p.rows,
                        p.outputs,
                        p.inputs,
                        p.seconds);
  }
  text += "attention:\n";
  for (const AttentionPoint& p : attention) {
    text += fmt::format(
        "  - {{sequences: {}, context: {}, heads: {}, kv_heads: {}, head_dim: {}, layers: {}, "
        "seconds: {:.4g}}}\n",
        p.sequences,
        p.context,
        p.heads,
        p.kv_heads,
        p.head_dim,
        p.num_layers,
        p.seconds);
  }
  text += "round_trips:\n";
  for (const TransportPoint& p : transports) {
    text += fmt::format("  - {{bytes: {}, seconds: {:.4g}}}\n", p.bytes, p.seconds);
  }
  return text;
}

ProfileFit::ProfileFit(const Profile& profile) : model_(profile.model) {
  std::map<int32_t, std::vector<double>> slices;
  for (const SlicePoint& p : profile.slices) slices[p.rows].push_back(p.seconds);
  for (const auto& [rows, seconds] : slices) {
    slices_[rows] =
        std::accumulate(seconds.begin(), seconds.end(), 0.0) / static_cast<double>(seconds.size());
  }
  std::map<int32_t, std::pair<std::vector<std::vector<double>>, std::vector<double>>> by_rows;
  for (const ProductPoint& p : profile.products) {
    auto& [features, seconds] = by_rows[p.rows];
    features.push_back(
        product_features(static_cast<double>(p.outputs), static_cast<double>(p.inputs)));
    seconds.push_back(p.seconds);
  }
  if (by_rows.empty() || profile.attention.empty() || profile.transports.empty()) {
    throw Error(StatusCode::kInvalidArgument, "a profile needs points of every kind");
  }
  for (const auto& [rows, points] : by_rows) {
    products_[rows] = fit_relative(points.first, points.second);
  }
  add_attention(profile);
  std::vector<std::vector<double>> features;
  std::vector<double> seconds;
  for (const TransportPoint& p : profile.transports) {
    features.push_back({1.0, static_cast<double>(p.bytes)});
    seconds.push_back(p.seconds);
  }
  transport_ = fit_relative(features, seconds);
}

double ProfileFit::product_s(double rows, double outputs, double inputs) const {
  const std::vector<double> features = product_features(outputs, inputs);
  return between(products_, rows, [&](const LinearFit& fit) { return fit.at(features); });
}

double ProfileFit::slices_s(double rows) const {
  return between(slices_, rows, [](double seconds) { return seconds; });
}

// The mean of what was measured more than once.
void ProfileFit::add_attention(const Profile& profile) {
  std::map<std::tuple<int32_t, int32_t, int32_t>, int32_t> counts;
  for (const AttentionPoint& p : profile.attention) {
    head_dim_ = p.head_dim;
    const int32_t count = ++counts[{p.kv_heads, p.sequences, p.context}];
    double& mean = attention_[p.kv_heads][p.sequences][p.context];
    mean += (p.seconds - mean) / count;
  }
}

double ProfileFit::attention_s(double sequences,
                               double positions,
                               double kv_heads,
                               double head_dim) const {
  const double context = positions / sequences;
  const double seconds = between(attention_, kv_heads, [&](const auto& by_sequences) {
    return between(by_sequences, sequences, [&](const auto& by_context) {
      return between(by_context, context, [](double measured_s) { return measured_s; });
    });
  });
  return seconds * head_dim / head_dim_;
}

double ProfileFit::round_trip_s(double bytes) const {
  return transport_.at({1.0, bytes});
}

DeviceSpec ProfileFit::device(const Profile& profile) const {
  constexpr double kSide = 4096;
  const double read_s = product_s(1, kSide, kSide);
  const int32_t most = products_.rbegin()->first;
  const double compute_s = product_s(most, kSide, kSide);
  const double bytes_s = transport_.coefficients[1];
  constexpr double kNoLimit = 1e15;
  const double network = bytes_s > 0 ? 2.0 / bytes_s : kNoLimit;
  return {.name = profile.device,
          .flop_per_s = 2.0 * most * kSide * kSide / compute_s,
          .memory_bytes = profile.memory_bytes,
          .memory_bytes_per_s = 2.0 * kSide * kSide / read_s,
          .link_bytes_per_s = network,
          .network_bytes_per_s = network};
}

std::string ProfileFit::residuals(const Profile& profile) const {
  std::string text =
      fmt::format("{:<52} {:>12} {:>12} {:>10}\n", "", "measured us", "fitted us", "residual");
  const auto summary = [](const char* name, const LinearFit& fit) {
    return fmt::format("{}: residuals {:.1f} % in the mean, {:.1f} % at worst\n",
                       name,
                       100 * fit.mean_error,
                       100 * fit.worst_error);
  };
  std::string sums;
  for (const ProductPoint& p : profile.products) {
    text += residual_line(
        fmt::format("product [{}, {}] by [{}, {}]", p.rows, p.inputs, p.outputs, p.inputs),
        p.seconds,
        product_s(p.rows, static_cast<double>(p.outputs), static_cast<double>(p.inputs)));
  }
  for (const auto& [rows, fit] : products_) {
    sums += summary(fmt::format("products of {} rows", rows).c_str(), fit);
  }
  for (const AttentionPoint& p : profile.attention) {
    text += residual_line(
        fmt::format("attention, {} sequences of {}, {} heads over {} of {}",
                    p.sequences,
                    p.context,
                    p.heads,
                    p.kv_heads,
                    p.head_dim),
        p.seconds,
        attention_s(p.sequences, double{1} * p.sequences * p.context, p.kv_heads, p.head_dim));
  }
  sums += fmt::format("attention: interpolated between {} points\n", profile.attention.size());
  for (const TransportPoint& p : profile.transports) {
    text += residual_line(fmt::format("round trip of {} bytes", p.bytes),
                          p.seconds,
                          round_trip_s(static_cast<double>(p.bytes)));
  }
  return text + sums + summary("round trips", transport_);
}

}  // namespace lamina::planner
