// EDGE_INLINE: how helpers that are compiled into per-ISA objects must be declared.
//
// Internal linkage and forced inlining: a plain `inline` function would leave one weak symbol that
// the linker may take from the object with the highest instruction set, and crash on a lesser CPU.
//
// EDGE_SMALL (a build option of single files) leaves inlining to the compiler, with internal
// linkage all the same.
//
// EDGE_COLD: such a helper for what hardly ever happens, out of line.
//
// EDGE_UNROLL before a loop over a small constant number of rows: left as a loop, the rows' sums
// would be an array in memory instead of registers.
//
// EDGE_PREFETCH(address) starts fetching a line into the cache, EDGE_PREFETCH_L2 only into the
// second level; any address is allowed.
//
// EDGE_CONSTANT before a constant of a namespace: in the Metal Shading Language it has an address
// space of its own.
//
// Compiled by nvcc, helpers are the host's and the device's.
#pragma once

#if defined(__METAL_VERSION__)
#define EDGE_CONSTANT constant constexpr
#else
#define EDGE_CONSTANT constexpr
#endif

#if defined(__CUDACC__)
#define EDGE_INLINE [[maybe_unused]] static inline __host__ __device__
#define EDGE_MEMBER_INLINE inline __host__ __device__
#define EDGE_COLD [[maybe_unused]] static
#define EDGE_UNROLL _Pragma("unroll")
#define EDGE_PREFETCH(address) static_cast<void>(address)
#define EDGE_PREFETCH_L2(address) static_cast<void>(address)
#elif defined(_MSC_VER) && !defined(__clang__)
#define EDGE_INLINE static __forceinline
#define EDGE_MEMBER_INLINE __forceinline
#define EDGE_COLD static __declspec(noinline)
#define EDGE_UNROLL
#define EDGE_PREFETCH(address) static_cast<void>(address)
#define EDGE_PREFETCH_L2(address) static_cast<void>(address)
#else
#if defined(EDGE_SMALL)
#define EDGE_INLINE [[maybe_unused]] static inline
#define EDGE_MEMBER_INLINE inline
#else
#define EDGE_INLINE static inline __attribute__((always_inline))
#define EDGE_MEMBER_INLINE inline __attribute__((always_inline))  // members of internal types
#endif
#define EDGE_COLD static __attribute__((noinline, cold, unused))
#define EDGE_PREFETCH(address) __builtin_prefetch(address)
#define EDGE_PREFETCH_L2(address) __builtin_prefetch(address, 0, 2)
#if defined(__clang__)
#define EDGE_UNROLL _Pragma("clang loop unroll(full)")
#else
#define EDGE_UNROLL _Pragma("GCC unroll 16")
#endif
#endif
