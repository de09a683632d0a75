// UTF-8: validation, decoding and the lossy conversion that HF (Rust) uses. Knows nothing of
// tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace edge {

constexpr uint32_t kMaxCodePoint = 0x10FFFF;

// One step over a byte string. For kBad and kIncomplete n_bytes is the maximal subpart (Unicode
// 3.9): the bytes that together become one U+FFFD.
struct Utf8Step {
  enum class Kind : uint8_t { kOk, kBad, kIncomplete };
  Kind kind;
  uint32_t n_bytes;
};
Utf8Step utf8_step(std::string_view bytes);  // `bytes` must not be empty

// Offset of the first byte that is not well-formed UTF-8; npos if there is none.
size_t utf8_invalid_at(std::string_view text);

// Code point at `offset` of well-formed text; adds its length to `offset`.
inline uint32_t utf8_next(std::string_view text, size_t& offset) {
  const auto at = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(text[i])); };
  const uint32_t lead = at(offset);
  if (lead < 0x80) {
    offset += 1;
    return lead;
  }
  if (lead < 0xE0) {
    offset += 2;
    return (lead & 0x1F) << 6 | (at(offset - 1) & 0x3F);
  }
  if (lead < 0xF0) {
    offset += 3;
    return (lead & 0x0F) << 12 | (at(offset - 2) & 0x3F) << 6 | (at(offset - 1) & 0x3F);
  }
  offset += 4;
  return (lead & 0x07) << 18 | (at(offset - 3) & 0x3F) << 12 | (at(offset - 2) & 0x3F) << 6 |
         (at(offset - 1) & 0x3F);
}

// Start of the code point that ends at `end` (> 0) of well-formed text.
size_t utf8_previous(std::string_view text, size_t end);

void append_utf8(std::string& out, uint32_t code_point);

// Appends `bytes` with ill-formed parts as U+FFFD. Unless `final`, an incomplete last character is
// left out. Returns the number of bytes consumed.
size_t append_lossy(std::string& out, std::string_view bytes, bool final);

}  // namespace edge
