// The one entry that every fuzzer and mutation goes through: bytes in, Status out.
#pragma once

#include <span>

#include "base/status.h"

namespace edge::fuzz {

// Opens `bytes` (64-byte aligned) as a `.edge` file, verifies all of it and loads what it holds.
// Whatever a load of a model reads from a file belongs in here, so that it is fuzzed as well.
Status open_all(std::span<const std::byte> bytes);

}  // namespace edge::fuzz
