// What the emulated device must not let pass: bytes beyond a buffer, addresses of the host, and a
// barrier that does not order the device's memory.
#include "backends/metal/dialect.h"
#include "emulation/metal/mutants.h"

EDGE_KERNEL(sum_bytes, edge::metal::SumArgs, 32) {
  const edge::msl::At at = EDGE_AT;
  if (args.has_half_barrier) threadgroup_barrier(mem_flags::mem_threadgroup);
  if (at.index > 0) return;
  int sum = 0;
  for (int i = 0; i < args.n; ++i) sum += args.bytes[i];
  *args.sum = sum;
}

EDGE_EXPORT(sum_bytes)
