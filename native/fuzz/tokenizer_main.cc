// edge_mutate_tokenizer SEED N [--seed S]: creates a tokenizer from N damaged copies of a tokenizer
// blob, alone or in a `.edge` file, and uses the ones that are accepted: encodes, decodes, streams.
// Exits with 1 if one fails untyped or hangs; the sanitizers see the rest.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "base/os.h"
#include "format/edge_file.h"
#include "rng.h"
#include "tokenizer/tokenizer.h"

namespace {

using edge::Code;
using edge::Result;
using edge::Status;
using edge::Tokenizer;
using edge::fuzz::Rng;

constexpr size_t kHeaderBytes = 32;
constexpr size_t kEntryBytes = 24;
constexpr size_t kHeadBytes = 64;  // of a section: its counts
constexpr int kMaxMs = 20000;      // a hang, also on a busy machine
// Scripts, marks, controls, spaces, special tokens and a word too long for any table.
const std::string kText =
    "the quick brown fox, 12345 don't\n\n <s></s><|im_start|> \t  "
    "\u00e9\u0301\u0323 \u1112\u1161\u11ab \ufb01 \u4f60\u597d\u3000\u0e01\u0e33 \u0645\u0631 "
    "\U0001f468\u200d\U0001f469 \u2581\u2581a \x01\x7f" +
    std::string(100, 'a');

std::string read_blob(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with("EDGETOKN")) return std::string(text);
  auto file = edge::EdgeFile::from_bytes(bytes, "seed");
  if (!file.is_ok()) return {};
  const edge::TensorEntry* entry = file.value()->find("tokenizer");
  if (entry == nullptr) return {};
  return {reinterpret_cast<const char*>(entry->tensor.data), entry->tensor.n_bytes};
}

uint64_t load_u64(const std::string& blob, size_t at) {
  uint64_t value;
  std::memcpy(&value, blob.data() + at, sizeof(value));
  return value;
}

class Damage {
 public:
  explicit Damage(const std::string& blob) : directory_end_(kHeaderBytes) {
    const size_t n_sections = static_cast<uint8_t>(blob[12]);
    directory_end_ += n_sections * kEntryBytes;
    for (size_t i = 0; i < n_sections; ++i) {
      heads_.push_back(static_cast<size_t>(load_u64(blob, kHeaderBytes + i * kEntryBytes + 8)));
    }
  }

  void apply(std::string& blob, Rng& rng) const {
    constexpr size_t kEdits[] = {1, 1, 1, 3, 8};
    for (size_t edits = kEdits[rng.below(5)]; edits > 0; --edits) edit(blob, rng);
    if (rng.below(12) == 0) blob.resize(rng.below(blob.size()));
  }

 private:
  size_t place(size_t n_bytes, Rng& rng) const {
    const size_t kind = rng.below(8);
    if (kind == 0) return rng.below(directory_end_);
    if (kind < 5) return heads_[rng.below(heads_.size())] + rng.below(kHeadBytes);
    return rng.below(n_bytes);
  }

  void edit(std::string& blob, Rng& rng) const {
    const size_t at = place(blob.size(), rng);
    if (at + 4 > blob.size()) return;
    if (rng.below(3) == 0) {  // a whole word: a count, an id, an offset
      uint32_t word;
      std::memcpy(&word, blob.data() + at / 4 * 4, 4);
      const uint32_t words[] = {0, 1, word + 1, word - 1, word * 2, 0x7FFFFFFF, 0xFFFFFFFF};
      std::memcpy(blob.data() + at / 4 * 4, &words[rng.below(7)], 4);
      return;
    }
    const uint8_t old = static_cast<uint8_t>(blob[at]);
    const uint8_t bytes[] = {0,    1,    0x7F,
                             0x80, 0xFF, static_cast<uint8_t>(old ^ (1u << rng.below(8)))};
    blob[at] = static_cast<char>(bytes[rng.below(6)]);
  }

  size_t directory_end_;
  std::vector<size_t> heads_;
};

Status use(const Tokenizer& tokenizer) {
  for (const bool special : {false, true}) {
    EDGE_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer.encode(kText, {special, true}));
    EDGE_RETURN_IF_ERROR(tokenizer.decode(ids, special).status());
  }
  edge::StreamDecoder stream(tokenizer, true);
  for (int32_t id = 0; id < std::min(tokenizer.n_vocab(), 600); ++id) {
    EDGE_RETURN_IF_ERROR(stream.push(id).status());
    EDGE_RETURN_IF_ERROR(tokenizer.token_text(id).status());
  }
  static_cast<void>(stream.flush());
  return {};
}

// An allocation of exactly these bytes, so that AddressSanitizer sees a read past them.
Status create_and_use(const std::string& mutant) {
  const std::vector<char> bytes(mutant.begin(), mutant.end());
  EDGE_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                        Tokenizer::create(std::as_bytes(std::span(bytes))));
  return use(*tokenizer);
}

bool is_input_error(Code code) {
  return code == Code::kTokenizerInvalid || code == Code::kTokenizerUnsupported;
}

}  // namespace

int main(int argc, char** argv) {
  const bool has_seed = argc == 5 && std::strcmp(argv[3], "--seed") == 0;
  if (argc != 3 && !has_seed) {
    std::fprintf(stderr, "usage: edge_mutate_tokenizer SEED N [--seed S]\n");
    return 2;
  }
  auto file = edge::MappedFile::open(argv[1]);
  const std::string blob = file.is_ok() ? read_blob(file.value().bytes()) : std::string();
  if (blob.empty() || !create_and_use(blob).is_ok()) {
    std::fprintf(stderr, "%s: no tokenizer that works\n", argv[1]);
    return 2;
  }
  const Damage damage(blob);
  Rng rng(has_seed ? std::strtoull(argv[4], nullptr, 10) : 1);
  std::map<std::string, uint64_t> by_code;
  uint64_t n_failed = 0;
  double slowest_ms = 0;
  const uint64_t n_mutants = std::strtoull(argv[2], nullptr, 10);
  for (uint64_t n = 0; n < n_mutants; ++n) {
    std::string mutant = blob;
    damage.apply(mutant, rng);
    const int64_t start_ns = edge::monotonic_ns();
    const Status status = create_and_use(mutant);
    const double ms = static_cast<double>(edge::monotonic_ns() - start_ns) * 1e-6;
    slowest_ms = std::max(slowest_ms, ms);
    const bool typed =
        status.is_ok() || (is_input_error(status.code()) && !status.message().empty());
    if (!typed || ms > kMaxMs) {
      ++n_failed;
      std::fprintf(stderr, "FAILED mutant %llu: %s, %.1f ms\n", static_cast<unsigned long long>(n),
                   std::string(edge::code_name(status.code())).c_str(), ms);
    }
    ++by_code[status.is_ok() ? "works" : std::string(edge::code_name(status.code()))];
  }
  for (const auto& [code, count] : by_code) {
    std::printf("%10llu  %s\n", static_cast<unsigned long long>(count), code.c_str());
  }
  std::printf("slowest %.1f ms, %llu failed\n", slowest_ms,
              static_cast<unsigned long long>(n_failed));
  return n_failed == 0 && n_mutants > 0 ? 0 : 1;
}
