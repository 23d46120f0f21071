// Which instructions the CPU kernels use beyond what Highway's dispatch chooses.
#pragma once

#include <cstdint>

namespace lamina::kernels::cpu {

// Whether bf16 products are multiplied in pairs by the processor's own bf16 instruction
// (AVX512_BF16), with f32 sums. Where it is: twice the rate of f32 multiply-adds on AMD from Zen 4
// on, a quarter of it on Intel's cores, which are better off widening (docs/adr/0019).
[[nodiscard]] bool uses_bf16_dot();

// Whether int8 is multiplied in groups of four with int32 sums (AVX512_VNNI, and AVX512_BF16 for
// what stands around it): Intel from Cooper Lake on but for Ice Lake, AMD from Zen 4 on.
[[nodiscard]] bool uses_int8_dot();

// Whether bf16 is multiplied by tiles of 16 x 32 (AMX): Intel from Sapphire Rapids on, where the
// system grants a process its registers, which the first call asks for. Comes before
// uses_bf16_dot() where both are true (docs/adr/0022).
[[nodiscard]] bool uses_amx();

// For tests, before any kernel runs: whether AMX is used where it is supported.
void set_amx_use(bool where_supported);

// For tests, before any kernel runs: kWhereSupported also where it is slow.
enum class Bf16DotUse : uint8_t { kWhereFast, kWhereSupported, kNever };
void set_bf16_dot_use(Bf16DotUse use);

}  // namespace lamina::kernels::cpu
