// Hand-made blobs: what a valid one does and that each kind of damage has its own refusal.
#include "tokenizer/tokenizer.h"

#include <cstring>
#include <map>

#include "blob_parts.h"
#include "doctest/doctest.h"

namespace {

using edge::Code;
using edge::Tokenizer;
using namespace edge_test;

// Ids: 0 "a", 1 "b", 2 "ab", 3 "abb", 4 "<s>" (special), 5 "c". Merges: a+b, then ab+b. The DFA
// cuts runs of "a" and "b" (class 1) from everything else (class 0).
std::map<uint32_t, std::string> sections() {
  const std::vector<std::string> tokens = {"a", "b", "ab", "abb", "<s>", "c"};
  std::map<uint32_t, std::string> all;
  all[1] = pack({1, 1, 6, kNone, 0, 2, 4, 16});
  Words offsets = {0};
  for (const std::string& token : tokens) {
    all[3] += token;
    offsets.push_back(static_cast<uint32_t>(all[3].size()));
  }
  all[2] = pack(offsets);
  all[4] = std::string("\0\0\2\0\1\0", 6);
  Words vocab(16, kNone);
  for (uint32_t id : {0u, 1u, 2u, 3u, 5u}) {
    uint64_t slot = hash_bytes(tokens[id]);
    while (vocab[slot & 15] != kNone) ++slot;
    vocab[slot & 15] = id;
  }
  all[5] = pack(vocab);
  Words merges(16, 0);
  for (size_t slot = 0; slot < 4; ++slot) merges[slot * 4] = kNone;
  const uint32_t rules[2][4] = {{0, 1, 0, 2}, {2, 1, 1, 3}};
  for (const auto& rule : rules) {
    uint64_t slot = ((uint64_t{rule[0]} << 32 | rule[1]) * 0x9E3779B97F4A7C15ull) >> 62;
    while (merges[(slot & 3) * 4] != kNone) ++slot;
    std::memcpy(&merges[(slot & 3) * 4], rule, sizeof(rule));
  }
  all[6] = pack(merges);
  Words bytes(256, kNone);
  bytes['a'] = 0;
  bytes['b'] = 1;
  bytes['c'] = 5;
  all[7] = pack(bytes);
  for (uint32_t block = 0; block < 0x1100; ++block) put_u16(all[8], block == 0 ? 0 : 1);
  all[9] = std::string(512, '\0');
  all[9]['a'] = all[9]['b'] = 1;
  all[10] = pack({1, 2, 3});
  // Rows dead, start, inside; columns class 0, class 1, end of text. 0x8000 = a match ends here.
  for (uint32_t entry : {0u, 0u, 0u, 0u, 2u, 0u, 0x8000u, 2u, 0x8000u}) put_u16(all[10], entry);
  all[10] += std::string(2, '\0');
  all[11] = pack({0});
  all[12] = pack({1, 4, 0, 0, 0});
  all[13] = pack({1, 0, 0, 3, 4, 1}) + "<s>";
  all[14] = "";
  all[15] = pack({1, 0, 4});
  all[16] = pack({1, 0, 0, 0, 0});
  return all;
}

Code code_after(uint32_t section, const std::string& bytes) {
  auto parts = sections();
  parts[section] = bytes;
  const std::string blob = join(parts);
  return create(blob).status().code();
}

}  // namespace

TEST_CASE("a hand-made blob encodes, decodes and streams") {
  const std::string blob = join(sections());
  auto made = create(blob);
  REQUIRE_MESSAGE(made.is_ok(), made.status().message());
  const Tokenizer& tokenizer = *made.value();
  const auto ids = [&](std::string_view text, bool special, bool bos) {
    return tokenizer.encode(text, {special, bos}).value();
  };
  CHECK(ids("abbcab", false, true) == std::vector<int32_t>{4, 3, 5, 2});
  CHECK(ids("aab", false, false) == std::vector<int32_t>{0, 2});
  CHECK(ids("<s>ab", true, false) == std::vector<int32_t>{4, 2});
  CHECK(ids("<s>ab", false, false) == std::vector<int32_t>{2});  // "<", "s", ">" are no tokens
  CHECK(tokenizer.decode(std::vector<int32_t>{4, 3, 5}, false).value() == "abbc");
  CHECK(tokenizer.decode(std::vector<int32_t>{4, 3, 5}, true).value() == "<s>abbc");
  CHECK(tokenizer.decode(std::vector<int32_t>{6}, true).status().code() == Code::kTokenOutOfRange);
  CHECK(tokenizer.encode("a\xFF", {}).status().code() == Code::kInvalidUtf8);
  edge::StreamDecoder stream(tokenizer, true);
  CHECK(stream.push(3).value() == "abb");
  CHECK(stream.push(-1).status().code() == Code::kTokenOutOfRange);
  CHECK(stream.flush().empty());
}

