#include "backends/gpu/attend.h"

#include <algorithm>

#include "backends/gpu/attention_plan.h"
#include "kernels/attention.h"

namespace edge::gpu {
namespace {

static_assert(kPageTokens == edge::kPageTokens && kFirstTokens == edge::kFirstTokens);
static_assert(kSegmentTokens == edge::kSegmentTokens && kMostHeadDim == kMaxHeadDim);

constexpr int64_t kPartialFloats = int64_t{1} << 24;  // of segments at a time: 64 MiB

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
  const bool has_first = args.pages.has_first != 0;
  const SeenSegments seen = segments_of(rows.inputs(), shape.window, has_first);
  args.first_segment = seen.first;
  args.n_segments = seen.n;
  const AttentionPlan plan = plan_attention(rows.inputs(), shape);
  args.n_parts = plan.n_parts;
  const int64_t row_floats = int64_t{args.n_segments} * shape.n_heads * (2 + shape.head_dim);
  const auto at_once =
      static_cast<int>(std::clamp<int64_t>(kPartialFloats / row_floats, 1, rows.count()));
  args.partials = launcher.take(Room::kParts, at_once * row_floats);
  for (args.row0 = 0; args.row0 < rows.count(); args.row0 += at_once) {
    const int n = std::min(at_once, rows.count() - args.row0);
    const StepRows::Groups groups = rows.groups(launcher, args.row0, n, plan.most_rows);
    args.groups = groups.first;
    launcher.launch(plan.kernel, args,
                    {args.n_segments, shape.n_kv_heads * plan.n_parts, groups.count},
                    kSegmentTokens);
    launcher.launch("merge_segments", args, {shape.n_heads, n}, kSegmentTokens);
  }
}

}  // namespace edge::gpu
