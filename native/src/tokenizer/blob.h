// The tokenizer blob: header, section directory and raw little-endian access (docs/TOKENIZER.md).
// Knows where sections are, not what they mean. Everything read here is hostile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace edge {

enum class SectionId : uint32_t {
  kModel = 1,
  kTokenOffsets = 2,
  kTokenBytes = 3,
  kTokenFlags = 4,
  kVocabTable = 5,
  kMergeTable = 6,
  kByteIds = 7,
  kClassIndex = 8,
  kClassBlocks = 9,
  kDfas = 10,
  kNormalizer = 11,
  kPreTokenizer = 12,
  kAdded = 13,
  kSpaces = 14,
  kPostProcessor = 15,
  kDecoder = 16,
  kForms = 17,     // only where the normalizer uses it
  kCharsmap = 18,  // likewise
  kUnigram = 19,   // in place of the merge table
};

constexpr SectionId kLastSection = SectionId::kUnigram;
constexpr uint32_t kBlobVersion = 1;
constexpr uint32_t kOptionalSections = 0x8000;  // ids from here on may be ignored

Status invalid_tokenizer(const std::string& what);
Status unsupported_tokenizer(const std::string& what);

// Replacements must not grow a text without bound: no real normalizer comes near this.
constexpr size_t max_grown_bytes(size_t n_bytes) { return n_bytes * 64 + 4096; }

// Sections may start at any address: every load goes through memcpy.
template <class T>
T load_le(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

// A read-only array of T inside the blob, of any alignment. Indices are the caller's promise.
template <class T>
class TableView {
 public:
  TableView() = default;
  explicit TableView(std::span<const std::byte> bytes)
      : data_(bytes.data()), size_(bytes.size() / sizeof(T)) {}
  T operator[](size_t i) const { return load_le<T>(data_ + i * sizeof(T)); }
  size_t size() const { return size_; }
  const std::byte* data() const { return data_; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

inline std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Reads a section front to back; a read past its end gives zeros and sets failed().
class SectionReader {
 public:
  explicit SectionReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  uint32_t u32();
  std::span<const std::byte> take(uint64_t n_bytes);
  void align4();
  uint64_t n_left() const { return bytes_.size() - offset_; }
  bool failed() const { return failed_; }
  bool at_end() const { return !failed_ && offset_ == bytes_.size(); }

 private:
  std::span<const std::byte> bytes_;
  size_t offset_ = 0;
  bool failed_ = false;
};

class Sections {
 public:
  static Result<Sections> parse(std::span<const std::byte> blob);
  bool has(SectionId id) const;
  // The bytes of a section; an absent section is kTokenizerInvalid.
  Result<std::span<const std::byte>> get(SectionId id, std::string_view name) const;
  // As get(), and the length must be exactly `n_bytes`.
  Result<std::span<const std::byte>> get_exact(SectionId id, std::string_view name,
                                               uint64_t n_bytes) const;

 private:
  struct Entry {
    uint32_t id;
    std::span<const std::byte> bytes;
  };
  std::vector<Entry> entries_;
};

}  // namespace edge
