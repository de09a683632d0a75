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
std::unique_ptr<Backend> emulated_cuda_fp8();  // not in the list: it has not the CPU's bits
constexpr Emulated kEmulated[] = {{"cuda", emulated_cuda}, {"metal", emulated_metal}};

}  // namespace edge::test
