#include <stddef.h>

#include "kernels/arm_neon/vec16.h"
#include "probes/vec16_probe.h"

namespace edge {
namespace arm_neon {
namespace {
#include "probes/vec16_probe.inl.h"
}  // namespace
}  // namespace arm_neon

void probe_arm_neon(const ProbeInput& in, ProbeOutput& out) { arm_neon::probe(in, out); }

}  // namespace edge
