#if defined(__GNUC__)
#include <stdint.h>
#include <string.h>

#include "base/sha256_lanes.h"

#define EDGE_SHA256_LANES 4

namespace edge {
namespace {
#include "base/sha256_lanes.inl.h"
}  // namespace

const Sha256Lanes kSha256Lanes4 = {EDGE_SHA256_LANES, compress_lanes};

}  // namespace edge
#endif
