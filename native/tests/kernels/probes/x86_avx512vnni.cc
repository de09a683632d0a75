#include <stddef.h>

#include "kernels/x86_avx512vnni/vec16.h"
#include "probes/vec16_probe.h"

namespace edge {
namespace x86_avx512vnni {
namespace {
#include "probes/vec16_probe.inl.h"
}  // namespace
}  // namespace x86_avx512vnni

void probe_x86_avx512vnni(const ProbeInput& in, ProbeOutput& out) {
  x86_avx512vnni::probe(in, out);
}

}  // namespace edge
