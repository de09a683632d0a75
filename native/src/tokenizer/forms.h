// Normal forms: code point mappings, canonical ordering and composition, from tables in the blob
// (NFC, NFD, NFKC, NFKD, lower case). Knows Unicode's algorithm, not its data.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/blob.h"

namespace edge {

class Form {
 public:
  // Reads one form and checks every table of it.
  static Result<Form> create(SectionReader& reader, const std::string& where);
  // True if no code point of `text` (well-formed UTF-8) can change or move.
  bool leaves_unchanged(std::string_view text) const;
  std::string apply(std::string_view text) const;

 private:
  struct Record {
    uint32_t offset;
    uint32_t n_bytes;
    uint8_t combining_class;
    uint8_t flags;
  };
  struct Mark {
    uint32_t code_point;
    uint32_t combining_class;
  };
  Status check_records(const std::string& where) const;
  Status check_pairs(const std::string& where) const;
  Record record_of(uint32_t code_point) const;
  Record record_at(size_t i) const;
  void decompose(std::string_view text, std::vector<Mark>& out) const;
  void compose(std::vector<Mark>& marks) const;
  uint32_t composite(uint32_t first, uint32_t second) const;  // 0 = the two do not compose

  bool composes_ = false;
  TableView<uint16_t> index_;   // [0x1100] block of each 256 code points
  TableView<uint16_t> blocks_;  // [n_blocks * 256] record of a code point
  std::span<const std::byte> records_;
  TableView<uint32_t> pairs_;  // [n_pairs][3] first, second, composite; ascending
  std::string_view texts_;
};

class FormSet {
 public:
  // The section is optional: without it the set is empty.
  static Result<FormSet> create(const Sections& sections);
  size_t size() const { return forms_.size(); }
  const Form& operator[](size_t i) const { return forms_[i]; }

 private:
  std::vector<Form> forms_;
};

}  // namespace edge
