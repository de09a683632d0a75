// Echoes: whether a text says again what it, or another one of the model, said before, for some
// nanoseconds a token and without any of the texts: the hashes of four tokens in a row that were
// heard lately. It says that drafting might pay, not what to draft. For one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace edge {

class Echoes {
 public:
  static constexpr size_t kTokens = 4;  // in a row

  // The last n_new of `tokens` are new. Returns how many of the newest have, each with the three
  // before it, been heard before; `streak` is what it returned for the tokens before these.
  int hear(std::span<const int32_t> tokens, size_t n_new, int streak);
  static constexpr size_t kMemoryBytes = size_t{128} << 10;

 private:
  static constexpr size_t kSlots = kMemoryBytes / sizeof(uint16_t);

  std::vector<uint16_t> marks_ = std::vector<uint16_t>(kSlots);  // 0: nothing was heard
};

}  // namespace edge
