#include "model/weights/dequantize.h"

#include <array>
#include <bit>
#include <cstring>
#include <limits>

#include "base/check.h"

namespace lamina {
namespace {

using Block = const uint8_t*;

float half_at(Block bytes) {
  Float16 value;
  std::memcpy(&value, bytes, sizeof(value));
  return to_f32(value);
}

uint32_t word_at(Block bytes) {
  uint32_t value = 0;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

// Formats of 32 elements. The first 16 elements lie in the low nibbles, the last 16 in the high.

// d f16, qs i8[32]
void block_q8_0(Block block, float* out) {
  const float d = half_at(block);
  for (int i = 0; i < 32; ++i) {
    out[i] = d * static_cast<float>(static_cast<int8_t>(block[2 + i]));
  }
}

// d f16, nibbles[16]; biased by 8
void block_q4_0(Block block, float* out) {
  const float d = half_at(block);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((block[2 + i] & 0xF) - 8);
    out[i + 16] = d * static_cast<float>((block[2 + i] >> 4) - 8);
  }
}

// d f16, m f16, nibbles[16]
void block_q4_1(Block block, float* out) {
  const float d = half_at(block);
  const float m = half_at(block + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(block[4 + i] & 0xF) + m;
    out[i + 16] = d * static_cast<float>(block[4 + i] >> 4) + m;
  }
}

// The five-bit integer of element i: a nibble and bit i of `high_bits`.
int five_bits(Block nibbles, uint32_t high_bits, int i) {
  const int low = i < 16 ? nibbles[i] & 0xF : nibbles[i - 16] >> 4;
  return low | static_cast<int>((high_bits >> i) & 1U) << 4;
}

// d f16, high bits u32, nibbles[16]; biased by 16
void block_q5_0(Block block, float* out) {
  const float d = half_at(block);
  const uint32_t high_bits = word_at(block + 2);
  for (int i = 0; i < 32; ++i) {
    out[i] = d * static_cast<float>(five_bits(block + 6, high_bits, i) - 16);
  }
}

// d f16, m f16, high bits u32, nibbles[16]
void block_q5_1(Block block, float* out) {
  const float d = half_at(block);
  const float m = half_at(block + 2);
  const uint32_t high_bits = word_at(block + 4);
  for (int i = 0; i < 32; ++i) {
    out[i] = d * static_cast<float>(five_bits(block + 8, high_bits, i)) + m;
  }
}

// Formats of 256 elements. Each half of 128 is laid out in planes: element 32 * plane + l of the
// half takes its bits from byte l, shifted by the plane.

// scales u8[16] (low nibble scale, high nibble minimum, of 16 elements), qs u8[64] (two bits), d
// f16, dmin f16
void block_q2_k(Block block, float* out) {
  const Block qs = block + 16;
  const float d = half_at(block + 80);
  const float dmin = half_at(block + 82);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128;
    const int plane = i % 128 / 32;
    const uint8_t scale = block[i / 16];
    const int q = (qs[32 * half + i % 32] >> (2 * plane)) & 3;
    out[i] = d * static_cast<float>(scale & 0xF) * static_cast<float>(q) -
             dmin * static_cast<float>(scale >> 4);
  }
}

// Sixteen six-bit scales in twelve bytes: low nibbles in the first eight, two high bits in the last
// four.
int q3_scale(Block scales, int idx) {
  const int low = idx < 8 ? scales[idx] & 0xF : scales[idx - 8] >> 4;
  const int high = (scales[8 + idx % 4] >> (2 * (idx / 4))) & 3;
  return (low | high << 4) - 32;
}

// high bits u8[32], qs u8[64] (two low bits), scales[12], d f16
void block_q3_k(Block block, float* out) {
  const Block qs = block + 32;
  const float d = half_at(block + 108);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128;
    const int plane = i % 128 / 32;
    const int low = (qs[32 * half + i % 32] >> (2 * plane)) & 3;
    const int high = (block[i % 32] >> (4 * half + plane)) & 1;
    out[i] = d * static_cast<float>(q3_scale(block + 96, i / 16)) *
             static_cast<float>((low | high << 2) - 4);
  }
}

struct ScaleAndMin {
  float scale;
  float min;
};

// Eight pairs of six-bit scale and minimum in twelve bytes, as Q4_K and Q5_K pack them: the first
// four lie whole in bytes 0-7, the others' low nibbles in bytes 8-11 and their two high bits atop
// bytes 0-7.
ScaleAndMin packed_scale(Block scales, int idx) {
  if (idx < 4) {
    return {static_cast<float>(scales[idx] & 63), static_cast<float>(scales[idx + 4] & 63)};
  }
  return {static_cast<float>((scales[idx + 4] & 0xF) | (scales[idx - 4] >> 6) << 4),
          static_cast<float>((scales[idx + 4] >> 4) | (scales[idx] >> 6) << 4)};
}

