// What CUDA C++ has no words for: the only inline PTX. For the CPU, tests/emulation/cuda has the
// same names. PTX ISA 8, "Warp-level matrix instructions" and "cp.async".
//
// Copies run beside the thread that begins them: what they bring is there once that thread has
// waited, and for the others behind a barrier after that.
#pragma once

#include "backends/cuda/dialect.h"

#if defined(__CUDACC__)
namespace edge::cuda {

// Whether this code is for a chip that multiplies 8-bit floats.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 890
constexpr bool kHasFp8 = false;
#else
constexpr bool kHasFp8 = true;
#endif

EDGE_FN uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// n bytes, 4, 8 or 16, to which both addresses are aligned; from global to shared memory.
template <int n>
EDGE_FN void copy_async(void* to, const void* from) {
  if constexpr (n == 16) {  // past the first cache
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared_address(to)), "l"(from),
                 "n"(n)
                 : "memory");
  }
}
// For all copies of this thread.
EDGE_FN void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Matrices of 8 rows of 16 bytes: lane l < 8 * n gives the address of row l % 8 of matrix l / 8,
// and gets word l % 4 of row l / 4 of each.
EDGE_FN void load_matrices(uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}
EDGE_FN void load_matrices(uint32_t (&to)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(to[0]), "=r"(to[1])
               : "r"(shared_address(row))
               : "memory");
}

// d = start + a b of int8, a being 16 x 32, or 16 x 16 where it is two words, and b as long x 8.
// Lane l has of a the rows l / 4 and l / 4 + 8, of b the column l / 4, and of d those rows' columns
// 2 (l % 4) and the next.
EDGE_FN void multiply_add(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], int start) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%10, %10, %10, %10};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(start));
}
EDGE_FN void multiply_add(int (&d)[4], const uint32_t (&a)[2], uint32_t b, int start) {
  asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
      "{%7, %7, %7, %7};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b), "r"(start));
}
// d += a b of E4M3, 16 x 32 and 32 x 8, which stand as int8 do above.
EDGE_FN void multiply_add_fp8(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// The nearest E4M3, ties to even, at most 448, of `low` in bits 0 to 7 and of `high` above.
EDGE_FN uint32_t fp8_pair(float low, float high) {
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
  return pair;
}

}  // namespace edge::cuda
#else
#include <ptx_on_cpu.h>
#endif
