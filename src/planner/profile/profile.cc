#include "planner/profile/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/error.h"
#include "planner/yaml_fields.h"

namespace lamina::planner {
namespace {

constexpr size_t kMaxPoints = 10'000;
constexpr int32_t kMaxCount = 1 << 30;
constexpr double kMaxSeconds = 1e4;
constexpr double kMostPace = 100;
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
  point.first_seconds = fields.number("first_seconds", 0, kMaxSeconds);
  point.layer_seconds = fields.number("layer_seconds", 0, kMaxSeconds);
  point.rested_seconds = fields.number("rested_seconds", kMinSeconds, kMaxSeconds);
  point.seconds = seconds_of(fields);
  return point;
}

PaceFactors read_pace(YamlFields& fields, const std::string& how) {
  return {.slices = fields.number("slices_" + how, 1, kMostPace),
          .attention = fields.number("attention_" + how, 1, kMostPace)};
}

PacePoint read_paces(YamlFields& fields) {
  PacePoint point{.rows = fields.integer("rows", 1, kMaxCount)};
  point.in_turns = read_pace(fields, "in_turns");
  point.side_by_side = read_pace(fields, "side_by_side");
  fields.refuse_others();
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

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 != 0) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

// Of times: what disturbs a measurement makes it longer, never shorter.
template <typename Point>
double least_of(const std::vector<Point>& points, double Point::* field) {
  double least = points.front().*field;
  for (const Point& point : points) least = std::min(least, point.*field);
  return least;
}

// Of factors.
double median_of(const std::vector<PaceFactors>& factors, double PaceFactors::* field) {
  std::vector<double> values;
  for (const PaceFactors& each : factors) values.push_back(each.*field);
  return median(std::move(values));
}

template <typename Point>
std::map<int32_t, std::vector<Point>> by_rows(const std::vector<Point>& points) {
  std::map<int32_t, std::vector<Point>> sorted;
  for (const Point& point : points) sorted[point.rows].push_back(point);
  return sorted;
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
  }
  if (root.find("paces")) profile.paces = read_points(root, "paces", read_paces);
  profile.products = read_points(root, "products", read_product);
  profile.attention = read_points(root, "attention", read_attention);
  if (root.find("round_trips")) {
    profile.transports = read_points(root, "round_trips", read_transport);
  }
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
    text += fmt::format("model: {}\nslices:\n", quoted(model));
  }
  for (const SlicePoint& p : slices) {
    text += fmt::format(
        "  - {{rows: {}, seconds: {:.4g}, first_seconds: {:.4g}, layer_seconds: {:.4g}, "
        "rested_seconds: {:.4g}}}\n",
        p.rows,
        p.seconds,
        p.first_seconds,
        p.layer_seconds,
        p.rested_seconds);
  }
  if (!paces.empty()) text += "paces:  # of what either takes by itself\n";
  for (const PacePoint& p : paces) {
    text += fmt::format(
        "  - {{rows: {}, slices_in_turns: {:.4g}, attention_in_turns: {:.4g}, "
        "slices_side_by_side: {:.4g}, attention_side_by_side: {:.4g}}}\n",
        p.rows,
        p.in_turns.slices,
        p.in_turns.attention,
        p.side_by_side.slices,
        p.side_by_side.attention);
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
  if (!transports.empty()) text += "round_trips:\n";
  for (const TransportPoint& p : transports) {
    text += fmt::format("  - {{bytes: {}, seconds: {:.4g}}}\n", p.bytes, p.seconds);
  }
  return text;
}

ProfileFit::ProfileFit(const Profile& profile) : model_(profile.model) {
  add_slices(profile);
  add_paces(profile);
  std::map<int32_t, std::pair<std::vector<std::vector<double>>, std::vector<double>>> products;
  for (const ProductPoint& p : profile.products) {
    auto& [features, seconds] = products[p.rows];
    features.push_back(
        product_features(static_cast<double>(p.outputs), static_cast<double>(p.inputs)));
    seconds.push_back(p.seconds);
  }
  if (products.empty() || profile.attention.empty()) {
    throw Error(StatusCode::kInvalidArgument, "a profile needs products and attention");
  }
  for (const auto& [rows, points] : products) {
    products_[rows] = fit_relative(points.first, points.second);
  }
  add_attention(profile);
  add_transports(profile);
}

