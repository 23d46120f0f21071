#include "tensor/dtype.h"

#include <fmt/format.h>

namespace lamina {

std::string_view dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "float32";
    case DType::kF16:
      return "float16";
    case DType::kBF16:
      return "bfloat16";
    case DType::kI32:
      return "int32";
    case DType::kU8:
      return "uint8";
    case DType::kI8:
      return "int8";
    case DType::kF8E4M3:
      return "float8_e4m3fn";
  }
  return "unknown";
}

Result<DType> parse_dtype(std::string_view name) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kI32, DType::kU8}) {
    if (name == dtype_name(dtype)) return dtype;
  }
  return invalid_argument(fmt::format("dtype '{}' is not one of float32, float16, bfloat16", name));
}

}  // namespace lamina
