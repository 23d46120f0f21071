// The loops of products with weights in panels of pairs (PackedFormat::kPairs), around a kernel
// that multiplies one tile: some tokens by one depth block of one or two panels. For
// linear_pairs.cc and linear_amx.cc, which have it compiled for their own instructions; so it
// includes nothing, and they what it needs.
//
// Weights pass by once for as many tokens as stay in the second-level cache; a depth block of the
// panels stays there while all of them meet it, and each of them fetches its share of the block
// that comes next, so that memory is read while all compute. Sums are kept in memory between the
// depth blocks, as they are: an element is one sum over ascending columns, whatever is cut where.
namespace lamina::kernels::cpu {
namespace {

static_assert(kPanelRows == kLanes && kBlockColumns == kPairs);

// x, laid out by the kernel, that stays in the second-level cache while the weights pass by.
constexpr int64_t kTokenBlockBytes = 384 * 1024;
constexpr int64_t kMaxPanels = 2;  // that a tile meets
// Sums of a token: [panels][kPanelRows].
constexpr int64_t kTokenSums = kMaxPanels * kPanelRows;

// What every thread of one call shares.
struct PanelJob {
  const LinearArgs& args;
  BFloat16* x = nullptr;  // as the kernel's pack() leaves it

  [[nodiscard]] const PackedMatrix& weight() const { return args.weight.packed; }
  [[nodiscard]] int64_t num_tokens() const { return args.x.shape[0]; }
};

// A depth block of panels, whose elements lie `panel_stride` apart, and what comes after it.
struct PanelBlock {
  const BFloat16* weights = nullptr;
  const BFloat16* next = nullptr;
  int64_t panel_stride = 0;
  int64_t column = 0;
  int64_t num_columns = 0;
  int64_t pass = 0;        // of the tiles that meet it,
  int64_t num_passes = 1;  // each of which fetches its share of what comes next
};

// Panels [panel, panel + count) from `column` on. `count` panels are met also where there is one
// only: it counts twice, and what comes of it is not stored.
inline PanelBlock find_block(
    const PackedMatrix& weight, int64_t panel, int64_t count, int64_t column, int64_t depth_block) {
  const auto at = [&weight](int64_t p, int64_t k) {
    return reinterpret_cast<const BFloat16*>(weight.panel(p)) + k * kPanelRows;
  };
  PanelBlock block;
  block.weights = at(panel, column);
  block.panel_stride =
      panel + 1 < weight.num_panels() && count > 1 ? weight.columns * kPanelRows : 0;
  block.column = column;
  block.num_columns = std::min(depth_block, weight.columns - column);
  if (column + depth_block < weight.columns) {
    block.next = at(panel, column + depth_block);
  } else {
    block.next = panel + 2 * count <= weight.num_panels() ? at(panel + count, 0) : block.weights;
  }
  return block;
}

// out = sums + bias, of tokens [begin, end) and `count` panels from `panel` on. sums [tokens from
// `begin` on][kTokenSums].
inline void store_sums(const LinearArgs& args,
                       int64_t begin,
                       int64_t end,
                       int64_t panel,
                       int64_t count,
                       const float* sums) {
  for (int64_t p = 0; p < count; ++p) {
    const int64_t row = (panel + p) * kPanelRows;
    const int64_t num_rows = args.weight.packed.rows - row;
    if (num_rows <= 0) return;
    const __m512 bias = load_bias(args.bias, row, num_rows);
    const float* from = sums + p * kPanelRows;
    for (int64_t token = begin; token < end; ++token, from += kTokenSums) {
      store_row(args.out, _mm512_add_ps(_mm512_loadu_ps(from), bias), token, row, num_rows);
    }
  }
}

// All tokens, of which there are some, meet panels [begin, end). A Kernel has
//   kDepthBlock                  columns of a depth block
//   Scope                        what a thread holds while it multiplies
//   num_panels()                 that its tiles meet
//   num_tiles(), tile_begin(i)   how the tokens are cut
//   pack(begin, end)             lays x of some tiles out
//   multiply(tile, block, sums)  adds to sums [tokens of the tile][kTokenSums]; the first depth
//   block
//                                sets them
template <typename Kernel>
void multiply_panels(const PanelJob& job, const Kernel& kernel, int64_t begin, int64_t end) {
  thread_local Scratch scratch;
  [[maybe_unused]] const typename Kernel::Scope scope;
  const int64_t num_tiles = kernel.num_tiles();
  const auto tile_bytes =
      kernel.tile_begin(1) * job.weight().columns * static_cast<int64_t>(sizeof(BFloat16));
  const int64_t block_tiles =
      std::max<int64_t>(1, kTokenBlockBytes / std::max<int64_t>(1, tile_bytes));
  const int64_t count = kernel.num_panels();
  for (int64_t first = 0; first < num_tiles; first += block_tiles) {
    const int64_t last = std::min(first + block_tiles, num_tiles);
    const int64_t token = kernel.tile_begin(first);
    float* sums =
        scratch.floats(static_cast<size_t>((kernel.tile_begin(last) - token) * kTokenSums));
    for (int64_t panel = begin; panel < end; panel += count) {
      for (int64_t k = 0; k < job.weight().columns; k += Kernel::kDepthBlock) {
        PanelBlock block = find_block(job.weight(), panel, count, k, Kernel::kDepthBlock);
        block.num_passes = last - first;
        for (int64_t tile = first; tile < last; ++tile, ++block.pass) {
          kernel.multiply(tile, block, sums + (kernel.tile_begin(tile) - token) * kTokenSums);
        }
      }
      const int64_t token_end = std::min(kernel.tile_begin(last), job.num_tokens());
      store_sums(job.args, token, token_end, panel, std::min(count, end - panel), sums);
    }
  }
}

template <typename Kernel>
void run_panels(const PanelJob& job, const Kernel& kernel, ThreadPool& pool) {
  if (job.num_tokens() == 0) return;
  constexpr int64_t kMinWork = 128 * 1024;  // products: microseconds, worth waking a thread for
  const int64_t columns = std::max<int64_t>(job.weight().columns, 1);
  pool.parallel_for(kernel.num_tiles(),
                    ceil_div(kMinWork / 16, kernel.tile_begin(1) * columns),
                    [&kernel](int64_t begin, int64_t end) { kernel.pack(begin, end); });
  const int64_t count = kernel.num_panels();
  const int64_t num_panels = job.weight().num_panels();
  pool.parallel_for(ceil_div(num_panels, count),
                    ceil_div(kMinWork, count * kPanelRows * job.num_tokens() * columns),
                    [&](int64_t begin, int64_t end) {
                      multiply_panels(
                          job, kernel, begin * count, std::min(end * count, num_panels));
                    });
}

template <typename Kernel>
void run_part(const PanelJob& job, const Kernel& kernel, int64_t begin, int64_t end) {
  if (job.num_tokens() == 0) return;
  kernel.pack(0, kernel.num_tiles());
  multiply_panels(job, kernel, begin / kPanelRows, ceil_div(end, kPanelRows));
}

// With room for x of `num_tokens` tokens, in the calling thread's scratch.
inline PanelJob make_job(const LinearArgs& args, int64_t num_tokens) {
  thread_local Scratch scratch;
  const int64_t num_floats = num_tokens * args.x.shape[1] / 2;
  return {args, reinterpret_cast<BFloat16*>(scratch.floats(static_cast<size_t>(num_floats)))};
}

}  // namespace
}  // namespace lamina::kernels::cpu
