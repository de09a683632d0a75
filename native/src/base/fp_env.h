// FpEnvScope: puts the floating-point control word into its default state (round to nearest, no
// flush-to-zero, no denormals-are-zero) for a scope and restores it after. Every API entry and pool
// thread holds one: a host application that sets FTZ must not change our bits.
#pragma once

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#else
#include <cfenv>
#endif

namespace edge {

class FpEnvScope {
 public:
#if defined(__x86_64__) || defined(_M_X64)
  FpEnvScope() : saved_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
  ~FpEnvScope() { _mm_setcsr(saved_); }
#elif defined(__aarch64__)
  FpEnvScope() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" : : "r"(0ull));
  }
  ~FpEnvScope() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }
#else
  FpEnvScope() {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~FpEnvScope() { std::fesetenv(&saved_); }
#endif
  FpEnvScope(const FpEnvScope&) = delete;
  FpEnvScope& operator=(const FpEnvScope&) = delete;

 private:
#if defined(__x86_64__) || defined(_M_X64)
  unsigned int saved_;
#elif defined(__aarch64__)
  unsigned long long saved_;
#else
  std::fenv_t saved_;
#endif
};

}  // namespace edge
