#include "kernels/cpu/instruction_set.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace lamina::kernels::cpu {
namespace {

bool supports_bf16_dot() {
  return __builtin_cpu_supports("avx512bf16") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0;
}

bool is_used(Bf16DotUse use) {
  const bool supported = supports_bf16_dot();
  switch (use) {
    case Bf16DotUse::kWhereFast:
      return supported && __builtin_cpu_is("amd") != 0;
    case Bf16DotUse::kWhereSupported:
      return supported;
    case Bf16DotUse::kNever:
      return false;
  }
  return false;
}

std::atomic<bool>& bf16_dot() {
  static std::atomic<bool> used = is_used(Bf16DotUse::kWhereFast);
  return used;
}

// What CPUID says of a leaf; zeros where there is none.
struct CpuId {
  uint32_t a = 0;
  uint32_t b = 0;
  uint32_t c = 0;
  uint32_t d = 0;

  explicit CpuId(uint32_t leaf) { __get_cpuid_count(leaf, 0, &a, &b, &c, &d); }
};

bool has_amx_instructions() {
  constexpr uint32_t kAmxBf16 = 1U << 22;
  constexpr uint32_t kAmxTile = 1U << 24;
  const uint32_t found = CpuId(7).d;
  return (found & kAmxBf16) != 0 && (found & kAmxTile) != 0;
}

// Whether the system saves the tiles of a thread that it interrupts.
bool saves_tiles() {
  constexpr uint32_t kOsXsave = 1U << 27;
  constexpr uint32_t kTileState = 3U << 17;
  if ((CpuId(1).c & kOsXsave) == 0) return false;
  uint32_t saved = 0;
  uint32_t upper = 0;
  asm volatile("xgetbv" : "=a"(saved), "=d"(upper) : "c"(0));
  return (saved & kTileState) == kTileState;
}

// Tiles are 8 KiB of state, which Linux (5.16) keeps for processes that ask for them.
bool is_granted_tiles() {
#ifdef SYS_arch_prctl
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool supports_amx() {
  static const bool supported =
      supports_bf16_dot() && has_amx_instructions() && saves_tiles() && is_granted_tiles();
  return supported;
}

std::atomic<bool>& amx() {
  static std::atomic<bool> used = supports_amx();
  return used;
}

}  // namespace

bool uses_amx() {
  return amx().load(std::memory_order_relaxed);
}

void set_amx_use(bool where_supported) {
  amx() = where_supported && supports_amx();
}

bool uses_bf16_dot() {
  return bf16_dot().load(std::memory_order_relaxed);
}

bool uses_int8_dot() {
  static const bool supported = supports_bf16_dot() && __builtin_cpu_supports("avx512vnni") != 0;
  return supported;
}

void set_bf16_dot_use(Bf16DotUse use) {
  bf16_dot() = is_used(use);
}

}  // namespace lamina::kernels::cpu
