// Activations as int8 in blocks of 32 columns and panels of 16 rows, and how 32 threads write a
// block (gpu/act_blocks.inl.h). Groups of kRowThreads.
#include "blocks.glsl"
#include "numbers.glsl"

const int kRowWarps = kRowThreads / kWarp;

shared int block_top[kRowWarps];
shared int block_sums[2 * kRowWarps];  // of 16 columns each
shared int block_rests[2 * kRowWarps];

int level(float x, float inverse) {
  const int q = to_int(mul(x, inverse));
  return q > 127 ? 127 : q < -127 ? -127 : q;
}

void store_levels(Panels to, int64_t at, int q, float scale) {
  const int lane = THREAD % kWarp;
  AT(to.q, kBlockCols * at + lane).v = int8_t(q);
  if (lane == 0) AT(to.d, at).v = scale;
}
void store_bias(Panels to, int64_t at, int sum) {
  AT(to.bias, 2 * at + THREAD % kWarp / 16).v = -64 * sum;
}

// Block `block` of row `row`, of which this thread has column y. All threads of the group call it;
// those of a block that is not there with is_there = false.
void write_block(Act to, int64_t row, int64_t block, float y, int32_t_ptr flag, bool is_there) {
  const int warp = THREAD / kWarp, lane = THREAD % kWarp, part = THREAD / 16;
  if (lane == 0) block_top[warp] = 0;
  if (lane % 16 == 0) block_sums[part] = block_rests[part] = 0;
  SYNC();
  atomicMax(block_top[warp], magnitude_bits(y));
  SYNC();
  if (is_there && !IS_NULL(to.f)) AT(to.f, row * to.n_cols_padded + kBlockCols * block + lane).v = y;
  const int largest = block_top[warp];
  const bool is_right = largest <= 0x7f7fffff;
  if (is_there && !is_right && lane == 0) flag.v = 1;
  const bool writes = is_there && is_right;
  const bool has_a8 = writes && !IS_NULL(to.a8.q), has_a8x2 = writes && !IS_NULL(to.a8x2.q);
  const int64_t at = has_a8 ? block_index(to.a8, row, block) : 0l;
  const int64_t at2 = has_a8x2 ? block_index(to.a8x2, 2l * row, block) : 0l;
  if (has_a8 || has_a8x2) {
    const float top = float_of(largest);
    const bool is_zero = top < 7.88860905e-31;  // 2^-100
    const float scale = is_zero ? 0.0 : div(top, 127.0);
    const int q = level(y, is_zero ? 0.0 : div(127.0, top));
    atomicAdd(block_sums[part], q);
    if (has_a8) store_levels(to.a8, at, q, scale);
    if (has_a8x2) {
      const float rest = fma_exact(-float(q), scale, y);
      const int more = level(rest, is_zero ? 0.0 : div(254.0, scale));
      atomicAdd(block_rests[part], more);
      store_levels(to.a8x2, at2, q, scale);
      store_levels(to.a8x2, at2 + 1, more, div(scale, 254.0));
    }
  }
  SYNC();
  if (lane % 16 != 0) return;
  if (has_a8) store_bias(to.a8, at, block_sums[part]);
  if (!has_a8x2) return;
  store_bias(to.a8x2, at2, block_sums[part]);
  store_bias(to.a8x2, at2 + 1, block_rests[part]);
}
