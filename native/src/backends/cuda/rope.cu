// The angles that heads turn by, which need f64.
#include "backends/cuda/dialect.h"
#include "backends/gpu/lane.inl.h"

namespace EDGE_DEVICE {
#include "kernels/generic/cos_sin.inl.h"
}  // namespace EDGE_DEVICE

using namespace EDGE_DEVICE;

EDGE_KERNEL(rope_table, RopeArgs, kElementThreads) {
  const At at = EDGE_AT;
  const int i = at.x * kElementThreads + at.index;
  if (i >= args.n_angles) return;
  const float position = static_cast<float>(args.rows.rows[at.y].position);
  const CosSin value = cos_sin(position * args.inv_freq[i]);
  args.cos[at.y * args.n_angles + i] = value.cos * args.factor;
  args.sin[at.y * args.n_angles + i] = value.sin * args.factor;
}

EDGE_EXPORT(rope_table)
