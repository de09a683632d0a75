#include "tokenizer/utf8.h"

#include <bit>
#include <cstring>

namespace edge {

namespace {
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
}  // namespace

Utf8Step utf8_step(std::string_view bytes) {
  using Kind = Utf8Step::Kind;
  const auto at = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = at(0);
  if (lead < 0x80) return {Kind::kOk, 1};
  uint32_t n_tail = 0;
  // Bounds of the second byte: they exclude overlong forms, surrogates and > U+10FFFF.
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    n_tail = 1;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    n_tail = 2;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    n_tail = 3;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {Kind::kBad, 1};
  }
  for (uint32_t i = 1; i <= n_tail; ++i) {
    if (i >= bytes.size()) return {Kind::kIncomplete, i};
    if (at(i) < low || at(i) > high) return {Kind::kBad, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Kind::kOk, n_tail + 1};
}

size_t utf8_invalid_at(std::string_view text) {
  size_t offset = 0;
  while (offset < text.size()) {
    while (offset + 8 <= text.size()) {
      uint64_t word;
      std::memcpy(&word, text.data() + offset, 8);
      if ((word & 0x8080808080808080ull) != 0) break;
      offset += 8;
    }
    if (offset >= text.size()) break;
    const Utf8Step step = utf8_step(text.substr(offset));
    if (step.kind != Utf8Step::Kind::kOk) return offset;
    offset += step.n_bytes;
  }
  return std::string_view::npos;
}

size_t utf8_previous(std::string_view text, size_t end) {
  size_t start = end - 1;
  while (start > 0 && (static_cast<uint8_t>(text[start]) & 0xC0) == 0x80) --start;
  return start;
}

void append_utf8(std::string& out, uint32_t code_point) {
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

size_t append_lossy(std::string& out, std::string_view bytes, bool final) {
  size_t offset = 0;
  while (offset < bytes.size()) {
    const Utf8Step step = utf8_step(bytes.substr(offset));
    if (step.kind == Utf8Step::Kind::kOk) {
      out.append(bytes.substr(offset, step.n_bytes));
    } else if (step.kind == Utf8Step::Kind::kIncomplete && !final) {
      break;
    } else {
      out.append(kReplacement);
    }
    offset += step.n_bytes;
  }
  return offset;
}

}  // namespace edge
