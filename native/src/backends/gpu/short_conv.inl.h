// Gated short convolutions with the CPU's sums: a row's state goes to its page, then a warp makes
// 32 columns of what the taps give. Included after a dialect.
#include "backends/gpu/act_blocks.inl.h"
#include "backends/gpu/pages.inl.h"

namespace EDGE_DEVICE {

EDGE_CONSTANT int kConvWarps = kRowThreads / kWarp;

// The state of the sequence's token in `slot`.
EDGE_FN EDGE_GLOBAL float* state_of(EDGE_ARGS ShortConvArgs& args, int sequence, int slot) {
  EDGE_GLOBAL uint8_t* page = args.rows.tables[sequence].pages[slot / kPageTokens].bytes;
  EDGE_GLOBAL float* states = reinterpret_cast<EDGE_GLOBAL float*>(page + args.offset);
  return states + slot % kPageTokens * args.n_cols;
}

}  // namespace EDGE_DEVICE

using namespace EDGE_DEVICE;

EDGE_KERNEL(store_states, ShortConvArgs, kElementThreads) {
  const At at = EDGE_AT;
  const int64_t i = static_cast<int64_t>(at.x) * kElementThreads + at.index;
  if (i >= args.n_cols) return;
  EDGE_GLOBAL const Row& row = args.rows.rows[at.y];
  EDGE_GLOBAL const float* b = args.bcx + at.y * args.stride;
  state_of(args, row.sequence, row.slot)[i] = b[i] * b[2 * args.n_cols + i];
}

EDGE_KERNEL(convolve_rows, ShortConvArgs, kRowThreads) {
  const At at = EDGE_AT;
  const int64_t block = static_cast<int64_t>(at.x) * kConvWarps + at.index / kWarp;
  if (block >= args.out.n_cols_padded / kBlockCols) return;
  const int64_t i = kBlockCols * block + at.index % kWarp;
  EDGE_GLOBAL const Row& row = args.rows.rows[at.y];
  const int n = smaller(args.n_taps, row.n_seen);
  float y = 0;
  if (i < args.n_cols) {
    EDGE_GLOBAL const float* taps = args.taps + (args.n_taps - n) * args.n_cols + i;
    float sum = 0;
    for (int t = 0; t < n; ++t) {
      const int slot = slot_of(row, row.n_seen - n + t);
      sum = fma_exact(taps[t * args.n_cols], state_of(args, row.sequence, slot)[i], sum);
    }
    y = args.bcx[at.y * args.stride + args.n_cols + i] * sum;
  }
  write_block(at, args.out, at.y, block, y, args.flag);
}

EDGE_EXPORT(store_states)
EDGE_EXPORT(convolve_rows)
