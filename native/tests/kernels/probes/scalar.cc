#include <stddef.h>

#include "kernels/scalar/vec16.h"
#include "probes/vec16_probe.h"

namespace edge {
namespace scalar {
namespace {
#include "probes/vec16_probe.inl.h"
}  // namespace
}  // namespace scalar

void probe_scalar(const ProbeInput& in, ProbeOutput& out) { scalar::probe(in, out); }

}  // namespace edge
