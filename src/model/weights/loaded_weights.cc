#include "model/weights/loaded_weights.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <new>
#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "base/checked_math.h"
#include "base/error.h"
#include "model/weights/fingerprint.h"
#include "model/weights/packed_reader.h"
#include "model/weights/part_reader.h"
#include "model/weights/printable.h"

namespace lamina {
namespace {

constexpr std::string_view kHead = "lm_head.weight";
constexpr std::string_view kEmbedding = "model.embed_tokens.weight";

[[noreturn]] void refuse(const std::string& message) {
  throw Error(StatusCode::kInvalidArgument, message);
}

// A weight of the graph and the tensors it is made of, one for each part of its source.
struct ResolvedWeight {
  const Node* node = nullptr;
  std::vector<const StoredTensor*> tensors;
  std::optional<PackedFormat> format = {};  // it is packed, in that format

  [[nodiscard]] const WeightSource& source() const {
    return std::get<WeightAttrs>(node->attrs).source;
  }
  [[nodiscard]] DType dtype() const { return node->type.dtype; }
  // Without memory. Packed weights alone.
  [[nodiscard]] PackedMatrix matrix() const {
    const Shape& shape = node->type.row_shape;
    return {.format = *format,
            .rows = shape[-2],
            .columns = shape[-1],
            .num_matrices = shape.rank() == 3 ? shape[0] : 0};
  }
  [[nodiscard]] size_t size_bytes() const {
    return format ? matrix().size_bytes() : static_cast<size_t>(node->type.row_bytes());
  }
};

// Finds what a graph names among the tensors of a model's files.
class Resolver {
 public:
  Resolver(const Graph& graph, std::span<const StoredTensor> tensors) : graph_(graph) {
    for (const StoredTensor& tensor : tensors) {
      if (!tensors_.emplace(tensor.name, &tensor).second) {
        refuse(fmt::format("tensor {} stands twice", printable(tensor.name)));
      }
    }
    for (const Node& node : graph.nodes()) {
      if (node.kind != OpKind::kWeight) continue;
      for (const WeightPart& part : std::get<WeightAttrs>(node.attrs).source) {
        named_.insert(part.tensor);
      }
    }
  }

  [[nodiscard]] std::vector<ResolvedWeight> resolve() const {
    std::vector<ResolvedWeight> weights;
    for (const Node& node : graph_.nodes()) {
      if (node.kind != OpKind::kWeight) continue;
      ResolvedWeight weight{&node, {}};
      for (const WeightPart& part : weight.source()) weight.tensors.push_back(&tensor_of(part));
      weights.push_back(std::move(weight));
    }
    return weights;
  }

 private:
  [[nodiscard]] const StoredTensor& tensor_of(const WeightPart& part) const {
    const StoredTensor* tensor = find(part.tensor);
    if (tensor == nullptr) {
      refuse(fmt::format(
          "the model's files lack tensor {} {}", printable(part.tensor), part.stored.to_string()));
    }
    if (tensor->type == StoredType::kOpaque) {
      refuse(fmt::format("tensor {} has dtype {}, which is not supported",
                         printable(tensor->name),
                         tensor->encoding));
    }
    if (tensor->shape != part.stored) {
      refuse(fmt::format("tensor {} has shape {}, the configuration implies {}",
                         printable(tensor->name),
                         tensor->shape.to_string(),
                         part.stored.to_string()));
    }
    return *tensor;
  }
  [[nodiscard]] const StoredTensor* find(std::string_view name) const {
    const auto found = tensors_.find(name);
    if (found != tensors_.end()) return found->second;
    if (name == kHead) return find_twin(kEmbedding);
    if (name == kEmbedding) return find_twin(kHead);
    // Some published checkpoints (GPT-2's, BLOOM's) hold the model without its head, whose names
    // lack the outermost module.
    for (const std::string_view prefix : {"transformer.", "model."}) {
      if (!name.starts_with(prefix)) continue;
      const auto bare = tensors_.find(name.substr(prefix.size()));
      if (bare != tensors_.end()) return bare->second;
    }
    return nullptr;
  }
  // A graph that names both means two tensors: its configuration does not tie them.
  [[nodiscard]] const StoredTensor* find_twin(std::string_view name) const {
    const auto found = tensors_.find(name);
    return found == tensors_.end() || named_.contains(name) ? nullptr : found->second;
  }

