#include "model/weights/loaded_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <new>
#include <set>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "model/weights/decode.h"
#include "model/weights/printable.h"

namespace lamina {
namespace {

constexpr std::string_view kHead = "lm_head.weight";
constexpr std::string_view kEmbedding = "model.embed_tokens.weight";

constexpr std::align_val_t kWeightAlignment{64};  // a cache line, an AVX-512 vector

struct AlignedDelete {
  void operator()(std::byte* memory) const { ::operator delete(memory, kWeightAlignment); }
};
using OwnedBytes = std::unique_ptr<std::byte, AlignedDelete>;

OwnedBytes allocate(size_t size_bytes, const std::string& name) {
  auto* memory =
      static_cast<std::byte*>(::operator new(size_bytes, kWeightAlignment, std::nothrow));
  if (memory == nullptr) {
    throw Error(StatusCode::kResourceExhausted,
                fmt::format("no memory for {} bytes of tensor {}", size_bytes, printable(name)));
  }
  return OwnedBytes(memory);
}

// SplitMix64's finaliser: every bit of the word reaches every bit of the hash.
uint64_t mix(uint64_t hash, uint64_t word) {
  uint64_t z = (hash ^ word) + 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

uint64_t word_at(const std::byte* bytes, size_t size) {
  uint64_t word = 0;
  std::memcpy(&word, bytes, std::min(size, sizeof(word)));
  return word;
}

uint64_t hash_bytes(uint64_t hash, const std::byte* bytes, size_t size) {
  for (size_t i = 0; i < size; i += sizeof(uint64_t))
    hash = mix(hash, word_at(bytes + i, size - i));
  return mix(hash, size);
}

// Sixteen words spread over the tensor, both ends included: a sample that another model of the same
// shape cannot match, at the cost of a few pages.
uint64_t hash_tensor(uint64_t hash, std::string_view name, const TensorView& tensor) {
  constexpr size_t kSamples = 16;
  hash = hash_bytes(hash, reinterpret_cast<const std::byte*>(name.data()), name.size());
  hash = mix(hash, static_cast<uint64_t>(tensor.dtype));
  for (int axis = 0; axis < tensor.shape.rank(); ++axis) {
    hash = mix(hash, static_cast<uint64_t>(tensor.shape[axis]));
  }
  const size_t size = tensor.size_bytes();
  const size_t last = size - std::min(size, sizeof(uint64_t));
  for (size_t i = 0; i < kSamples; ++i) {
    const size_t at = last / (kSamples - 1) * i + last % (kSamples - 1) * i / (kSamples - 1);
    hash = mix(hash, word_at(tensor.data + at, size - at));
  }
  return hash;
}

class LoadedWeights final : public WeightStore {
 public:
  // `file`: keeps a mapping alive that `tensor` points into.
  void add_mapped(const std::string& name,
                  const TensorView& tensor,
                  std::shared_ptr<const MappedFile> file) {
    tensors_.emplace(name, tensor);
    files_.insert(std::move(file));
  }
  void add_owned(const std::string& name, const TensorView& tensor, OwnedBytes memory) {
    tensors_.emplace(name, tensor);
    owned_.push_back(std::move(memory));
  }
  // Once, after the last tensor.
  void seal() {
    for (const auto& [name, tensor] : tensors_) {
      fingerprint_ = hash_tensor(fingerprint_, name, tensor);
      resident_bytes_ += tensor.size_bytes();
    }
  }

  [[nodiscard]] bool has(std::string_view name) const override { return find(name) != nullptr; }
  [[nodiscard]] uint64_t resident_bytes() const override { return resident_bytes_; }
  [[nodiscard]] uint64_t fingerprint() const override { return fingerprint_; }
  [[nodiscard]] TensorView get(std::string_view name) const override {
    const TensorView* tensor = find(name);
    if (tensor == nullptr) {
      throw Error(StatusCode::kNotFound,
                  fmt::format("the model has no tensor {}", printable(name)));
    }
    return *tensor;
  }

 private:
  [[nodiscard]] const TensorView* find(std::string_view name) const {
    auto found = tensors_.find(name);
    if (found == tensors_.end() && name == kHead) found = tensors_.find(kEmbedding);
    if (found == tensors_.end() && name == kEmbedding) found = tensors_.find(kHead);
    return found == tensors_.end() ? nullptr : &found->second;
  }

  std::map<std::string, TensorView, std::less<>> tensors_;
  std::vector<OwnedBytes> owned_;
  std::set<std::shared_ptr<const MappedFile>> files_;
  uint64_t resident_bytes_ = 0;
  uint64_t fingerprint_ = 0;
};

// Reports progress and lets file pages go every few megabytes.
class LoadPace {
 public:
  LoadPace(std::span<const StoredTensor> tensors, const LoadProgress& progress)
      : progress_(progress) {
    for (const StoredTensor& tensor : tensors) total_ += tensor.size_bytes;
  }

  void begin(const StoredTensor& tensor) {
    tensor_ = &tensor;
    tensor_done_ = 0;
    released_ = 0;
  }
  void advance(size_t bytes) {
    constexpr size_t kStride = size_t{4} << 20;
    tensor_done_ += bytes;
    if (tensor_done_ - released_ >= kStride) flush();
  }
  void flush() {
    done_ += tensor_done_ - released_;
    released_ = tensor_done_;
    if (progress_) progress_(done_, total_);
    tensor_->file->release_pages(tensor_->offset, tensor_done_);
  }
  // The tensor is used where it lies: its pages are not ours to let go.
  void skip(const StoredTensor& tensor) {
    done_ += tensor.size_bytes;
    if (progress_) progress_(done_, total_);
  }

 private:
  const LoadProgress& progress_;
  const StoredTensor* tensor_ = nullptr;
  size_t tensor_done_ = 0;  // bytes of the tensor decoded
  size_t released_ = 0;     // bytes of the tensor already reported
  uint64_t done_ = 0;
  uint64_t total_ = 0;
};

// Where row `row_idx` of a head lies in the file, if its rotary halves were interleaved: Hugging
// Face's row i of a half is row 2i (+ 1 for the second half) there.
int64_t interleaved_row(int64_t row_idx, int64_t head_rows) {
  const int64_t head = row_idx / head_rows;
  const int64_t in_head = row_idx % head_rows;
  const int64_t half = in_head / (head_rows / 2);
  return head * head_rows + 2 * (in_head % (head_rows / 2)) + half;
}

// Decodes pieces of one tensor into its final memory.
class TensorDecoder {
 public:
  TensorDecoder(const StoredTensor& tensor, DType dtype, std::byte* out)
      : tensor_(tensor), dtype_(dtype), out_(out), block_(block_layout(tensor.type)) {}

  void decode_in_order(LoadPace& pace) {
    constexpr int64_t kChunk = 64 * 1024;  // elements; a multiple of every block
    const int64_t count = tensor_.shape.num_elements();
    for (int64_t first = 0; first < count; first += kChunk) {
      const int64_t size = std::min(kChunk, count - first);
      pace.advance(decode(first, first, size));
    }
  }

  void decode_interleaved(LoadPace& pace) {
    const int64_t rows = tensor_.shape[0];
    const int64_t row_elements = tensor_.shape.num_elements() / rows;
    const int64_t head_rows = rows / tensor_.interleaved_heads;
    LAMINA_CHECK_EQ(row_elements % block_.elements, 0);
    for (int64_t row_idx = 0; row_idx < rows; ++row_idx) {
      const int64_t stored_idx = interleaved_row(row_idx, head_rows);
      pace.advance(decode(stored_idx * row_elements, row_idx * row_elements, row_elements));
    }
  }

 private:
  // Decodes `count` elements, whole blocks; returns how many bytes of the file they took.
  size_t decode(int64_t from, int64_t to, int64_t count) {
    values_.resize(static_cast<size_t>(count));
    const auto stored_at = [&](int64_t element) {
      return static_cast<size_t>(element / block_.elements * block_.bytes);
    };
    decode_to_f32(tensor_.type, tensor_.data() + stored_at(from), values_);
    encode_from_f32(values_, dtype_, out_ + static_cast<size_t>(to) * dtype_bytes(dtype_));
    return stored_at(count);
  }

  const StoredTensor& tensor_;
  DType dtype_;
  std::byte* out_;
  BlockLayout block_;
  std::vector<float> values_;
};

bool usable_in_place(const StoredTensor& tensor, DType dtype) {
  return tensor.interleaved_heads == 0 && plain_dtype(tensor.type) == dtype &&
         reinterpret_cast<uintptr_t>(tensor.data()) % dtype_bytes(dtype) == 0;
}

void load_one(const StoredTensor& tensor, DType dtype, LoadPace& pace, LoadedWeights& store) {
  if (usable_in_place(tensor, dtype)) {
    // The mapping is read-only; nobody writes to weights.
    auto* data = const_cast<std::byte*>(tensor.data());
    store.add_mapped(tensor.name, TensorView(data, dtype, tensor.shape), tensor.file);
    return pace.skip(tensor);
  }
  const auto count = static_cast<size_t>(tensor.shape.num_elements());
  OwnedBytes memory = allocate(count * dtype_bytes(dtype), tensor.name);
  TensorDecoder decoder(tensor, dtype, memory.get());
  pace.begin(tensor);
  if (tensor.interleaved_heads == 0) {
    decoder.decode_in_order(pace);
  } else {
    decoder.decode_interleaved(pace);
  }
  pace.flush();
  const TensorView view(memory.get(), dtype, tensor.shape);
  store.add_owned(tensor.name, view, std::move(memory));
}

}  // namespace

std::unique_ptr<WeightStore> load_stored_tensors(std::span<const StoredTensor> tensors,
                                                 DType dtype,
                                                 const LoadProgress& progress) {
  if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("weights cannot be loaded as {}", dtype_name(dtype)));
  }
  auto store = std::make_unique<LoadedWeights>();
  LoadPace pace(tensors, progress);
  std::set<std::string_view> names;
  std::set<const MappedFile*> files;
  for (const StoredTensor& tensor : tensors) {
    if (!names.insert(tensor.name).second) {
      throw Error(StatusCode::kInvalidArgument,
                  fmt::format("tensor {} stands twice", printable(tensor.name)));
    }
    load_one(tensor, dtype, pace, *store);
    files.insert(tensor.file.get());
  }
  // Headers and the pages that two tensors share; what is used in place comes back when touched.
  for (const MappedFile* file : files) file->release_pages(0, file->bytes().size());
  store->seal();
  return store;
}

}  // namespace lamina
