// acc + a quad of weights (16 rows x 4 unsigned bytes) times the quad of int8 activations at `a`.
#pragma once

#include <immintrin.h>

#include "base/inline.h"

namespace edge {
namespace {

// The activations are the broadcast memory operand: GCC 12 would spend an instruction and a
// register on them.
EDGE_INLINE __m512i dot_quad(__m512i acc, __m512i w, const int8_t* a) {
  using Quad = int32_t __attribute__((may_alias, aligned(1)));
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*reinterpret_cast<const Quad*>(a)));
  return acc;
}

}  // namespace
}  // namespace edge
