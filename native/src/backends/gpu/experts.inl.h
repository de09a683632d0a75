// Mixtures of experts: the choice, the products of every pair of a row and an expert of its, and
// their sums, with the CPU's bits (backends/cpu/moe_driver.h). Pairs are put in the order of their
// experts, so that up to eight rows of activations share one reading of an expert's weights; what
// a pair's product is does not depend on that. Included after a dialect.
#include "backends/gpu/expert_parts.inl.h"
#include "backends/gpu/strip_sums.inl.h"
#include "backends/gpu/sums.inl.h"

namespace EDGE_DEVICE {

struct AddProbability {
  EDGE_GROUP const float* p;
  EDGE_MEMBER_FN float operator()(float sum, int64_t i) const { return sum + p[i]; }
};

// x[i] = x[i] / their sum, for n > 0.
EDGE_FN void to_shares(At at, EDGE_GROUP float* x, int n, EDGE_GROUP float* lanes) {
  const AddProbability add_probability = {x};
  const float total = lane_sum(at, n, lanes, add_probability);
  for (int i = at.index; i < n; i += kRowThreads) x[i] = x[i] / total;
  EDGE_SYNC();
}

// exp(x - largest), then to_shares().
EDGE_FN void softmax(At at, EDGE_GROUP float* x, int n, EDGE_GROUP float* lanes) {
  float largest = x[0];
  for (int i = 1; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  EDGE_SYNC();
  for (int i = at.index; i < n; i += kRowThreads) x[i] = exp_of(x[i] - largest);
  EDGE_SYNC();
  to_shares(at, x, n, lanes);
}

// sigmoid(g), as the first share of softmax(g, 0).
EDGE_FN float sigmoid(float g) {
  const float largest = g > 0.0f ? g : 0.0f;
  const float share = exp_of(g - largest), other = exp_of(0.0f - largest);
  return share / (share + other);
}

EDGE_FN bool is_finite(float x) { return magnitude_bits(x) < 0x7f800000; }

}  // namespace EDGE_DEVICE

using namespace EDGE_DEVICE;

EDGE_KERNEL(route_rows, RouteArgs, kRowThreads) {
  const At at = EDGE_AT;
  EDGE_SHARED(float, p, [kMostExperts]);
  EDGE_SHARED(int, is_used, [kMostExperts]);
  EDGE_SHARED(float, used, [kMostExperts]);
  EDGE_SHARED(float, lanes, [kLanes]);
  EDGE_GLOBAL float* logits = args.logits + at.x * args.stride;
  EDGE_GLOBAL float* shared = args.shared + at.x * kTileRows;
  const int n = args.n_experts;
  for (int i = at.index; i < n; i += kRowThreads) {
    if (!is_finite(logits[i])) *args.flag = 1;
    p[i] = is_finite(logits[i]) ? logits[i] : 0.0f;  // so that ids are right in any case
  }
  EDGE_SYNC();
  softmax(at, p, n, lanes);
  for (int i = at.index; i < n; i += kRowThreads) {
    int n_better = 0;
    for (int other = 0; other < n; ++other) {
      n_better += p[other] > p[i] || (p[other] == p[i] && other < i);
    }
    is_used[i] = n_better < args.n_used;
    logits[i] = p[i];
  }
  EDGE_SYNC();
  EDGE_GLOBAL int32_t* ids = args.ids + at.x * args.n_used;
  EDGE_GLOBAL float* weights = args.weights + at.x * args.n_used;
  for (int i = at.index; i < n; i += kRowThreads) {
    if (!is_used[i]) continue;
    int place = 0;
    for (int other = 0; other < i; ++other) place += is_used[other];
    ids[place] = i;
    used[place] = p[i];
  }
  EDGE_SYNC();
  if (args.normalize) to_shares(at, used, args.n_used, lanes);
  for (int i = at.index; i < args.n_used; i += kRowThreads) weights[i] = used[i];
  if (at.index != 0) return;
  const bool is_right = !args.has_shared_gate || is_finite(shared[0]);
  if (!is_right) *args.flag = 1;
  shared[0] = args.has_shared_gate && is_right ? sigmoid(shared[0]) : 1.0f;
}

EDGE_KERNEL(count_routes, CountRoutesArgs, kRowThreads) {
  const At at = EDGE_AT;
  for (int expert = at.index; expert < args.n_experts; expert += kRowThreads) {
    uint64_t n = args.n_routed[expert];
    for (int i = 0; i < args.n_pairs; ++i) n += args.ids[i] == expert;
    args.n_routed[expert] = n;
  }
}

EDGE_KERNEL(order_pairs, OrderPairsArgs, kRowThreads) {
  const At at = EDGE_AT;
  EDGE_SHARED(int, n_pairs, [kMostExperts]);
  EDGE_SHARED(int, first_pair, [kMostExperts]);
  EDGE_SHARED(int, first_part, [kMostExperts + 1]);
  for (int expert = at.index; expert < args.n_experts; expert += kRowThreads) {
    int n = 0;
    for (int i = 0; i < args.n_pairs; ++i) n += args.ids[i] == expert;
    n_pairs[expert] = n;
  }
  EDGE_SYNC();
  if (at.index == 0) {
    int pair = 0, part = 0;
    for (int expert = 0; expert < args.n_experts; ++expert) {
      first_pair[expert] = pair;
      first_part[expert] = part;
      pair += n_pairs[expert];
      part += (n_pairs[expert] + args.part_pairs - 1) / args.part_pairs;
    }
    first_part[kMostExperts] = part;
  }
  EDGE_SYNC();
  for (int expert = at.index; expert < args.n_experts; expert += kRowThreads) {
    int to = first_pair[expert];
    for (int i = 0; i < args.n_pairs; ++i) {
      if (args.ids[i] == expert) args.order[to++] = i;
    }
    EDGE_GLOBAL ExpertPart* part = args.parts + first_part[expert];
    for (int done = 0; done < n_pairs[expert]; done += args.part_pairs, ++part) {
      part->expert = expert;
      part->first = first_pair[expert] + done;
      part->n = smaller(n_pairs[expert] - done, args.part_pairs);
    }
  }
  for (int i = first_part[kMostExperts] + at.index; i < args.n_parts; i += kRowThreads) {
    args.parts[i].n = 0;
  }
}

template <class F, int K>
EDGE_KERNEL(experts_a8, ExpertsArgs, kMatmulThreads) {
  const At at = EDGE_AT;
  EDGE_SHARED(float, x, [kChunkTiles * K * kTileRows]);
  EDGE_GLOBAL const ExpertPart& part = args.parts[at.y];
  const int n_rows = part.n * args.halves;
  if (n_rows == 0) return;
  const int row = at.index % kTileRows, slot = at.index / kTileRows;
  RowBlocks rows[K];
  EDGE_UNROLL
  for (int k = 0; k < K; ++k) {
    rows[k] = blocks_of(args.act, rows_of_part(args, part, smaller(k, n_rows - 1)).in);
  }
  const PairRows own = rows_of_part(args, part, smaller(slot, n_rows - 1));
  const float sum = strip_sum_a8<F, K>(at, args.w, strip_of_expert(args, part.expert, at.x),
                                       args.act, rows, n_rows, blocks_of(args.act, own.in), x);
  if (slot >= n_rows) return;
  args.y[own.out * args.stride + static_cast<int64_t>(kTileRows) * at.x + row] = sum;
}

template <class F>
EDGE_KERNEL(experts_f32, ExpertsArgs, kMatmulF32Threads) {
  const At at = EDGE_AT;
  EDGE_SHARED(float, sums, [kMatmulF32Threads]);
  EDGE_GLOBAL const uint8_t* strip = strip_of_expert(args, args.ids[at.y], at.x);
  EDGE_GLOBAL const float* a = args.f + rows_of_pair(args, at.y, 0).in * args.f_stride;
  const float sum = strip_sum_f32<F>(at, args.w, strip, a, sums);
  if (at.index >= kTileRows) return;
  args.y[at.y * args.stride + static_cast<int64_t>(kTileRows) * at.x + at.index] = sum;
}

EDGE_KERNEL(sum_experts, SumExpertsArgs, kElementThreads) {
  const At at = EDGE_AT;
  const int64_t i = static_cast<int64_t>(at.x) * kElementThreads + at.index;
  if (i >= args.n) return;
  float sum = 0;
  for (int pair = at.y * args.n_used; pair < (at.y + 1) * args.n_used; ++pair) {
    sum = fma_exact(args.pairs[pair * args.stride + i], args.weights[pair], sum);
  }
  if (args.shared != nullptr) {
    const float weight = args.shared_weights[at.y * kTileRows];
    sum = fma_exact(args.shared[at.y * args.stride + i], weight, sum);
  }
  args.y[at.y * args.y_stride + i] = sum;
}

EDGE_EXPORT(route_rows)
EDGE_EXPORT(count_routes)
EDGE_EXPORT(order_pairs)
EDGE_EXPORT(sum_experts)
#define EDGE_EXPORT_EXPERTS_A8(F)                      \
  EDGE_EXPORT_AS("experts_a8_1_" #F, experts_a8, F, 1) \
  EDGE_EXPORT_AS("experts_a8_2_" #F, experts_a8, F, 2) \
  EDGE_EXPORT_AS("experts_a8_8_" #F, experts_a8, F, 8)
EDGE_INTEGER_FORMATS(EDGE_EXPORT_EXPERTS_A8)
#define EDGE_EXPORT_EXPERTS_F32(F) EDGE_EXPORT_AS("experts_f32_" #F, experts_f32, F)
EDGE_FORMATS(EDGE_EXPORT_EXPERTS_F32)
