// Splitting an operator over the rows of its output. Included by the files of this folder.
#pragma once

#include <algorithm>

#include "base/checked_math.h"
#include "device/thread_pool.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels::cpu {

// Calls body(t) for every index of axis 0 of x, in threads where that is worth waking one. A body
// captures one reference, so that making a std::function of it allocates nothing.
template <typename Body>
void for_each_row(const TensorView& x, ThreadPool& pool, const Body& body) {
  constexpr int64_t kMinElements = 16 * 1024;  // microseconds
  pool.parallel_for(x.shape[0],
                    ceil_div(kMinElements, std::max<int64_t>(1, x.row_elements())),
                    [&body](int64_t begin, int64_t end) {
                      for (int64_t t = begin; t < end; ++t) body(t);
                    });
}

}  // namespace lamina::kernels::cpu
