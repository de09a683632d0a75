// Vocabulary and merges, used in place in the blob. Knows lookups, not the order of merging.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "tokenizer/blob.h"

namespace edge {

enum TokenFlag : uint8_t {
  kTokenSpecial = 1,  // left out by decode(special=false)
  kTokenWhole = 2,    // a piece equal to this token encodes to exactly this id
  kTokenByte = 4,     // "<0xNN>": one byte for the byte-fallback decoder
  kTokenLiteral = 8,  // byte alphabet: spelt as it stands, not through the byte-to-character map
  kTokenAbsent = 16,  // a hole in the ids: decodes to nothing
};

constexpr uint32_t kMaxProbes = 64;
constexpr uint32_t kNoId = UINT32_MAX;

class Vocab {
 public:
  // `text_is_utf8`: tokens must be well-formed UTF-8 one by one (character alphabet).
  static Result<Vocab> create(const Sections& sections, uint32_t n_vocab, uint32_t max_probes,
                              bool text_is_utf8);

  uint32_t n_tokens() const { return n_tokens_; }
  uint8_t flags(uint32_t id) const { return static_cast<uint8_t>(flags_[id]); }
  std::string_view bytes(uint32_t id) const {
    const uint32_t begin = offsets_[id];
    return bytes_.substr(begin, offsets_[size_t{id} + 1] - begin);
  }
  // Id of the model token with these bytes, or kNoId. Tokens that exist only as added tokens are
  // not found.
  uint32_t find(std::string_view key) const;

 private:
  uint32_t n_tokens_ = 0;
  uint32_t max_probes_ = 0;
  uint64_t table_mask_ = 0;
  TableView<uint32_t> offsets_;  // [n_tokens + 1] into bytes_
  TableView<uint32_t> table_;    // [power of two], open addressing, kNoId = empty
  std::string_view bytes_;
  TableView<uint8_t> flags_;  // [n_tokens] of TokenFlag
};

struct Merge {
  uint32_t rank = kNoId;  // lower merges first; kNoId = the pair does not merge
  uint32_t id = 0;
};

class MergeTable {
 public:
  static Result<MergeTable> create(const Sections& sections, uint32_t n_vocab, uint32_t max_probes);

  Merge find(uint32_t left, uint32_t right) const {
    uint64_t slot = hash(left, right) >> shift_;
    for (uint32_t probe = 0; probe < max_probes_; ++probe) {
      const std::byte* at = slots_ + (slot & mask_) * kSlotBytes;
      const uint32_t slot_left = load_le<uint32_t>(at);
      if (slot_left == left && load_le<uint32_t>(at + 4) == right) {
        return {load_le<uint32_t>(at + 8), load_le<uint32_t>(at + 12)};
      }
      if (slot_left == kNoId) break;
      ++slot;
    }
    return {};
  }

 private:
  static constexpr size_t kSlotBytes = 16;  // u32 left, right, rank, merged id
  static uint64_t hash(uint32_t left, uint32_t right) {
    return (uint64_t{left} << 32 | right) * 0x9E3779B97F4A7C15ull;
  }

  const std::byte* slots_ = nullptr;
  uint64_t mask_ = 0;
  uint32_t shift_ = 63;  // 64 - log2(number of slots)
  uint32_t max_probes_ = 0;
};

}  // namespace edge
