#include "convert/report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "base/xml.h"
#include "convert/node_sets.h"
#include "convert/report/slice_classes.h"

namespace lamina {
namespace {

// Pixels.
constexpr int kBoxWidth = 216;
constexpr int kBoxHeight = 40;
constexpr int kBoxGap = 16;
constexpr int kLayerHeight = 72;
constexpr int kMargin = 24;
constexpr int kHeader = 64;
constexpr int kGutter = 380;  // between columns: labels, attention, labels
constexpr int kOvalWidth = 120;
constexpr int kOvalHeight = 64;
constexpr size_t kMaxText = 28;  // letters in a box

struct Point {
  int x = 0;
  int y = 0;
};

// Operator and the last part of its name: "linear q_proj+k_proj".
std::string title_of(const Node& node) {
  const std::string name = node.name.substr(node.name.rfind('.') + 1);
  std::string title = fmt::format("{} {}", op_kind_name(node.kind), name);
  if (title.size() > kMaxText) title = title.substr(0, kMaxText - 3) + "...";
  return title;
}

std::string_view colour_of(OpKind kind) {
  switch (kind) {
    case OpKind::kLinear:
    case OpKind::kHeadLinear:
    case OpKind::kExperts:
      return "#cfe2f9";
    case OpKind::kEmbedding:
      return "#d5efd5";
    case OpKind::kAllReduce:
    case OpKind::kAllGather:
      return "#f6d5e5";
    default:
      return "#f1f1ee";
  }
}

// One drawn slice: where its operators stand.
class Column {
 public:
  Column(const SlicedModel& model, const Slice& slice) : model_(model), slice_(slice) {
    std::map<NodeId, int> depths;
    for (const Instruction& instruction : slice.program) {
      if (instruction.kind != InstructionKind::kCompute) continue;
      const Node& node = model.graph.node(instruction.node);
      made_.insert(node.id);
      if (is_view(node)) continue;
      int depth = 0;
      for (const ValueId input : node.inputs) {
        const auto above = depths.find(source(input));
        if (above != depths.end()) depth = std::max(depth, above->second + 1);
      }
      depths[node.id] = depth;
      if (layers_.size() <= static_cast<size_t>(depth))
        layers_.resize(static_cast<size_t>(depth) + 1);
      layers_[static_cast<size_t>(depth)].push_back(node.id);
    }
  }

  [[nodiscard]] const Slice& slice() const { return slice_; }
  [[nodiscard]] int width() const {
    size_t most = 1;
    for (const auto& layer : layers_) most = std::max(most, layer.size());
    return static_cast<int>(most) * (kBoxWidth + kBoxGap) - kBoxGap + 2 * kMargin;
  }
  [[nodiscard]] int height() const {
    return kHeader + static_cast<int>(layers_.size()) * kLayerHeight + kMargin;
  }

  // Settles the boxes, each layer in the middle of the column that begins at `left`.
  void place(int left) {
    left_ = left;
    for (size_t depth = 0; depth < layers_.size(); ++depth) {
      const auto count = static_cast<int>(layers_[depth].size());
      const int used = count * (kBoxWidth + kBoxGap) - kBoxGap;
      int x = left + (width() - used) / 2;
      for (const NodeId node : layers_[depth]) {
        boxes_[node] = {x, kMargin + kHeader + static_cast<int>(depth) * kLayerHeight};
        x += kBoxWidth + kBoxGap;
      }
    }
  }

  [[nodiscard]] int left() const { return left_; }
  [[nodiscard]] int right() const { return left_ + width(); }
  // Upper left corners by operator.
  [[nodiscard]] const std::map<NodeId, Point>& boxes() const { return boxes_; }
  // What `value` is a view of, as far as the view was taken in this slice.
  [[nodiscard]] ValueId source(ValueId value) const {
    while (made_.contains(value) && is_view(model_.graph.node(value))) {
      value = model_.graph.node(value).inputs[0];
    }
    return value;
  }
  // The attention that the slice sends to, or null.
  [[nodiscard]] const AttentionOp* sends_to() const {
    const auto k = static_cast<size_t>(slice_.idx);
    return k < model_.attentions.size() ? &model_.attentions[k] : nullptr;
  }

 private:
  const SlicedModel& model_;
  const Slice& slice_;
  std::set<NodeId> made_;
  std::vector<std::vector<NodeId>> layers_;
  std::map<NodeId, Point> boxes_;
  int left_ = 0;
};

class Drawing {
 public:
  explicit Drawing(const SlicedModel& model)
      : model_(model), graph_(model.graph), classes_(slice_classes(model)) {
    for (const SliceRun& run : slice_runs(classes_)) {
      for (int32_t idx = run.begin; idx < run.begin + run.num_slices; ++idx) {
        columns_.emplace_back(model, model.slices[static_cast<size_t>(idx)]);
      }
      repeats_.resize(columns_.size(), run.repeats);
    }
    int left = kMargin;
    for (Column& column : columns_) {
      column.place(left);
      left = column.right() + kGutter;
      height_ = std::max(height_, column.height());
    }
    width_ = left - kGutter + (columns_.back().sends_to() == nullptr ? kMargin : kGutter);
  }

