#include <stddef.h>

#include "kernels/x86_avx512bw/vec16.h"
#include "probes/vec16_probe.h"

namespace edge {
namespace x86_avx512bw {
namespace {
#include "probes/vec16_probe.inl.h"
}  // namespace
}  // namespace x86_avx512bw

void probe_x86_avx512bw(const ProbeInput& in, ProbeOutput& out) { x86_avx512bw::probe(in, out); }

}  // namespace edge
