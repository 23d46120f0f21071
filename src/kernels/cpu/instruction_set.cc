#include "kernels/cpu/instruction_set.h"

#include <atomic>

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

}  // namespace

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
