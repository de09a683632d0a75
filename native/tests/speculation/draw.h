// Random numbers that are the same on every machine. Test code only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace edge::test {

class Draw {
 public:
  explicit Draw(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ULL + 1) {}
  uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_ * 0x2545f4914f6cdd1dULL >> 16;
  }
  int32_t below(int32_t n) { return static_cast<int32_t>(next() % static_cast<uint64_t>(n)); }
  double unit() { return static_cast<double>(next() % 1000003) / 1000003.0; }
  std::vector<int32_t> text(size_t n_tokens, int32_t n_vocab) {
    std::vector<int32_t> ids(n_tokens);
    for (int32_t& id : ids) id = below(n_vocab);
    return ids;
  }

 private:
  uint64_t state_;
};

}  // namespace edge::test