TEST_CASE("long pieces merge as short ones do") {
  const std::string blob = join(sections());
  auto made = create(blob);
  REQUIRE(made.is_ok());
  std::string text;
  std::vector<int32_t> expected;
  for (int i = 0; i < 200; ++i) {
    text += "aabb";
    expected.insert(expected.end(), {0, 3});
  }
  CHECK(made.value()->encode(text, {false, false}).value() == expected);
}

TEST_CASE("damaged tables are refused") {
  const auto valid = sections();
  const auto changed = [&](uint32_t section, size_t word, uint32_t value) {
    std::string bytes = valid.at(section);
    std::memcpy(bytes.data() + word * 4, &value, 4);
    return code_after(section, bytes);
  };
  CHECK(changed(1, 0, 2) == Code::kTokenizerUnsupported);               // a later model kind
  CHECK(changed(1, 2, 7) == Code::kTokenizerInvalid);                   // more tokens than offsets
  CHECK(changed(1, 6, 65) == Code::kTokenizerInvalid);                  // unbounded probing
  CHECK(changed(2, 3, 1) == Code::kTokenizerInvalid);                   // offsets go backwards
  CHECK(changed(5, 0, 6) == Code::kTokenizerInvalid);                   // id out of range
  CHECK(code_after(5, pack(Words(16, 0))) == Code::kTokenizerInvalid);  // no empty slot
  CHECK(code_after(5, pack(Words(12, kNone))) == Code::kTokenizerInvalid);
  CHECK(code_after(6, pack(Words(16, 0))) == Code::kTokenizerInvalid);
  CHECK(code_after(6, pack(Words(12, kNone))) == Code::kTokenizerInvalid);
  CHECK(code_after(6, pack({0, 1, 0, 6, kNone, 0, 0, 0})) == Code::kTokenizerInvalid);
  CHECK(changed(7, 'a', 6) == Code::kTokenizerInvalid);
  CHECK(code_after(9, std::string(512, '\2')) == Code::kTokenizerInvalid);
  CHECK(changed(8, 0, 2) == Code::kTokenizerInvalid);       // block out of range
  CHECK(changed(10, 3, 3) == Code::kTokenizerInvalid);      // transition out of range
  CHECK(changed(12, 2, 1) == Code::kTokenizerInvalid);      // unknown DFA
  CHECK(changed(12, 1, 9) == Code::kTokenizerUnsupported);  // unknown operation
  CHECK(changed(13, 4, 6) == Code::kTokenizerInvalid);      // added id out of range
  CHECK(changed(15, 2, 6) == Code::kTokenizerInvalid);
  CHECK(changed(16, 0, 2) == Code::kTokenizerInvalid);  // decoder of the other alphabet
}

TEST_CASE("every truncation of a blob is refused") {
  const std::string blob = join(sections());
  for (size_t n_bytes = 0; n_bytes < blob.size(); n_bytes += n_bytes < 1024 ? 1 : 37) {
    CHECK_FALSE(create(blob.substr(0, n_bytes)).is_ok());
  }
}

TEST_CASE("a missing section is named") {
  for (uint32_t id = 1; id <= 16; ++id) {
    auto parts = sections();
    parts.erase(id);
    const std::string blob = join(parts);
    const auto made = create(blob);
    CHECK(made.status().code() == Code::kTokenizerInvalid);
    CHECK(made.status().message().find("is missing") != std::string::npos);
  }
}

TEST_CASE("a blob from a later version is refused as unsupported") {
  std::string blob = join(sections());
  blob[8] = 2;
  CHECK(create(blob).status().code() == Code::kTokenizerUnsupported);
  blob[8] = 1;
  blob[24] = 1;
  CHECK(create(blob).status().code() == Code::kTokenizerUnsupported);
}

TEST_CASE("a pre-tokenizer that rereads the text from every start is stopped") {
  auto parts = sections();
  parts[10] = pack({1, 2, 3});
  // Never a match, and never dead inside "aaa...": quadratic without the step budget.
  for (uint32_t entry : {0u, 0u, 0u, 0u, 2u, 0u, 0u, 2u, 0u}) put_u16(parts[10], entry);
  parts[10] += std::string(2, '\0');
  const std::string blob = join(parts);
  auto made = create(blob);
  REQUIRE(made.is_ok());
  const std::string text(200000, 'a');
  CHECK(made.value()->encode(text, {}).status().code() == Code::kTokenizerInvalid);
}
