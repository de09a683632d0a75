// Deterministic damage to a valid `.edge` file.
//
// Knows the container well enough to damage one rule at a time and to repair the header hash, so
// that the rule is reached. Knows nothing of what the tensors mean.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/os.h"

namespace edge::fuzz {

// What an open of the mutant must do. Only bytes that are not covered by a repaired hash may be
// changed to another valid file.
enum class Expect : uint8_t {
  kRefused,  // any typed error
  kTyped,    // success or any typed error: a resealed header may still describe a valid file
};

// Called for every mutant; the bytes are 64-byte aligned and valid during the call only.
using Visit =
    std::function<void(const std::string& what, std::span<const std::byte> mutant, Expect expect)>;

// Every mutation of `seed`, a whole valid file. n_random: how many random bit flips in the data,
// and how many random edits of the header. The same arguments give the same mutants.
void for_each_mutation(std::string_view seed, uint64_t n_random, uint64_t rng_seed,
                       const Visit& visit);

// Length and header, padded to data_start with blanks, with a right header hash if there is one.
std::string seal(std::string header, size_t data_start);
size_t round_up_to_page(size_t n_bytes);

}  // namespace edge::fuzz