  const Graph& graph_;
  std::map<std::string_view, const StoredTensor*> tensors_;
  std::set<std::string_view> named_;
};

// How the operators of a graph use a weight.
struct WeightUse {
  bool in_products = false;
  bool as_table = false;   // of a whole embedding
  bool otherwise = false;  // by what takes no packed weight
};

// By value id.
std::map<ValueId, WeightUse> weight_uses(const Graph& graph) {
  std::map<ValueId, WeightUse> uses;
  for (const Node& node : graph.nodes()) {
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      WeightUse& use = uses[node.inputs[i]];
      const bool is_product =
          ((node.kind == OpKind::kLinear || node.kind == OpKind::kHeadLinear) && i == 1) ||
          (node.kind == OpKind::kExperts && (i == 2 || i == 3));
      const bool is_table = node.kind == OpKind::kEmbedding && i == 0 &&
                            std::get_if<EmbeddingAttrs>(&node.attrs) == nullptr;
      (is_product ? use.in_products : is_table ? use.as_table : use.otherwise) = true;
    }
  }
  return uses;
}

bool can_be_pairs(const ResolvedWeight& weight) {
  return weight.dtype() == DType::kBF16 && weight.node->type.row_shape[-1] % kBlockColumns == 0;
}

void choose_packed(const Graph& graph,
                   const LoadOptions& options,
                   std::span<ResolvedWeight> weights) {
  std::map<ValueId, WeightUse> uses = weight_uses(graph);
  for (ResolvedWeight& weight : weights) {
    const WeightUse& use = uses[weight.node->id];
    if (use.otherwise || weight.node->type.row_shape.rank() < 2) continue;
    if (options.keeps_quantized) weight.format = quantized_format(weight.source(), weight.tensors);
    if (!weight.format && options.packs_pairs && use.in_products && can_be_pairs(weight)) {
      weight.format = PackedFormat::kPairs;
    }
  }
}

constexpr std::align_val_t kWeightAlignment{64};  // a cache line, an AVX-512 vector

struct AlignedDelete {
  void operator()(std::byte* memory) const { ::operator delete(memory, kWeightAlignment); }
};
using OwnedBytes = std::unique_ptr<std::byte, AlignedDelete>;

// Loading spends most of its time on first touches of pages otherwise. A wish: without huge pages
// everything works as well.
void prefer_huge_pages(std::byte* memory, size_t size_bytes) {
  constexpr uintptr_t kHugePage = uintptr_t{2} << 20;
  const auto address = reinterpret_cast<uintptr_t>(memory);
  const auto begin = round_up(address, kHugePage);
  const auto end = (address + size_bytes) / kHugePage * kHugePage;
  if (begin < end) ::madvise(memory + (begin - address), end - begin, MADV_HUGEPAGE);
}

OwnedBytes allocate(const ResolvedWeight& weight) {
  const size_t size_bytes = weight.size_bytes();
  auto* memory =
      static_cast<std::byte*>(::operator new(size_bytes, kWeightAlignment, std::nothrow));
  if (memory == nullptr) {
    throw Error(StatusCode::kResourceExhausted,
                fmt::format("no memory for {} bytes of '{}'", size_bytes, weight.node->name));
  }
  prefer_huge_pages(memory, size_bytes);
  return OwnedBytes(memory);
}

class LoadedWeights final : public WeightStore {
 public:
  // `file`: keeps a mapping alive that `data` points into.
  void add_mapped(const Node& node, const std::byte* data, std::shared_ptr<const MappedFile> file) {
    // The mapping is read-only; nobody writes to weights.
    add(node, const_cast<std::byte*>(data));
    files_.insert(std::move(file));
  }
  void add_owned(const Node& node, OwnedBytes memory) {
    add(node, memory.get());
    owned_.push_back(std::move(memory));
  }
  void add_packed(const Node& node, PackedMatrix matrix, OwnedBytes memory) {
    matrix.data = memory.get();
    packed_.emplace(node.name, matrix);
    owned_.push_back(std::move(memory));
  }
  // Once, after the last weight.
  void seal() {
    for (const auto& [name, matrix] : packed_) {
      const auto size_bytes = static_cast<int64_t>(matrix.size_bytes());
      fingerprint_ =
          hash_tensor(fingerprint_, name, TensorView(matrix.data, DType::kU8, {size_bytes}));
      resident_bytes_ += matrix.size_bytes();
    }
    for (const auto& [name, tensor] : weights_) {
      fingerprint_ = hash_tensor(fingerprint_, name, tensor);
      resident_bytes_ += tensor.size_bytes();
    }
  }

  [[nodiscard]] uint64_t resident_bytes() const override { return resident_bytes_; }
  [[nodiscard]] uint64_t fingerprint() const override { return fingerprint_; }
  [[nodiscard]] TensorView get(std::string_view name) const override {
    const auto found = weights_.find(name);
    if (found == weights_.end()) {
      throw Error(StatusCode::kNotFound, fmt::format("the model has no weight '{}'", name));
    }
    return found->second;
  }
  [[nodiscard]] std::optional<PackedMatrix> find_packed(std::string_view name) const override {
    const auto found = packed_.find(name);
    return found == packed_.end() ? std::nullopt : std::optional(found->second);
  }

