// A hand-made Unigram blob with a charsmap: what it does, and that damage is refused or harmless.
#include <cstring>
#include <random>

#include "blob_parts.h"
#include "doctest/doctest.h"

namespace {

using edge::Code;
using edge::Tokenizer;
using namespace edge_test;

// Ids: 0 "<unk>", 1 "a" (-1), 2 "b" (-1), 3 "ab" (-2), 4 "aba" (-3.5), 5 "</s>" (0), which no text
// becomes. The charsmap makes "a" of "c".
std::map<uint32_t, std::string> sections() {
  const std::vector<std::string> tokens = {"<unk>", "a", "b", "ab", "aba", "</s>"};
  std::map<uint32_t, std::string> all;
  all[1] = pack({2, 0, 6, 0, 1, 0, 0, 16});
  Words offsets = {0};
  for (const std::string& token : tokens) {
    all[3] += token;
    offsets.push_back(static_cast<uint32_t>(all[3].size()));
  }
  all[2] = pack(offsets);
  all[4] = std::string("\1\0\0\0\0\1", 6);
  Words vocab(16, kNone);
  for (uint32_t id : {1u, 2u, 3u, 4u}) {
    uint64_t slot = hash_bytes(tokens[id]);
    while (vocab[slot & 15] != kNone) ++slot;
    vocab[slot & 15] = id;
  }
  all[5] = pack(vocab);
  all[7] = pack(Words(256, kNone));
  all[8] = std::string(0x1100 * 2, '\0');
  all[9] = std::string(256, '\0');
  all[10] = pack({0, 0});
  all[11] = pack({1, 8, 0, 0, 0});
  all[12] = pack({0});
  all[13] = pack({0, 0});
  all[14] = "";
  all[15] = pack({0, 0});
  all[16] = pack({2, 0, 0, 0, 0});
  all[18] = pack({1, 0, 1}) + std::string("a\0\0\0", 4) + pack({2, 1, 2, 2, kNone, 0}) +
            std::string("\0c\0\0", 4) + pack({1}) + std::string(0x1100 * 2 + 256, '\0');
  const float scores[] = {0.0F, -1.0F, -1.0F, -2.0F, -3.5F, 0.0F};
  const double unknown = -13.5;
  all[19] = pack({4, 0}) + std::string(reinterpret_cast<const char*>(&unknown), 8) +
            std::string(reinterpret_cast<const char*>(scores), sizeof(scores)) +
            pack({5, 1, 3, 4, 4, 5, 5, kNone, 1, 2, 3, 4}) + std::string("\0abba\0\0\0", 8);
  return all;
}

Code code_after(uint32_t section, size_t at, const std::string& bytes) {
  auto parts = sections();
  parts[section].replace(at, bytes.size(), bytes);
  const std::string blob = join(parts);
  return create(blob).status().code();
}

}  // namespace

TEST_CASE("a unigram blob takes the best path, ties to the token that begins earlier") {
  const std::string blob = join(sections());
  auto made = create(blob);
  REQUIRE_MESSAGE(made.is_ok(), made.status().message());
  const auto ids = [&](std::string_view text) { return made.value()->encode(text, {}).value(); };
  CHECK(ids("ab") == std::vector<int32_t>{3});          // -2 from the start against -1 after -1
  CHECK(ids("aba") == std::vector<int32_t>{3, 1});      // -3 against -3.5
  CHECK(ids("cb") == std::vector<int32_t>{3});          // through the charsmap
  CHECK(ids("axyb") == std::vector<int32_t>{1, 0, 2});  // unknown characters are fused
  CHECK(ids("</s>") == std::vector<int32_t>{0});
  CHECK(ids("").empty());
}

TEST_CASE("each damage to unigram tables has its refusal") {
  const std::string nan = "\xFF\xFF\xFF\xFF";
  CHECK(code_after(1, 0, pack({3})) == Code::kTokenizerUnsupported);   // kind
  CHECK(code_after(1, 12, pack({kNone})) == Code::kTokenizerInvalid);  // no unk
  CHECK(code_after(19, 0, pack({5})) == Code::kTokenizerInvalid);      // score width
  CHECK(code_after(19, 12, nan) == Code::kTokenizerInvalid);           // unknown's score
  CHECK(code_after(19, 20, nan) == Code::kTokenizerInvalid);           // a score
  CHECK(code_after(19, 40, pack({6})) == Code::kTokenizerInvalid);     // nodes
  CHECK(code_after(19, 44, pack({0})) == Code::kTokenizerInvalid);     // the root is its child
  CHECK(code_after(19, 48, pack({1})) == Code::kTokenizerInvalid);     // a cycle
  CHECK(code_after(19, 72, pack({6})) == Code::kTokenizerInvalid);     // id out of range
  CHECK(code_after(19, 72, pack({3})) == Code::kTokenizerInvalid);     // token at a wrong depth
  CHECK(code_after(19, 89, "b") == Code::kTokenizerInvalid);           // labels not sorted
  CHECK(code_after(18, 8, pack({9})) == Code::kTokenizerInvalid);      // text past the end
  CHECK(code_after(18, 12, "\xFF") == Code::kTokenizerInvalid);        // not UTF-8
  CHECK(code_after(18, 36, pack({1})) == Code::kTokenizerInvalid);     // replacement's number
  CHECK(code_after(18, 44, pack({0})) == Code::kTokenizerInvalid);     // blocks
  auto parts = sections();
  parts.erase(19);
  CHECK(create(join(parts)).status().code() == Code::kTokenizerInvalid);
}

TEST_CASE("mutated unigram blobs are refused or encode without harm") {
  std::mt19937 random(5);
  const auto below = [&](size_t n) { return random() % static_cast<unsigned>(n); };
  const std::string text = "abacab\xE4\xB8\x96</s>aaaa";
  size_t n_refused = 0;
  constexpr size_t kMutants = 20000;
  for (size_t i = 0; i < kMutants; ++i) {
    auto parts = sections();
    for (size_t n = below(3) + 1; n > 0; --n) {
      std::string& part = parts[below(2) == 0 ? 18 : 19];
      constexpr char kValues[] = {0, 1, 2, 'a', '\x7f', '\x80', '\xff'};
      part[below(below(2) == 0 ? 96 : part.size()) % part.size()] = kValues[below(7)];
    }
    const std::string blob = join(parts);
    auto made = create(blob);
    if (!made.is_ok() || !made.value()->encode(text, {}).is_ok()) ++n_refused;
  }
  CHECK(n_refused > kMutants / 10);
  CHECK(n_refused < kMutants);
}
