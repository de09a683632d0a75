// Runs every operation of one ISA's vec16.h on given lanes, so that vec16_test.cc, which is
// compiled for the baseline, can compare ISAs.
#pragma once

#include <cstdint>

namespace edge {

constexpr int kMaxProbeRows = 96;

// Lanes as raw bits; `n` is for load_n and store_n.
struct ProbeInput {
  uint32_t a[16], b[16], c[16];
  uint8_t bytes[16];
  uint16_t halves[16];
  int n;
};
// One row per operation, unused lanes zero; NaN of any payload is stored as one value.
struct ProbeOutput {
  uint32_t row[kMaxProbeRows][16];
  const char* name[kMaxProbeRows];
  int n_rows;
};
using ProbeFn = void (*)(const ProbeInput& in, ProbeOutput& out);

void probe_scalar(const ProbeInput& in, ProbeOutput& out);
void probe_x86_sse41(const ProbeInput& in, ProbeOutput& out);
void probe_x86_avx2(const ProbeInput& in, ProbeOutput& out);
void probe_x86_avx512bw(const ProbeInput& in, ProbeOutput& out);
void probe_arm_neon(const ProbeInput& in, ProbeOutput& out);

}  // namespace edge