 private:
  void add(const Node& node, std::byte* data) {
    weights_.emplace(node.name, TensorView(data, node.type.dtype, node.type.row_shape));
  }

  std::map<std::string, TensorView, std::less<>> weights_;
  std::map<std::string, PackedMatrix, std::less<>> packed_;
  std::vector<OwnedBytes> owned_;
  std::set<std::shared_ptr<const MappedFile>> files_;
  uint64_t resident_bytes_ = 0;
  uint64_t fingerprint_ = 0;
};

// Consecutive rows of one tensor that has the right bytes, aligned for its dtype: where they lie in
// the file. Otherwise null.
const std::byte* bytes_in_place(const ResolvedWeight& weight) {
  if (weight.tensors.size() != 1) return nullptr;
  const StoredTensor& tensor = *weight.tensors.front();
  const WeightPart& part = weight.source().front();
  const int64_t width = tensor.shape.rank() < 2 ? 1 : tensor.shape[-1];
  if (part.transposed || part.rows.repeats != 1 || part.num_columns != width ||
      tensor.interleaved_heads != 0 || plain_dtype(tensor.type) != weight.dtype()) {
    return nullptr;
  }
  const size_t element_bytes = dtype_bytes(weight.dtype());
  const std::byte* data =
      tensor.data() +
      static_cast<size_t>((part.matrix_begin + part.rows.begin) * width) * element_bytes;
  return reinterpret_cast<uintptr_t>(data) % element_bytes == 0 ? data : nullptr;
}

// Counts bytes of weights that are ready.
class Tally {
 public:
  Tally(std::span<const ResolvedWeight> weights, const LoadProgress& progress)
      : progress_(progress) {
    for (const ResolvedWeight& weight : weights) total_ += weight.size_bytes();
  }
  void add(size_t bytes) {
    done_ += bytes;
    if (progress_) progress_(done_, total_);
  }

 private:
  const LoadProgress& progress_;
  uint64_t done_ = 0;
  uint64_t total_ = 0;
};

OwnedBytes put_together(const ResolvedWeight& weight, Tally& tally) {
  OwnedBytes memory = allocate(weight);
  std::byte* out = memory.get();
  for (size_t i = 0; i < weight.tensors.size(); ++i) {
    const WeightPart& part = weight.source()[i];
    read_part(
        *weight.tensors[i], part, weight.dtype(), out, [&](size_t bytes) { tally.add(bytes); });
    out +=
        static_cast<size_t>(part.rows.num_rows() * part.num_columns) * dtype_bytes(weight.dtype());
  }
  return memory;
}

OwnedBytes pack(const ResolvedWeight& weight, Tally& tally) {
  OwnedBytes memory = allocate(weight);
  PackedMatrix matrix = weight.matrix();
  matrix.data = memory.get();
  matrix.clear_padding();
  const auto read = is_quantized(matrix.format) ? read_quantized : read_pairs;
  int64_t row = 0;
  for (size_t i = 0; i < weight.tensors.size(); ++i) {
    const WeightPart& part = weight.source()[i];
    read(*weight.tensors[i], part, matrix, row, [&](size_t bytes) { tally.add(bytes); });
    row += part.rows.num_rows();
  }
  return memory;
}

}  // namespace

std::unique_ptr<WeightStore> load_graph_weights(const Graph& graph,
                                                std::span<const StoredTensor> tensors,
                                                const LoadOptions& options) {
  std::vector<ResolvedWeight> weights = Resolver(graph, tensors).resolve();
  choose_packed(graph, options, weights);
  auto store = std::make_unique<LoadedWeights>();
  Tally tally(weights, options.progress);
  for (const ResolvedWeight& weight : weights) {
    if (weight.format) {
      store->add_packed(*weight.node, weight.matrix(), pack(weight, tally));
    } else if (const std::byte* data = bytes_in_place(weight)) {
      store->add_mapped(*weight.node, data, weight.tensors.front()->file);
      tally.add(weight.size_bytes());
    } else {
      store->add_owned(*weight.node, put_together(weight, tally));
    }
  }
  // Headers, scales and the pages that two tensors share; what is used in place comes back when
  // touched.
  std::set<const MappedFile*> files;
  for (const StoredTensor& tensor : tensors) files.insert(tensor.file.get());
  for (const MappedFile* file : files) file->release_pages(0, file->bytes().size());
  store->seal();
  return store;
}

}  // namespace lamina