  std::string draw() {
    for (size_t i = 0; i < columns_.size(); ++i) draw_column(i);
    for (size_t i = 0; i + 1 < columns_.size(); ++i) draw_gutter(i);
    const int total_height = height_ + 2 * kMargin;
    return fmt::format(
               "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" "
               "viewBox=\"0 0 {0} {1}\" font-family=\"sans-serif\" font-size=\"12\">\n"
               "<rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>\n",
               width_,
               total_height) +
           frames_ + edges_ + boxes_ + labels_ + "</svg>\n";
  }

 private:
  void draw_column(size_t i) {
    const Column& column = columns_[i];
    frames_ += fmt::format(
        "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"#fbfbf9\" "
        "stroke=\"#b8b8b0\"/>\n<text x=\"{}\" y=\"{}\" font-size=\"15\" "
        "font-weight=\"bold\">{}</text>\n",
        column.left(),
        kMargin,
        column.width(),
        column.height(),
        column.left() + kMargin,
        kMargin + 26,
        header(i));
    for (const auto& [id, corner] : column.boxes()) {
      draw_box(graph_.node(id), corner);
      std::set<ValueId> drawn;
      for (const ValueId input : graph_.node(id).inputs) {
        const ValueId source = column.source(input);
        const auto above = column.boxes().find(source);
        if (above == column.boxes().end() || !drawn.insert(source).second) continue;
        draw_edge_down(above->second, corner);
      }
    }
  }

  [[nodiscard]] std::string header(size_t i) const {
    const int32_t idx = columns_[i].slice().idx;
    if (repeats_[i] == 1) return fmt::format("slice {}", idx);
    return fmt::format("slice {}, and {} like it", idx, repeats_[i] - 1);
  }

  void draw_box(const Node& node, Point corner) {
    boxes_ += fmt::format(
        "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"4\" fill=\"{}\" "
        "stroke=\"#55554f\"/>\n",
        corner.x,
        corner.y,
        kBoxWidth,
        kBoxHeight,
        colour_of(node.kind));
    const int middle = corner.x + kBoxWidth / 2;
    boxes_ += centred({middle, corner.y + 16}, title_of(node), "font-weight=\"bold\"");
    boxes_ += centred({middle, corner.y + 32}, to_string(node.type), "fill=\"#55554f\"");
  }

  static std::string centred(Point at, std::string_view text, std::string_view style) {
    return fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" {}>{}</text>\n",
                       at.x,
                       at.y,
                       style,
                       xml_escaped(text));
  }

  void draw_edge_down(Point from, Point to) {
    const int x1 = from.x + kBoxWidth / 2;
    const int y1 = from.y + kBoxHeight;
    const int x2 = to.x + kBoxWidth / 2;
    edges_ +=
        fmt::format("<path d=\"M{} {} C{} {} {} {} {} {}\" fill=\"none\" stroke=\"#a8a8a0\"/>\n",
                    x1,
                    y1,
                    x1,
                    y1 + 24,
                    x2,
                    to.y - 24,
                    x2,
                    to.y);
  }

  // From left to right, across a gutter.
  void draw_edge_across(Point from, Point to, std::string_view style) {
    edges_ += fmt::format("<path d=\"M{} {} C{} {} {} {} {} {}\" fill=\"none\" {}/>\n",
                          from.x,
                          from.y,
                          from.x + 70,
                          from.y,
                          to.x - 70,
                          to.y,
                          to.x,
                          to.y,
                          style);
  }

  // Text on a white ground, so that lines below do not cross it.
  void draw_label(Point at, std::string_view text, std::string_view colour) {
    const int width = static_cast<int>(text.size()) * 7 + 8;
    labels_ += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"18\" fill=\"white\"/>\n",
                           at.x - width / 2,
                           at.y - 13,
                           width);
    labels_ += centred(at, text, fmt::format("fill=\"{}\"", colour));
  }

  // What goes from column i to the next: through attention, and kept.
  void draw_gutter(size_t i) {
    const Column& from = columns_[i];
    const Column& to = columns_[i + 1];
    const Point oval{from.right() + kGutter / 2, lowest_sender(from)};
    draw_sends(from, oval);
    draw_oval(oval, from.slice().idx);
    draw_received(to, oval);
    // The slice right before `to` is drawn as `from`, instruction by instruction.
    const Slice& before = model_.slices[static_cast<size_t>(to.slice().idx) - 1];
    std::map<NodeId, NodeId> drawn_as;
    for (size_t step = 0; step < before.program.size(); ++step) {
      drawn_as[before.program[step].node] = from.slice().program[step].node;
    }
    for (const ValueId value : to.slice().carried_in) {
      const auto drawn = drawn_as.find(value);
      draw_carried(from, to, value, drawn == drawn_as.end() ? value : drawn->second);
    }
  }

