// Heads behind their matrix: bias, norm, rotary turn, how keys stand in pages, and their bytes there
// (gpu/kv_store.inl.h). A group makes one head of one row; GROUP.x is the head, GROUP.y the row.
#include "pages.glsl"
#include "sums.glsl"
EDGE_ARGS(StoreArgs)
layout(local_size_x = kHeadThreads) in;

shared float head[kMostHeadDim];

Column shifted(float_ptr raw, float_ptr bias, int64_t first) {
  return column_of(AT(raw, first), IS_NULL(bias) ? bias : AT(bias, first));
}

void load_head() {
  const int64_t first = int64_t(GROUP.x) * args.heads.head_dim;
  float_ptr raw = AT(args.heads.raw, GROUP.y * args.heads.stride);
  float_ptr bias = args.heads.bias;
  const bool has_norm = !IS_NULL(args.heads.norm.weight);
  const int64_t part = has_norm ? first / args.heads.n_norm * args.heads.n_norm : 0l;
  Column of_norm = shifted(raw, bias, part);
  Column of_head = shifted(raw, bias, first);
  const NormFactors factors = norm_factors(args.heads.norm, args.heads.n_norm, of_norm);
  for (int c = THREAD; c < args.heads.head_dim; c += kHeadThreads) {
    head[c] = normed(args.heads.norm, factors, value_of(of_head, c), first + c - part);
  }
  SYNC();
}

void rotate() {
  const int half_rope = args.heads.n_rope / 2;
  for (int i = THREAD; i < half_rope; i += kHeadThreads) {
    const float a = head[i], b = head[i + half_rope];
    const float c = AT(args.heads.cos, GROUP.y * half_rope + i).v;
    const float s = AT(args.heads.sin, GROUP.y * half_rope + i).v;
    head[i] = fma_exact(a, c, -mul(b, s));
    head[i + half_rope] = fma_exact(b, c, mul(a, s));
  }
  SYNC();
}

void balance() {
  if (IS_NULL(args.heads.scale)) return;
  const int first = GROUP.x / args.heads.heads_per_scale * args.heads.head_dim;
  for (int c = THREAD; c < args.heads.head_dim; c += kHeadThreads) {
    const float scale = AT(args.heads.scale, first + c).v;
    if (args.heads.divides != 0) {
      head[c] = div(head[c], scale);
    } else {
      head[c] = mul(sub(head[c], AT(args.heads.mean, first + c).v), scale);
    }
  }
  SYNC();
}

// cpu/hadamard.h
void mix_head() {
  if (args.heads.mixes == 0) return;
  const int n = args.heads.head_dim & -args.heads.head_dim;
  for (int distance = 1; distance < n; distance *= 2) {
    for (int i = THREAD; i < args.heads.head_dim / 2; i += kHeadThreads) {
      const int from = i / distance * 2 * distance + i % distance;
      const float a = head[from], b = head[from + distance];
      head[from] = add(a, b);
      head[from + distance] = sub(a, b);
    }
    SYNC();
  }
  for (int c = THREAD; c < args.heads.head_dim; c += kHeadThreads) {
    head[c] = mul(head[c], args.heads.mix_scale);
  }
  SYNC();
}

void turn_head() {
  rotate();
  balance();
  mix_head();
}
