#include "model/weights/stored_tensor.h"

#include "base/checked_math.h"

namespace lamina {

BlockLayout block_layout(StoredType type) {
  switch (type) {
    case StoredType::kF32:
      return {1, 4};
    case StoredType::kF16:
    case StoredType::kBF16:
      return {1, 2};
    case StoredType::kQ8_0:
      return {32, 34};
    case StoredType::kQ4_0:
      return {32, 18};
    case StoredType::kQ4_1:
      return {32, 20};
    case StoredType::kQ5_0:
      return {32, 22};
    case StoredType::kQ5_1:
      return {32, 24};
    case StoredType::kQ2_K:
      return {256, 84};
    case StoredType::kQ3_K:
      return {256, 110};
    case StoredType::kQ4_K:
      return {256, 144};
    case StoredType::kQ5_K:
      return {256, 176};
    case StoredType::kQ6_K:
      return {256, 210};
    case StoredType::kMxfp4:
      return {32, 16};
    case StoredType::kOpaque:
      break;
  }
  LAMINA_CHECK(false, "not an encoding that we read");
  return {};
}

std::optional<DType> plain_dtype(StoredType type) {
  switch (type) {
    case StoredType::kF32:
      return DType::kF32;
    case StoredType::kF16:
      return DType::kF16;
    case StoredType::kBF16:
      return DType::kBF16;
    case StoredType::kQ8_0:
    case StoredType::kQ4_0:
    case StoredType::kQ4_1:
    case StoredType::kQ5_0:
    case StoredType::kQ5_1:
    case StoredType::kQ2_K:
    case StoredType::kQ3_K:
    case StoredType::kQ4_K:
    case StoredType::kQ5_K:
    case StoredType::kQ6_K:
    case StoredType::kMxfp4:
    case StoredType::kOpaque:
      return std::nullopt;
  }
  return std::nullopt;
}

std::optional<Shape> checked_shape(std::span<const uint64_t> extents) {
  constexpr uint64_t kMaxElements = uint64_t{1} << 48;
  uint64_t num_elements = 1;
  for (const uint64_t extent : extents) {
    const auto product = checked_mul(num_elements, extent);
    if (!product || *product == 0 || *product > kMaxElements) return std::nullopt;
    num_elements = *product;
  }
  const auto at = [&](size_t axis) { return static_cast<int64_t>(extents[axis]); };
  switch (extents.size()) {
    case 1:
      return Shape{at(0)};
    case 2:
      return Shape{at(0), at(1)};
    case 3:
      return Shape{at(0), at(1), at(2)};
    case 4:
      return Shape{at(0), at(1), at(2), at(3)};
    default:
      return std::nullopt;
  }
}

std::optional<uint64_t> stored_bytes(StoredType type, const Shape& shape) {
  const BlockLayout block = block_layout(type);
  if (shape[-1] % block.elements != 0) return std::nullopt;
  return static_cast<uint64_t>(shape.num_elements() / block.elements * block.bytes);
}

}  // namespace lamina