void ProfileFit::add_transports(const Profile& profile) {
  if (profile.transports.empty()) return;
  std::vector<std::vector<double>> features;
  std::vector<double> seconds;
  for (const TransportPoint& p : profile.transports) {
    features.push_back({1.0, static_cast<double>(p.bytes)});
    seconds.push_back(p.seconds);
  }
  transport_ = fit_relative(features, seconds);
}

void ProfileFit::add_slices(const Profile& profile) {
  for (const auto& [rows, points] : by_rows(profile.slices)) {
    slices_[rows] = {.rows = rows,
                     .seconds = least_of(points, &SlicePoint::seconds),
                     .first_seconds = least_of(points, &SlicePoint::first_seconds),
                     .layer_seconds = least_of(points, &SlicePoint::layer_seconds),
                     .rested_seconds = least_of(points, &SlicePoint::rested_seconds)};
  }
}

void ProfileFit::add_paces(const Profile& profile) {
  const auto medians = [](const std::vector<PacePoint>& points, PaceFactors PacePoint::* paces) {
    std::vector<PaceFactors> all;
    for (const PacePoint& point : points) all.push_back(point.*paces);
    return PaceFactors{.slices = median_of(all, &PaceFactors::slices),
                       .attention = median_of(all, &PaceFactors::attention)};
  };
  for (const auto& [rows, points] : by_rows(profile.paces)) {
    paces_[rows] = {.rows = rows,
                    .in_turns = medians(points, &PacePoint::in_turns),
                    .side_by_side = medians(points, &PacePoint::side_by_side)};
  }
}

double ProfileFit::product_s(double rows, double outputs, double inputs) const {
  const std::vector<double> features = product_features(outputs, inputs);
  return between(products_, rows, [&](const LinearFit& fit) { return fit.at(features); });
}

double ProfileFit::slices_s(double rows) const {
  return between(slices_, rows, [](const SlicePoint& point) { return point.seconds; });
}

SliceTimes ProfileFit::each_slice_s(double rows, int32_t num_layers) const {
  const auto of = [&](double SlicePoint::* field) {
    return between(slices_, rows, [&](const SlicePoint& point) { return point.*field; });
  };
  SliceTimes times = {.first_s = of(&SlicePoint::first_seconds),
                      .layer_s = of(&SlicePoint::layer_seconds)};
  times.last_s = std::max(0.0, slices_s(rows) - times.first_s - (num_layers - 1) * times.layer_s);
  return times;
}

double ProfileFit::rested_pace(double rows) const {
  const double rested_s =
      between(slices_, rows, [](const SlicePoint& point) { return point.rested_seconds; });
  return std::min(1.0, rested_s / slices_s(rows));
}

// Beyond what was measured as there: a factor does not grow with the rows.
PaceFactors ProfileFit::pace(double rows, PaceFactors PacePoint::* how) const {
  if (paces_.empty()) return {};
  const double within = std::min(rows, static_cast<double>(paces_.rbegin()->first));
  const auto of = [&](double PaceFactors::* field) {
    return between(paces_, within, [&](const PacePoint& point) { return (point.*how).*field; });
  };
  return {.slices = of(&PaceFactors::slices), .attention = of(&PaceFactors::attention)};
}

void ProfileFit::add_attention(const Profile& profile) {
  for (const AttentionPoint& p : profile.attention) {
    head_dim_ = p.head_dim;
    auto& by_context = attention_[p.kv_heads][p.sequences];
    const auto [measured, is_first] = by_context.emplace(p.context, p.seconds);
    if (!is_first) measured->second = std::min(measured->second, p.seconds);
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
  LAMINA_CHECK(has_round_trips());
  return transport_->at({1.0, bytes});
}

bool ProfileFit::covers(double sequences, double context) const {
  const int32_t most_rows = slices_.empty() ? products_.rbegin()->first : slices_.rbegin()->first;
  if (sequences > most_rows) return false;
  const auto& by_sequences = attention_.rbegin()->second;
  const auto above = by_sequences.lower_bound(static_cast<int32_t>(std::ceil(sequences)));
  return above != by_sequences.end() && context <= above->second.rbegin()->first;
}

DeviceSpec ProfileFit::device(const Profile& profile) const {
  constexpr double kSide = 4096;
  const double read_s = product_s(1, kSide, kSide);
  const int32_t most = products_.rbegin()->first;
  const double compute_s = product_s(most, kSide, kSide);
  const double bytes_s = has_round_trips() ? transport_->coefficients[1] : 0;
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
  if (has_round_trips()) sums += summary("round trips", *transport_);
  return text + sums;
}

}  // namespace lamina::planner
