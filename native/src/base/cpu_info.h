// What this CPU and operating system can run. x86: CPUID bits, and XGETBV for whether the OS saves
// the registers. ARM: what the OS says, for the bits are not readable everywhere. Decides nothing;
// kernels/select.cc maps it to ISA levels.
#pragma once

#include <string>

namespace edge {

struct CpuFeatures {
  bool sse41 = false;       // SSE4.1 and SSSE3: what the x86-64-v2 baseline of this library needs
  bool avx2 = false;        // AVX2, FMA, F16C, BMI2, and the OS saves ymm registers
  bool avxvnni = false;     // AVX2 and the VEX forms of VNNI
  bool avx512bw = false;    // AVX-512 F, BW, VL, DQ and CD, and the OS saves zmm registers
  bool avx512vnni = false;  // AVX-512 BW and VNNI
  bool neon = false;        // NEON and FMA of armv8.0: what the ARM baseline needs
  bool neon_dot = false;    // also the int8 dot products, FEAT_DotProd
  bool neon_i8mm = false;   // also the int8 matrix multiplication, FEAT_I8MM
};
// Read once per process.
const CpuFeatures& cpu_features();
// What tells one kind of CPU from another, for what was measured on it: the brand of an x86 CPU,
// else the features.
std::string cpu_id();

}  // namespace edge
