// FpEnvScope on the modes that a host application may have set.
#include "base/fp_env.h"

#include <cfloat>

#include "doctest/doctest.h"

namespace edge {
namespace {

#if defined(__x86_64__) || defined(_M_X64)
void set_hostile_mode() { _mm_setcsr(0x1F80 | 0x8040 | 0x6000); }  // flush to zero, truncate
void set_default_mode() { _mm_setcsr(0x1F80); }
#elif defined(__aarch64__)
void set_mode(unsigned long long fpcr) { asm volatile("msr fpcr, %0" : : "r"(fpcr)); }
void set_hostile_mode() { set_mode(1ull << 24 | 3ull << 22); }  // flush to zero, truncate
void set_default_mode() { set_mode(0); }
#else
void set_hostile_mode() { std::fesetround(FE_TOWARDZERO); }
void set_default_mode() { std::fesetenv(FE_DFL_ENV); }
#endif

// Computed at run time, in the mode of the moment.
float half_of(float x) {
  volatile float value = x;
  volatile float half = 0.5f;
  return value * half;
}
bool rounds_to_nearest() {
  volatile float one = 1.0f;
  volatile float more = 0.75f * FLT_EPSILON;
  return one + more > 1.0f;
}

TEST_CASE("the scope computes in the default mode and gives the host's mode back") {
  set_hostile_mode();
  const bool host_rounds = rounds_to_nearest();
  const float host_half = half_of(FLT_MIN);
  bool scope_rounds = false;
  float scope_half = 0;
  {
    const FpEnvScope scope;
    scope_rounds = rounds_to_nearest();
    scope_half = half_of(FLT_MIN);
  }
  const bool host_rounds_after = rounds_to_nearest();
  const float host_half_after = half_of(FLT_MIN);
  set_default_mode();
  CHECK_FALSE(host_rounds);
  CHECK(scope_rounds);
  CHECK_FALSE(host_rounds_after);
  CHECK(scope_half == 0x1p-127f);
  CHECK(host_half_after == host_half);
}

}  // namespace
}  // namespace edge
