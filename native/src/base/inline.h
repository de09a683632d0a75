// EDGE_INLINE: how helpers that are compiled into per-ISA objects must be declared.
//
// Internal linkage and forced inlining: a plain `inline` function would leave one weak symbol that
// the linker may take from the object with the highest instruction set, and crash on a lesser CPU.
#pragma once

#if defined(_MSC_VER) && !defined(__clang__)
#define EDGE_INLINE static __forceinline
#define EDGE_MEMBER_INLINE __forceinline
#else
#define EDGE_INLINE static inline __attribute__((always_inline))
#define EDGE_MEMBER_INLINE inline __attribute__((always_inline))  // members of internal types
#endif
