// What this CPU and operating system can run: CPUID bits, and XGETBV for whether the OS saves the
// registers. Decides nothing; kernels/select.cc maps it to ISA levels.
#pragma once

namespace edge {

struct CpuFeatures {
  bool sse41 = false;       // SSE4.1 and SSSE3: what the x86-64-v2 baseline of this library needs
  bool avx2 = false;        // AVX2, FMA, F16C, BMI2, and the OS saves ymm registers
  bool avx512vnni = false;  // AVX-512 F, BW, VL, DQ, CD and VNNI, and the OS saves zmm registers
};
// Read once per process.
const CpuFeatures& cpu_features();

}  // namespace edge
