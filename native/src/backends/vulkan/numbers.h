// Whether a device computes as IEEE 754 says, which is asked of it before it is used.
#pragma once

#include <span>
#include <vector>

#include "backends/vulkan/driver.h"

namespace edge::vulkan {

struct Triple {
  float a, b, c;
};
// fma(a, b, c), a / b and the root of |c|.
struct Numbers {
  float fma, quotient, root;
};
Numbers numbers_of(const Triple& x);
// By the kernel check_numbers.comp, of which `code` is one of the two. nudge: what divisions and
// roots are wrong by before they are put right, in units of 2^-22.
Result<std::vector<Numbers>> compute_numbers(std::span<const uint32_t> code, int32_t nudge,
                                             std::span<const Triple> triples);

// Sets `rounds_fma_once`. kDeviceUnavailable where neither way to compute fma has the CPU's bits.
Status check_numbers(Driver& driver);

}  // namespace edge::vulkan
