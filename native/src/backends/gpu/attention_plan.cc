#include "backends/gpu/attention_plan.h"

#include <algorithm>
#include <cstdint>

namespace edge::gpu {
namespace {

// What attention.inl.h exports.
struct Variant {
  const char* kernel;
  int n_queries;
  int most_head_dim;
};
constexpr Variant kAlone = {"attend_segment_1", 1, kMostHeadDim};
constexpr Variant kTogether[] = {{"attend_segment_8", 8, 128}, {"attend_segment_4", 4, 256}};

Variant variant_for(int head_dim, int64_t n_queries) {
  if (n_queries == 1) return kAlone;
  for (const Variant& variant : kTogether) {
    if (head_dim <= variant.most_head_dim) return variant;
  }
  return kAlone;
}

bool reads_same_slots(const RowInput& a, const RowInput& b) {
  return a.kv.tables == b.kv.tables && a.tail.empty() && b.tail.empty();
}

}  // namespace

AttentionPlan plan_attention(std::span<const RowInput> rows, const AttentionShape& shape) {
  const int heads_per_kv = shape.n_heads / shape.n_kv_heads;
  const auto n_rows = static_cast<int>(rows.size());
  const Variant variant = variant_for(shape.head_dim, int64_t{n_rows} * heads_per_kv);
  const int most_rows = std::clamp(variant.n_queries / heads_per_kv, 1, n_rows);
  const int n_parts = (most_rows * heads_per_kv + variant.n_queries - 1) / variant.n_queries;
  return {variant.kernel, n_parts, most_rows};
}

std::vector<RowGroup> group_rows(std::span<const RowInput> rows, int row0, int n_rows,
                                 int most_rows) {
  std::vector<RowGroup> groups;
  for (int i = row0; i < row0 + n_rows; ++i) {
    const auto at = static_cast<size_t>(i);
    const bool continues =
        !groups.empty() && groups.back().n < most_rows && reads_same_slots(rows[at - 1], rows[at]);
    if (continues) {
      ++groups.back().n;
    } else {
      groups.push_back({i, 1});
    }
  }
  return groups;
}

SeenSegments segments_of(std::span<const RowInput> rows, int window, bool has_first) {
  int first = INT32_MAX, last = 0;
  for (const RowInput& row : rows) {
    const int n_seen = row.n_seen();
    const int begin = window > 0 ? std::max(0, n_seen - window) : 0;
    first = std::min(first, segment_of(has_first, begin));
    last = std::max(last, segment_of(has_first, n_seen - 1));
  }
  return {first, last - first + 1};
}

}  // namespace edge::gpu
