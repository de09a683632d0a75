#include "tokenizer/utf8.h"

#include "doctest/doctest.h"

namespace {

using edge::append_lossy;
using edge::utf8_invalid_at;

std::string lossy(std::string_view bytes) {
  std::string out;
  append_lossy(out, bytes, true);
  return out;
}

}  // namespace

TEST_CASE("every code point survives encoding, validation and decoding") {
  for (uint32_t code_point = 0; code_point <= edge::kMaxCodePoint; ++code_point) {
    if (code_point >= 0xD800 && code_point < 0xE000) continue;
    std::string text;
    edge::append_utf8(text, code_point);
    REQUIRE(utf8_invalid_at(text) == std::string_view::npos);
    size_t offset = 0;
    REQUIRE(edge::utf8_next(text, offset) == code_point);
    REQUIRE(offset == text.size());
    REQUIRE(edge::utf8_previous(text, text.size()) == 0);
  }
}

TEST_CASE("ill-formed UTF-8 is found at its offset") {
  CHECK(utf8_invalid_at("0123456789\xFF") == 10);
  CHECK(utf8_invalid_at("ab\xC0\x80") == 2);                 // overlong
  CHECK(utf8_invalid_at("\xE0\x9F\xBF") == 0);               // overlong
  CHECK(utf8_invalid_at("\xED\xA0\x80") == 0);               // surrogate
  CHECK(utf8_invalid_at("\xF4\x90\x80\x80") == 0);           // above U+10FFFF
  CHECK(utf8_invalid_at("abcdefgh\xE4\xBD\xA0\xE5") == 11);  // cut short
  CHECK(utf8_invalid_at("") == std::string_view::npos);
}

TEST_CASE("lossy conversion replaces maximal subparts, as Rust does") {
  CHECK(lossy("a\xFF"
              "b") ==
        "a\xEF\xBF\xBD"
        "b");
  CHECK(lossy("\xE4\xBD") == "\xEF\xBF\xBD");
  CHECK(lossy("\xE4\xBD"
              "x") ==
        "\xEF\xBF\xBD"
        "x");
  CHECK(lossy("\xED\xA0\x80") == "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  CHECK(lossy("\xF0\x9F\x98\x80") == "\xF0\x9F\x98\x80");
}

TEST_CASE("an incomplete character waits unless the text is final") {
  std::string out;
  CHECK(append_lossy(out, "a\xF0\x9F\x98", false) == 1);
  CHECK(out == "a");
  CHECK(append_lossy(out, "\xF0\x9F\x98", true) == 3);
  CHECK(out == "a\xEF\xBF\xBD");
}
