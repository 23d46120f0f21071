// Device primitives that attention and narrow products share: barriers in shared memory, bulk
// copies that complete on them, matrix fragments and their products. One instruction each, named;
// shapes of fragments are those of the PTX manual's m16n8k16. Device code only.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace lamina::kernels::cuda {

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// A barrier in shared memory: a phase ends once its arrivals, and the bytes promised to it, are
// there. Phases have the parities 0, 1, 0, ... Every lane arrives that has touched what a phase
// hands on. One after a __syncwarp() would do, but race checkers do not follow that, and it is no
// faster.
class Barrier {
 public:
  __device__ void init(uint32_t num_arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address()), "r"(num_arrivals));
  }
  __device__ void arrive() {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address()) : "memory");
  }
  // Waits until the phase of that parity has ended.
  __device__ void wait(uint32_t parity) {
    while (!has_ended(parity)) {
    }
  }
#if __CUDA_ARCH__ >= 900
  // Arrives, and promises `bytes` by bulk copies.
  __device__ void arrive_and_expect(uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address()),
                 "r"(bytes)
                 : "memory");
  }
#endif
  // Arrives once the calling thread's copies by copy_16() so far are there.
  __device__ void arrive_after_copies() {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(address())
                 : "memory");
  }
  [[nodiscard]] __device__ uint32_t address() const { return shared_address(&state_); }

 private:
  __device__ bool has_ended(uint32_t parity) const {
    uint32_t ended = 0;
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, "
        "p; }"
        : "=r"(ended)
        : "r"(address()), "r"(parity)
        : "memory");
#else
    asm volatile(
        "{ .reg .pred p; mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, "
        "p; }"
        : "=r"(ended)
        : "r"(address()), "r"(parity)
        : "memory");
#endif
    return ended != 0;
  }

  uint64_t state_;
};

// Orders the calling thread's accesses of shared memory before later bulk copies into it.
__device__ inline void fence_before_bulk_copies() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// Copies 16 bytes to shared memory; complete where Barrier::arrive_after_copies() says.
__device__ inline void copy_16(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from)
               : "memory");
}

// The same, or zeros: `from` is not read then, but is an address.
__device__ inline void copy_16_or_zeros(void* to, const void* from, bool copies) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
               "l"(from),
               "r"(copies ? 16 : 0)
               : "memory");
}

// What the L2 cache does with what is copied: it is read once, several times, or again and again.
inline constexpr uint64_t kEvictFirst = 0x12F0000000000000;
inline constexpr uint64_t kEvictNormal = 0x1000000000000000;
inline constexpr uint64_t kEvictLast = 0x14F0000000000000;

#if __CUDA_ARCH__ >= 900
// Copies `bytes`, a multiple of 16, to shared memory and tells `barrier`.
__device__ inline void bulk_copy(
    void* to, const void* from, uint32_t bytes, Barrier& barrier, uint64_t policy = kEvictFirst) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1], %2, [%3], %4;" ::"r"(shared_address(to)),
      "l"(from),
      "r"(bytes),
      "r"(barrier.address()),
      "l"(policy)
      : "memory");
}

// Copies the box of a tensor that begins at `column` of `row`, zeros where the tensor ends, and
// tells `barrier` of all its bytes. The map is a kernel's parameter.
__device__ inline void copy_box(
    void* to, const CUtensorMap& map, int column, int row, Barrier& barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared_address(to)),
      "l"(&map),
      "r"(column),
      "r"(row),
      "r"(barrier.address()),
      "l"(policy)
      : "memory");
}

// Brings the box to the L2 cache.
__device__ inline void prefetch_box(const CUtensorMap& map, int column, int row) {
  asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%0, {%1, %2}];" ::"l"(&map),
               "r"(column),
               "r"(row)
               : "memory");
}
#endif

// Goes through `count` places in turn: which is next, and the parity of its barriers.
struct RingCounter {
  int idx = 0;
  uint32_t parity = 0;
  __device__ void advance(int count) {
    if (++idx == count) {
      idx = 0;
      parity ^= 1;
    }
  }
};

// Four 8 x 8 matrices of 16-bit elements: lane 8i + r gives the address of row r of matrix i.
__device__ inline void load_matrices(uint32_t (&to)[4], uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(row_address));
}
// Two of them, by the addresses of lanes 0 to 15.
__device__ inline void load_matrices(uint32_t (&to)[2], uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(to[0]), "=r"(to[1])
               : "r"(row_address));
}
__device__ inline void load_transposed_matrices(uint32_t (&to)[4], uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(row_address));
}

__device__ inline void load_transposed_matrices(uint32_t (&to)[2], uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(to[0]), "=r"(to[1])
               : "r"(row_address));
}

// sums [16, 8] += a [16, 16] b [16, 8], sums in f32.
template <typename Element>
__device__ void multiply_add(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
__device__ inline void multiply_add<__nv_bfloat16>(float (&sums)[4],
                                                   const uint32_t (&a)[4],
                                                   uint32_t b0,
                                                   uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ inline void multiply_add<__half>(float (&sums)[4],
                                            const uint32_t (&a)[4],
                                            uint32_t b0,
                                            uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two elements of 16 bits, `first` in the low half.
template <typename Element>
__device__ uint32_t pack_pair(float first, float second);
template <>
__device__ inline uint32_t pack_pair<__nv_bfloat16>(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
template <>
__device__ inline uint32_t pack_pair<__half>(float first, float second) {
  const __half2 pair = __floats2half2_rn(first, second);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// 2^x, to about 2 ulp.
__device__ inline float exp2_fast(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// A kernel whose launch allows it starts while the one before it on the stream still runs: until
// this returns, nothing of what that one writes may be read.
__device__ inline void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Lets the next kernel of the stream start.
__device__ inline void allow_next_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ inline float warp_max(float value) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    value = fmaxf(value, __shfl_xor_sync(~0U, value, lanes));
  }
  return value;
}
__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(~0U, value, lanes);
  return value;
}

// A barrier among `num_threads` threads of the block, apart from __syncthreads().
template <int kId>
__device__ inline void sync_some(int num_threads) {
  asm volatile("bar.sync %0, %1;" ::"n"(kId), "r"(num_threads) : "memory");
}
__device__ inline void sync_some(int id, int num_threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(num_threads) : "memory");
}

}  // namespace lamina::kernels::cuda
