// Which layers of a model have their weights on a device that has no room for all of them.
#pragma once

#include <span>
#include <vector>

#include "base/status.h"
#include "format/edge_file.h"

namespace edge {

struct LayerSplit {
  size_t n_host_layers = 0;  // the first ones
  std::vector<std::span<const std::byte>> on_device;
  size_t device_bytes = 0;
};

// Whole layers, the last ones, and the head, as many as `room` bytes have room for; everything
// where it does. kMemoryBudget if not even the head fits.
Result<LayerSplit> split_layers(const EdgeFile& file, size_t n_layers, bool has_tied_head,
                                size_t room);

}  // namespace edge
