// Every backend that is emulated.
#pragma once

#include "backends/backend.h"

namespace edge::test {

struct Emulated {
  const char* name;
  std::unique_ptr<Backend> (*make)();
};
std::unique_ptr<Backend> emulated_cuda();
std::unique_ptr<Backend> emulated_metal();
constexpr Emulated kEmulated[] = {{"cuda", emulated_cuda}, {"metal", emulated_metal}};

}  // namespace edge::test
