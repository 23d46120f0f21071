#include "model/huggingface/mxfp4_pairs.h"

#include <map>
#include <string_view>

namespace lamina {
namespace {

constexpr std::string_view kBlocks = "_blocks";

bool is_bytes(const StoredTensor& tensor) {
  return tensor.type == StoredType::kOpaque && tensor.encoding == "U8";
}

bool fits(const StoredTensor& blocks, const StoredTensor& scales) {
  const BlockLayout block = block_layout(StoredType::kMxfp4);
  const Shape& shape = blocks.shape;
  return is_bytes(scales) && shape.rank() == 4 && shape[3] == block.bytes &&
         scales.shape == Shape{shape[0], shape[1], shape[2]};
}

}  // namespace

void join_mxfp4_pairs(std::vector<StoredTensor>& tensors) {
  std::map<std::string, const StoredTensor*> by_name;
  for (const StoredTensor& tensor : tensors) by_name.emplace(tensor.name, &tensor);
  for (StoredTensor& tensor : tensors) {
    if (!is_bytes(tensor) || !tensor.name.ends_with(kBlocks)) continue;
    const std::string stem = tensor.name.substr(0, tensor.name.size() - kBlocks.size());
    const auto scales = by_name.find(stem + "_scales");
    if (scales == by_name.end() || !fits(tensor, *scales->second)) continue;
    tensor.type = StoredType::kMxfp4;
    tensor.encoding.clear();
    const Shape shape = tensor.shape;
    tensor.shape = {shape[0], shape[1], shape[2] * block_layout(StoredType::kMxfp4).elements};
    tensor.scales = {scales->second->file, scales->second->offset};
  }
}

}  // namespace lamina
