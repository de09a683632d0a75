// A hand-made normal form: decomposition, order, composition, Hangul, and refusal of damage.
#include "tokenizer/forms.h"

#include <cstring>

#include "doctest/doctest.h"

namespace {

using edge::Code;
using edge::Form;
using Words = std::vector<uint32_t>;

std::string pack(const Words& words) {
  return {reinterpret_cast<const char*>(words.data()), words.size() * 4};
}

void put_u16(std::string& out, size_t at, uint16_t value) {
  std::memcpy(out.data() + at * 2, &value, 2);
}

struct Parts {
  Words head = {1, 3, 6, 1, 3};  // composes, blocks, records, pairs, text bytes
  std::string index = std::string(0x1100 * 2, '\0');
  std::string blocks = std::string(3 * 512, '\0');
  // 0 inert, 1 U+00E9 = "e" U+0301, 2 class 230, 3 class 1, 4 a Hangul syllable, 5 a Hangul letter.
  std::string records =
      pack({0, 1u << 16, 0, 0x20003, 0, 230u << 8, 0, 1u << 8, 0, 4u << 16, 0, 0});
  std::string pairs = pack({'e', 0x301, 0xE9});
  std::string text = "e\xCC\x81";

  Parts() {
    put_u16(index, 0x03, 1);
    put_u16(index, 0xAC, 2);
    put_u16(blocks, 0xE9, 1);
    put_u16(blocks, 256 + 0x01, 2);
    put_u16(blocks, 256 + 0x34, 3);
    for (size_t i = 512; i < 768; ++i) put_u16(blocks, i, 4);
  }
  std::string bytes() const {
    return pack(head) + index + blocks + records + pairs + text + std::string(1, '\0');
  }
};

edge::Result<Form> create(const std::string& bytes) {
  edge::SectionReader reader(std::as_bytes(std::span(bytes.data(), bytes.size())));
  return Form::create(reader, "form");
}

Code code_of(const Parts& parts) {
  const std::string bytes = parts.bytes();
  return create(bytes).status().code();
}

}  // namespace

TEST_CASE("a hand-made form decomposes, orders and composes") {
  const std::string bytes = Parts().bytes();
  const auto made = create(bytes);
  REQUIRE_MESSAGE(made.is_ok(), made.status().message());
  const Form& form = made.value();
  CHECK(form.leaves_unchanged("plain"));
  CHECK_FALSE(form.leaves_unchanged("e\xCC\x81"));
  CHECK(form.apply("e\xCC\x81") == "\xC3\xA9");
  // U+0334 moves before U+0301 and does not block it.
  CHECK(form.apply("e\xCC\x81\xCC\xB4") == "\xC3\xA9\xCC\xB4");
  CHECK(form.apply("e\xCC\xB4\xCC\x81") == "\xC3\xA9\xCC\xB4");
  CHECK(form.apply("\xC3\xA9\xCC\x81") == "\xC3\xA9\xCC\x81");  // the second one is blocked
  CHECK(form.apply("\xCC\x81") == "\xCC\x81");
  CHECK(form.apply("\xEA\xB0\x81") == "\xEA\xB0\x81");  // U+AC01, to letters and back
  CHECK(form.apply("\xEA\xB0\x80\xE1\x86\xA8") == "\xEA\xB0\x81");
}

TEST_CASE("damaged forms are refused") {
  CHECK(code_of(Parts()) == Code::kOk);
  const auto changed = [](auto edit) {
    Parts parts;
    edit(parts);
    return code_of(parts);
  };
  for (const size_t word : {0u, 1u, 2u, 3u, 4u}) {
    CHECK(changed([&](Parts& p) { p.head[word] = 0xFFFFFF; }) == Code::kTokenizerInvalid);
  }
  CHECK(changed([](Parts& p) { p.head[2] = 0; }) == Code::kTokenizerInvalid);
  CHECK(changed([](Parts& p) { put_u16(p.index, 7, 3); }) == Code::kTokenizerInvalid);
  CHECK(changed([](Parts& p) { put_u16(p.blocks, 9, 6); }) == Code::kTokenizerInvalid);
  CHECK(changed([](Parts& p) { p.records[12] = 4; }) == Code::kTokenizerInvalid);
  CHECK(changed([](Parts& p) { p.records[6] = 8; }) == Code::kTokenizerInvalid);
  CHECK(changed([](Parts& p) { p.text[2] = 'x'; }) == Code::kTokenizerInvalid);
  CHECK(changed([](Parts& p) { p.pairs = pack({'e', 0x301, 0xD800}); }) == Code::kTokenizerInvalid);
  CHECK(changed([](Parts& p) {
          p.head[3] = 2;
          p.pairs += p.pairs;
        }) == Code::kTokenizerInvalid);
}

TEST_CASE("every truncation of a form is refused") {
  const std::string bytes = Parts().bytes();
  for (size_t n_bytes = 0; n_bytes < bytes.size(); n_bytes += 97) {
    const std::string part = bytes.substr(0, n_bytes);
    CHECK(create(part).status().code() == Code::kTokenizerInvalid);
  }
}
