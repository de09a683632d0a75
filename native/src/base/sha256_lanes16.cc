#if defined(__GNUC__) && defined(__x86_64__)
#include <stdint.h>
#include <string.h>

#include "base/sha256_lanes.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,prefer-vector-width=512")
#define EDGE_SHA256_LANES 16

namespace edge {
namespace {
#include "base/sha256_lanes.inl.h"
}  // namespace
#pragma GCC pop_options

const Sha256Lanes kSha256Lanes16 = {EDGE_SHA256_LANES, compress_lanes};

}  // namespace edge
#endif
