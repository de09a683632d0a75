// A model whose first layers run on the host because the device's memory is short: what goes to
// which of two backends. They share memory, and sums are the same on both, so nothing but the time
// depends on where the border is.
#pragma once

#include <memory>

#include "backends/backend.h"

namespace edge {

// `device` and what it calls the host, which lives as long. Nothing runs on the host before
// set_host_layers().
std::unique_ptr<Backend> create_split_backend(std::unique_ptr<Backend> device, Backend& host);

}  // namespace edge
