// The shape of R16 tiles. Plain constants: included by ISA objects, which may hold no STL.
#pragma once

#include <stddef.h>

namespace edge {

constexpr int kTileRows = 16;
constexpr int kTileK = 32;
constexpr size_t kStripHeaderBytes = kTileRows * sizeof(float);  // d_row[16]

}  // namespace edge