// d f16, dmin f16, scales[12], qs u8[128]: each 32 bytes carry 64 elements, low nibbles first
void block_q4_k(Block block, float* out) {
  const float d = half_at(block);
  const float dmin = half_at(block + 2);
  const Block qs = block + 16;
  for (int group = 0; group < 8; ++group) {
    const ScaleAndMin packed = packed_scale(block + 4, group);
    const float scale = d * packed.scale;
    const float min = dmin * packed.min;
    for (int l = 0; l < 32; ++l) {
      const int q = (qs[32 * (group / 2) + l] >> (4 * (group % 2))) & 0xF;
      out[32 * group + l] = scale * static_cast<float>(q) - min;
    }
  }
}

// d f16, dmin f16, scales[12], high bits u8[32], qs u8[128] as in Q4_K
void block_q5_k(Block block, float* out) {
  const float d = half_at(block);
  const float dmin = half_at(block + 2);
  const Block high = block + 16;
  const Block qs = block + 48;
  for (int group = 0; group < 8; ++group) {
    const ScaleAndMin packed = packed_scale(block + 4, group);
    const float scale = d * packed.scale;
    const float min = dmin * packed.min;
    for (int l = 0; l < 32; ++l) {
      const int low = (qs[32 * (group / 2) + l] >> (4 * (group % 2))) & 0xF;
      const int q = low | ((high[l] >> group) & 1) << 4;
      out[32 * group + l] = scale * static_cast<float>(q) - min;
    }
  }
}

// low nibbles u8[128], high bits u8[64] (two each), scales i8[16], d f16; biased by 32
void block_q6_k(Block block, float* out) {
  const float d = half_at(block + 208);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128;
    const int plane = i % 128 / 32;
    const int l = i % 32;
    const int low = (block[64 * half + 32 * (plane % 2) + l] >> (4 * (plane / 2))) & 0xF;
    const int high = (block[128 + 32 * half + l] >> (2 * plane)) & 3;
    const auto scale = static_cast<int8_t>(block[192 + i / 16]);
    out[i] = d * static_cast<float>(scale) * static_cast<float>((low | high << 4) - 32);
  }
}

float e8m0(uint8_t bits) {
  if (bits == 0xFF) return std::numeric_limits<float>::quiet_NaN();
  constexpr uint32_t kTwoToMinus127 = 0x00400000;  // below the normal numbers
  return std::bit_cast<float>(bits == 0 ? kTwoToMinus127 : uint32_t{bits} << 23);
}

using BlockDecoder = void (*)(Block, float*);

BlockDecoder decoder_of(StoredType type) {
  switch (type) {
    case StoredType::kQ8_0:
      return block_q8_0;
    case StoredType::kQ4_0:
      return block_q4_0;
    case StoredType::kQ4_1:
      return block_q4_1;
    case StoredType::kQ5_0:
      return block_q5_0;
    case StoredType::kQ5_1:
      return block_q5_1;
    case StoredType::kQ2_K:
      return block_q2_k;
    case StoredType::kQ3_K:
      return block_q3_k;
    case StoredType::kQ4_K:
      return block_q4_k;
    case StoredType::kQ5_K:
      return block_q5_k;
    case StoredType::kQ6_K:
      return block_q6_k;
    case StoredType::kF32:
    case StoredType::kF16:
    case StoredType::kBF16:
    case StoredType::kMxfp4:
    case StoredType::kOpaque:
      break;
  }
  LAMINA_CHECK(false, "not a quantised type of GGUF");
  return nullptr;
}

}  // namespace

void dequantize(StoredType type, const std::byte* blocks, std::span<float> out) {
  const BlockDecoder decode = decoder_of(type);
  const BlockLayout layout = block_layout(type);
  const auto* block = reinterpret_cast<const uint8_t*>(blocks);
  float* const end = out.data() + out.size();
  for (float* target = out.data(); target < end; target += layout.elements) {
    decode(block, target);
    block += layout.bytes;
  }
}

void dequantize_mxfp4(const std::byte* blocks, const std::byte* scales, std::span<float> out) {
  constexpr float kE2m1[16] = {
      0, 0.5F, 1, 1.5F, 2, 3, 4, 6, -0.0F, -0.5F, -1, -1.5F, -2, -3, -4, -6};
  for (size_t i = 0; i < out.size(); i += 2) {
    const float scale = e8m0(std::to_integer<uint8_t>(scales[i / 32]));
    const auto pair = std::to_integer<unsigned>(blocks[i / 2]);
    out[i] = scale * kE2m1[pair & 0xF];
    out[i + 1] = scale * kE2m1[pair >> 4];
  }
}

}  // namespace lamina
