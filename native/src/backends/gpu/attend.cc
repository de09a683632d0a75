#include "backends/gpu/attend.h"

#include <algorithm>

#include "kernels/attention.h"

namespace edge::gpu {
namespace {

static_assert(kPageTokens == edge::kPageTokens && kFirstTokens == edge::kFirstTokens);
static_assert(kSegmentTokens == edge::kSegmentTokens && kMostHeadDim == kMaxHeadDim);

constexpr int64_t kPartialFloats = int64_t{1} << 24;  // of segments at a time: 64 MiB

// Those that any row sees.
void set_segments(const StepRows& rows, const AttentionShape& shape, AttentionArgs& args) {
  int first = INT32_MAX, last = 0;
  for (const RowInput& row : rows.inputs()) {
    const int n_seen = row.n_seen();
    const int begin = shape.window > 0 ? std::max(0, n_seen - shape.window) : 0;
    first = std::min(first, segment_of(args.pages.has_first != 0, begin));
    last = std::max(last, segment_of(args.pages.has_first != 0, n_seen - 1));
  }
  args.first_segment = first;
  args.n_segments = last - first + 1;
}

}  // namespace

void attend(Launcher& launcher, StepRows& rows, const FloatMatrix& q, const AttentionShape& shape,
            const KvLayerLayout& kv) {
  AttentionArgs args = {};
  args.rows = rows.with_pages(launcher, kv.group);
  args.pages = pages_of(kv);
  args.q = q.data;
  args.q_stride = q.stride;
  args.flag = launcher.flag();
  args.n_heads = shape.n_heads;
  args.n_kv_heads = shape.n_kv_heads;
  args.head_dim = shape.head_dim;
  args.query_channels = kv_query_channels(shape.head_dim);
  args.scale = shape.scale;
  args.softcap = shape.softcap;
  args.window = shape.window;
  set_segments(rows, shape, args);
  const int64_t row_floats = int64_t{args.n_segments} * shape.n_heads * (2 + shape.head_dim);
  const auto at_once =
      static_cast<int>(std::clamp<int64_t>(kPartialFloats / row_floats, 1, rows.count()));
  args.partials = launcher.take(Room::kParts, at_once * row_floats);
  for (args.row0 = 0; args.row0 < rows.count(); args.row0 += at_once) {
    const int n = std::min(at_once, rows.count() - args.row0);
    launcher.launch("attend_segment", args, {args.n_segments, shape.n_heads, n}, kSegmentTokens);
    launcher.launch("merge_segments", args, {shape.n_heads, n}, kSegmentTokens);
  }
}

}  // namespace edge::gpu
