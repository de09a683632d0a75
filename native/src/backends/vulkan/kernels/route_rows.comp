#version 460
// Which experts a row goes to (gpu/experts.inl.h).
#include "functions.glsl"
#include "sums.glsl"
EDGE_ARGS(RouteArgs)
layout(local_size_x = kRowThreads) in;

shared float p[kMostExperts];
shared int is_used[kMostExperts];
shared float used[kMostExperts];

float share_of_lanes(float sum) {
  if (THREAD < kLanes) lanes[THREAD] = sum;
  return total_of_lanes();
}
float sum_p(int n) {
  float sum = 0.0;
  for (int i = THREAD; THREAD < kLanes && i < n; i += kLanes) sum = add(sum, p[i]);
  return share_of_lanes(sum);
}
float sum_used(int n) {
  float sum = 0.0;
  for (int i = THREAD; THREAD < kLanes && i < n; i += kLanes) sum = add(sum, used[i]);
  return share_of_lanes(sum);
}

void softmax(int n) {
  float largest = p[0];
  for (int i = 1; i < n; ++i) largest = p[i] > largest ? p[i] : largest;
  SYNC();
  for (int i = THREAD; i < n; i += kRowThreads) p[i] = exp_of(sub(p[i], largest));
  SYNC();
  const float total = sum_p(n);
  for (int i = THREAD; i < n; i += kRowThreads) p[i] = div(p[i], total);
  SYNC();
}

// As the first share of softmax(g, 0).
float sigmoid(float g) {
  const float largest = g > 0.0 ? g : 0.0;
  const float share = exp_of(sub(g, largest)), other = exp_of(sub(0.0, largest));
  return div(share, add(share, other));
}
bool is_finite(float x) { return magnitude_bits(x) < 0x7f800000; }

void main() {
  float_ptr logits = AT(args.logits, GROUP.x * args.stride);
  float_ptr gate = AT(args.shared_, GROUP.x * kTileRows);
  const int n = args.n_experts;
  for (int i = THREAD; i < n; i += kRowThreads) {
    const float logit = AT(logits, i).v;
    if (!is_finite(logit)) args.flag.v = 1;
    p[i] = is_finite(logit) ? logit : 0.0;  // so that ids are right in any case
  }
  SYNC();
  softmax(n);
  for (int i = THREAD; i < n; i += kRowThreads) {
    int n_better = 0;
    for (int other = 0; other < n; ++other) {
      n_better += p[other] > p[i] || (p[other] == p[i] && other < i) ? 1 : 0;
    }
    is_used[i] = n_better < args.n_used ? 1 : 0;
    AT(logits, i).v = p[i];
  }
  SYNC();
  int32_t_ptr ids = AT(args.ids, GROUP.x * args.n_used);
  float_ptr weights = AT(args.weights, GROUP.x * args.n_used);
  for (int i = THREAD; i < n; i += kRowThreads) {
    if (is_used[i] == 0) continue;
    int place = 0;
    for (int other = 0; other < i; ++other) place += is_used[other];
    AT(ids, place).v = i;
    used[place] = p[i];
  }
  SYNC();
  const float total = args.normalize != 0 ? sum_used(args.n_used) : 1.0;
  for (int i = THREAD; i < args.n_used; i += kRowThreads) {
    AT(weights, i).v = args.normalize != 0 ? div(used[i], total) : used[i];
  }
  if (THREAD != 0) return;
  const bool has_gate = args.has_shared_gate != 0;
  const bool is_right = !has_gate || is_finite(AT(gate, 0).v);
  if (!is_right) args.flag.v = 1;
  AT(gate, 0).v = has_gate && is_right ? sigmoid(AT(gate, 0).v) : 1.0;
}