  [[nodiscard]] int lowest_sender(const Column& column) const {
    int y = kMargin + kHeader + kBoxHeight;
    const AttentionOp& op = *column.sends_to();
    for (const ValueId value : {op.q, op.k, op.v}) {
      const auto box = column.boxes().find(column.source(value));
      if (box != column.boxes().end()) y = std::max(y, box->second.y + kBoxHeight / 2);
    }
    return y;
  }

  void draw_sends(const Column& column, Point oval) {
    const AttentionOp& op = *column.sends_to();
    std::vector<std::pair<std::string, ValueId>> sends = {{"q", op.q}, {"k", op.k}};
    if (!op.attrs.latent) sends.emplace_back("v", op.v);
    int offset = -22;
    for (const auto& [role, value] : sends) {
      const Point end{oval.x - kOvalWidth / 2, oval.y + offset / 2};
      const auto box = column.boxes().find(column.source(value));
      const Point start = box == column.boxes().end()
                              ? Point{column.right(), oval.y + offset}
                              : Point{box->second.x + kBoxWidth, box->second.y + kBoxHeight / 2};
      draw_edge_across(start, end, "stroke=\"#c06014\" stroke-width=\"2\"");
      draw_label({column.right() + 54, oval.y + offset + 4},
                 fmt::format("{} {} B", role, graph_.type(value).row_bytes()),
                 "#8c430a");
      offset += 22;
    }
  }

  void draw_oval(Point centre, int32_t idx) {
    boxes_ += fmt::format(
        "<ellipse cx=\"{}\" cy=\"{}\" rx=\"{}\" ry=\"{}\" fill=\"#fbdcbc\" stroke=\"#c06014\"/>\n",
        centre.x,
        centre.y,
        kOvalWidth / 2,
        kOvalHeight / 2);
    boxes_ +=
        centred({centre.x, centre.y + 4}, fmt::format("attention {}", idx), "font-weight=\"bold\"");
  }

  void draw_received(const Column& column, Point oval) {
    const AttentionOp& op = model_.attentions[static_cast<size_t>(column.slice().idx) - 1];
    for (const Point corner : users_of(column, op.out)) {
      draw_edge_across({oval.x + kOvalWidth / 2, oval.y},
                       {corner.x, corner.y + kBoxHeight / 2},
                       "stroke=\"#c06014\" stroke-width=\"2\"");
    }
    draw_label({oval.x + kOvalWidth / 2 + 50, oval.y + 4},
               fmt::format("{} B", graph_.type(op.out).row_bytes()),
               "#8c430a");
  }

  void draw_carried(const Column& from, const Column& to, ValueId value, ValueId drawn) {
    const auto box = from.boxes().find(from.source(drawn));
    // What was made in an earlier slice comes in at the column's edge.
    const Point start = box == from.boxes().end()
                            ? Point{from.right(), kMargin + kHeader}
                            : Point{box->second.x + kBoxWidth, box->second.y + kBoxHeight / 2};
    bool labelled = false;
    for (const Point corner : users_of(to, value)) {
      const Point end{corner.x, corner.y + kBoxHeight / 2};
      draw_edge_across(
          start, end, "stroke=\"#3465a4\" stroke-width=\"2\" stroke-dasharray=\"6 4\"");
      if (labelled) continue;
      labelled = true;
      draw_label({(from.right() + to.left()) / 2, (start.y + end.y) / 2 - 6},
                 fmt::format("carried {} B", graph_.type(value).row_bytes()),
                 "#204a87");
    }
  }

  // Boxes of a column that use a value which comes in from outside.
  [[nodiscard]] std::vector<Point> users_of(const Column& column, ValueId value) const {
    std::vector<Point> corners;
    for (const auto& [id, corner] : column.boxes()) {
      const bool uses = std::ranges::any_of(
          graph_.node(id).inputs, [&](ValueId input) { return column.source(input) == value; });
      if (uses) corners.push_back(corner);
    }
    return corners;
  }

  const SlicedModel& model_;
  const Graph& graph_;
  std::vector<int32_t> classes_;
  std::vector<Column> columns_;
  std::vector<int32_t> repeats_;  // by column
  int width_ = 0;
  int height_ = 0;
  std::string frames_;
  std::string edges_;
  std::string boxes_;
  std::string labels_;
};

}  // namespace

std::string svg(const SlicedModel& model) {
  return Drawing(model).draw();
}

}  // namespace lamina
