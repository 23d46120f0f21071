// AMX for the kernels that use it (uses_amx()): eight tile registers of 16 rows of 64 bytes.
// Everything between LAMINA_BEGIN_AMX and LAMINA_END_AMX is compiled for it. Registers are named by
// number, as the instructions want: 0 to 3 hold f32 sums, 4 and 5 the left factor, 6 and 7 the
// right one, which lies in pairs: [16 pairs][16 columns][2].
#pragma once

#include <hwy/base.h>
#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/avx512-inl.h"

#define LAMINA_BEGIN_AMX                                                                     \
  HWY_PUSH_ATTRIBUTES(                                                                       \
      "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni,avx2,fma,f16c,amx-tile,amx-" \
      "bf16")
#define LAMINA_END_AMX HWY_POP_ATTRIBUTES

LAMINA_BEGIN_AMX
namespace lamina::kernels::cpu::amx {

inline constexpr int64_t kTileHeight = 16;
inline constexpr int64_t kTileDepth = 32;  // bf16 of a row of the left factor

// The tile registers of the calling thread, for as long as this lives. The left factor and the sums
// have `height` rows. A processor saves power, and a system work, while none are configured.
class TileScope {
 public:
  explicit TileScope(int64_t height) { configure(height); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
  ~TileScope() { _tile_release(); }

  // What the registers held is lost.
  static void configure(int64_t height) {
    struct alignas(64) {
      uint8_t palette = 1;
      uint8_t start_row = 0;
      uint8_t reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (int i = 0; i < 8; ++i) {
      config.row_bytes[i] = 64;
      config.rows[i] = static_cast<uint8_t>(i < 6 ? height : kTileHeight);
    }
    asm volatile("" ::: "memory");
    _tile_loadconfig(&config);
  }
};

// Before tiles are loaded from what this function wrote: the compiler does not know that they read.
HWY_INLINE void publish_to_tiles() {
  asm volatile("" ::: "memory");
}

}  // namespace lamina::kernels::cpu::amx
LAMINA_END_AMX
