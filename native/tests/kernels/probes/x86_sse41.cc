#include <stddef.h>

#include "kernels/x86_sse41/vec16.h"
#include "probes/vec16_probe.h"

namespace edge {
namespace x86_sse41 {
namespace {
#include "probes/vec16_probe.inl.h"
}  // namespace
}  // namespace x86_sse41

void probe_x86_sse41(const ProbeInput& in, ProbeOutput& out) { x86_sse41::probe(in, out); }

}  // namespace edge
