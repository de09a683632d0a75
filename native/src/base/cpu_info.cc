#include "base/cpu_info.h"

#if defined(__x86_64__) || defined(_M_X64)
#ifdef _MSC_VER
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#include <algorithm>
#include <cstdint>
#include <cstring>
#elif defined(__aarch64__) || defined(_M_ARM64)
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_WIN32)
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>
#endif
#endif

namespace edge {

#if defined(__x86_64__) || defined(_M_X64)
namespace {

struct Registers {
  uint32_t eax, ebx, ecx, edx;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
#ifdef _MSC_VER
  int r[4];
  __cpuidex(r, static_cast<int>(leaf), static_cast<int>(subleaf));
  return {static_cast<uint32_t>(r[0]), static_cast<uint32_t>(r[1]), static_cast<uint32_t>(r[2]),
          static_cast<uint32_t>(r[3])};
#else
  Registers r{};
  __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
  return r;
#endif
}

uint64_t os_saved_registers() {
#ifdef _MSC_VER
  return _xgetbv(0);
#else
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
#endif
}

constexpr bool has(uint32_t word, int bit) { return (word >> bit) & 1; }

CpuFeatures detect() {
  CpuFeatures features;
  const uint32_t max_leaf = cpuid(0, 0).eax;
  if (max_leaf < 1) return features;
  const Registers one = cpuid(1, 0);
  features.sse41 = has(one.ecx, 19) && has(one.ecx, 9);  // SSE4.1, SSSE3
  const bool os_uses_xsave = has(one.ecx, 27);
  if (max_leaf < 7 || !os_uses_xsave) return features;
  const uint64_t saved = os_saved_registers();
  const bool ymm_saved = (saved & 0x6) == 0x6;
  const bool zmm_saved = (saved & 0xE6) == 0xE6;
  const Registers seven = cpuid(7, 0);
  const bool avx_fma_f16c = has(one.ecx, 28) && has(one.ecx, 12) && has(one.ecx, 29);
  features.avx2 = ymm_saved && avx_fma_f16c && has(seven.ebx, 5) && has(seven.ebx, 8) &&
                  has(seven.ebx, 3);  // AVX2, BMI2, BMI1
  const bool avx512 = has(seven.ebx, 16) && has(seven.ebx, 17) && has(seven.ebx, 28) &&
                      has(seven.ebx, 30) && has(seven.ebx, 31);  // F, DQ, CD, BW, VL
  features.avx512bw = features.avx2 && zmm_saved && avx512;
  features.avx512vnni = features.avx512bw && has(seven.ecx, 11);
  features.avxvnni = features.avx2 && seven.eax >= 1 && has(cpuid(7, 1).eax, 4);
  return features;
}

// Leaves 0x80000002 to 0x80000004 have 16 characters each.
std::string detect_id() {
  static constexpr uint32_t kFirstLeaf = 0x80000002;
  if (cpuid(0x80000000, 0).eax < kFirstLeaf + 2) return "x86";
  char brand[48];
  for (uint32_t i = 0; i < 3; ++i) {
    const Registers r = cpuid(kFirstLeaf + i, 0);
    const uint32_t words[] = {r.eax, r.ebx, r.ecx, r.edx};
    std::memcpy(brand + 16 * i, words, sizeof words);
  }
  return {brand, std::find(brand, brand + sizeof brand, '\0')};
}

}  // namespace
#elif defined(__aarch64__) || defined(_M_ARM64)
namespace {

#if defined(__linux__)
// The values are the kernel's interface (asm/hwcap.h); older C libraries do not name all of them.
bool has_dot() { return (getauxval(AT_HWCAP) >> 20 & 1) != 0; }
bool has_i8mm() { return (getauxval(AT_HWCAP2) >> 13 & 1) != 0; }
#elif defined(__APPLE__)
bool has(const char* name) {
  int value = 0;
  size_t n_bytes = sizeof value;
  return sysctlbyname(name, &value, &n_bytes, nullptr, 0) == 0 && value != 0;
}
bool has_dot() { return has("hw.optional.arm.FEAT_DotProd"); }
bool has_i8mm() { return has("hw.optional.arm.FEAT_I8MM"); }
#elif defined(_WIN32)
// PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE and PF_ARM_V82_I8MM_INSTRUCTIONS_AVAILABLE; older SDKs lack
// the second name.
bool has_dot() { return IsProcessorFeaturePresent(43) != 0; }
bool has_i8mm() { return IsProcessorFeaturePresent(66) != 0; }
#else
bool has_dot() { return false; }
bool has_i8mm() { return false; }
#endif

CpuFeatures detect() {
  CpuFeatures features;
  features.neon = true;
  features.neon_dot = has_dot();
  features.neon_i8mm = features.neon_dot && has_i8mm();
  return features;
}

std::string detect_id() {
  return std::string("arm64") + (has_dot() ? " dot" : "") + (has_i8mm() ? " i8mm" : "");
}

}  // namespace
#else
namespace {
CpuFeatures detect() { return {}; }
std::string detect_id() { return "unknown"; }
}  // namespace
#endif

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

std::string cpu_id() { return detect_id(); }

}  // namespace edge
