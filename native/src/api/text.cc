#include <string>

#include "api/guard.h"
#include "api/impl.h"

namespace edgellm {
namespace {

using edge::api::entry;
using edge::api::take_or_throw;

constexpr uint32_t kReplacement = 0xFFFD;

struct CodePoint {
  uint32_t value = kReplacement;
  size_t n_bytes = 1;
};

// The code point at the start of a non-empty text; U+FFFD of one byte where it is ill-formed.
CodePoint first_code_point(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(text[i])); };
  const uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const size_t n_bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < n_bytes) return {};
  uint32_t value = lead & (0x7Fu >> n_bytes);
  for (size_t i = 1; i < n_bytes; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {};
    value = value << 6 | (byte(i) & 0x3F);
  }
  const uint32_t least = n_bytes == 4 ? 0x10000 : n_bytes == 3 ? 0x800 : 0x80;
  if (value < least || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) return {};
  return {value, n_bytes};
}

// What stands for a code point on a terminal; mirrors edgellm/sanitize.py.
uint32_t visible(uint32_t c) {
  if (c == '\n' || c == '\t') return c;
  if (c < 0x20) return 0x2400 + c;  // control pictures
  if (c == 0x7F) return 0x2421;
  const bool is_hidden = (c >= 0x80 && c <= 0x9F) || c == 0x061C || c == 0x200E || c == 0x200F ||
                         (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x206F) ||
                         c == 0xFEFF;
  return is_hidden ? kReplacement : c;
}

void append_utf8(uint32_t c, std::string& out) {
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

}  // namespace

Tokenizer Tokenizer::from_blob(std::string blob) {
  return entry([&] {
    const auto impl = std::make_shared<Impl>();
    impl->bytes = std::move(blob);
    impl->tokenizer = take_or_throw(edge::Tokenizer::create(std::as_bytes(std::span(impl->bytes))));
    return Tokenizer(impl);
  });
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool special, bool bos) const {
  return entry([&] {
    return take_or_throw(impl_->tokenizer->encode(text, {.special = special, .bos = bos}));
  });
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool special) const {
  return entry([&] { return take_or_throw(impl_->tokenizer->decode(ids, special)); });
}

std::string Tokenizer::token_bytes(int32_t id) const {
  return entry([&] { return take_or_throw(impl_->tokenizer->token_bytes(id)); });
}

std::string Tokenizer::token_text(int32_t id) const {
  return entry([&] { return take_or_throw(impl_->tokenizer->token_text(id)); });
}

bool Tokenizer::is_special(int32_t id) const { return impl_->tokenizer->is_special(id); }
int32_t Tokenizer::n_vocab() const { return impl_->tokenizer->n_vocab(); }

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool special) {
  entry([&] {
    impl_ = std::make_shared<Impl>(
        Impl{tokenizer.impl(), edge::StreamDecoder(*tokenizer.impl()->tokenizer, special)});
  });
}

std::string StreamDecoder::push(int32_t id) {
  return entry([&] { return take_or_throw(impl_->decoder.push(id)); });
}

std::string StreamDecoder::flush() {
  return entry([&] { return impl_->decoder.flush(); });
}

std::string sanitize(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const CodePoint c = first_code_point(text);
    append_utf8(visible(c.value), out);
    text.remove_prefix(c.n_bytes);
  }
  return out;
}

}  // namespace edgellm
