#include <stddef.h>

#include "kernels/x86_avx2/vec16.h"
#include "probes/vec16_probe.h"

namespace edge {
namespace x86_avx2 {
namespace {
#include "probes/vec16_probe.inl.h"
}  // namespace
}  // namespace x86_avx2

void probe_x86_avx2(const ProbeInput& in, ProbeOutput& out) { x86_avx2::probe(in, out); }

}  // namespace edge
