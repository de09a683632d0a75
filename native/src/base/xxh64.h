// XXH64 (the xxHash specification, version 0.2.0, seed 0): a 64-bit checksum at the speed of
// memory. It finds accidents, not forgeries: whoever can write a file can write its checksums, so
// where that matters a signature or a digest from elsewhere must stand over them (sha256.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace edge {

uint64_t xxh64(std::span<const std::byte> bytes);

}  // namespace edge
