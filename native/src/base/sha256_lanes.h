// Many SHA-256 at once: the internal seam between sha256.cc and its vector versions.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace edge {

extern const uint32_t kSha256Round[64];
constexpr int kMaxSha256Lanes = 16;

// Advances `n_lanes` states by n_blocks blocks of 64 bytes of their messages, in lockstep.
struct Sha256Lanes {
  int n_lanes;
  void (*compress)(uint32_t (*states)[8], const uint8_t* const* messages, size_t n_blocks);
};

#if defined(__GNUC__)
extern const Sha256Lanes kSha256Lanes4;  // SSE2 or NEON: the baseline
#if defined(__x86_64__)
extern const Sha256Lanes kSha256Lanes8;   // AVX2
extern const Sha256Lanes kSha256Lanes16;  // AVX-512
#endif
#endif

}  // namespace edge
