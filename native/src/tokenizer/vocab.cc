#include "tokenizer/vocab.h"

#include <bit>

#include "tokenizer/utf8.h"

namespace edge {

namespace {

// FNV-1a, 64 bits, with its high half folded in: the table takes low bits.
uint64_t hash_bytes(std::string_view key) {
  uint64_t hash = 0xCBF29CE484222325ull;
  for (const char c : key) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3ull;
  return hash ^ hash >> 32;
}

// The first of 0 .. n_items - 1 that `is_bad` (1 or 0), or `n_items`. Tables have 100,000s of items
// in the order of hashes: branches on each would take most of the time of a load.
template <class F>
size_t first_bad(size_t n_items, F&& is_bad) {
  uint32_t any = 0;
  for (size_t i = 0; i < n_items; ++i) any |= is_bad(i);
  if (any == 0) return n_items;
  size_t i = 0;
  while (is_bad(i) == 0) ++i;
  return i;
}

Status check_offsets(const TableView<uint32_t>& offsets, std::string_view bytes,
                     bool text_is_utf8) {
  if (offsets[0] != 0 || offsets[offsets.size() - 1] != bytes.size()) {
    return invalid_tokenizer("token offsets do not cover the token bytes");
  }
  // The last one is the number of bytes, so that none of an ascending row is past the end.
  const size_t n_tokens = offsets.size() - 1;
  const size_t backwards =
      first_bad(n_tokens, [&](size_t i) { return uint32_t{offsets[i + 1] < offsets[i]}; });
  if (backwards != n_tokens) {
    return invalid_tokenizer("offset of token " + std::to_string(backwards + 1) +
                             " goes backwards");
  }
  if (!text_is_utf8) return Status::ok();
  if (utf8_invalid_at(bytes) != std::string_view::npos) {
    return invalid_tokenizer("token text is not UTF-8");
  }
  for (size_t i = 0; i < offsets.size(); ++i) {
    if (offsets[i] < bytes.size() && (static_cast<uint8_t>(bytes[offsets[i]]) & 0xC0) == 0x80) {
      return invalid_tokenizer("token " + std::to_string(i) + " starts inside a character");
    }
  }
  return Status::ok();
}

bool is_hex(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f');
}

Status check_flags(const Vocab& vocab) {
  constexpr uint8_t kKnown =
      kTokenSpecial | kTokenWhole | kTokenByte | kTokenLiteral | kTokenAbsent;
  for (uint32_t id = 0; id < vocab.n_tokens(); ++id) {
    const uint8_t flags = vocab.flags(id);
    if ((flags & ~kKnown) != 0) {
      return invalid_tokenizer("token " + std::to_string(id) + " has unknown flags");
    }
    if ((flags & kTokenByte) == 0) continue;
    const std::string_view text = vocab.bytes(id);
    if (text.size() != 6 || !text.starts_with("<0x") || !is_hex(text[3]) || !is_hex(text[4]) ||
        text[5] != '>') {
      return invalid_tokenizer("byte token " + std::to_string(id) + " is not spelt <0xNN>");
    }
  }
  return Status::ok();
}

}  // namespace

Result<Vocab> Vocab::create(const Sections& sections, uint32_t n_vocab, uint32_t max_probes,
                            bool text_is_utf8) {
  Vocab vocab;
  vocab.n_tokens_ = n_vocab;
  vocab.max_probes_ = max_probes;
  EDGE_ASSIGN_OR_RETURN(const auto offsets,
                        sections.get_exact(SectionId::kTokenOffsets, "token offsets",
                                           (uint64_t{n_vocab} + 1) * sizeof(uint32_t)));
  vocab.offsets_ = TableView<uint32_t>(offsets);
  EDGE_ASSIGN_OR_RETURN(const auto bytes, sections.get(SectionId::kTokenBytes, "token bytes"));
  vocab.bytes_ = as_text(bytes);
  EDGE_ASSIGN_OR_RETURN(const auto flags,
                        sections.get_exact(SectionId::kTokenFlags, "token flags", n_vocab));
  vocab.flags_ = TableView<uint8_t>(flags);
  EDGE_RETURN_IF_ERROR(check_offsets(vocab.offsets_, vocab.bytes_, text_is_utf8));
  EDGE_RETURN_IF_ERROR(check_flags(vocab));

  EDGE_ASSIGN_OR_RETURN(const auto table, sections.get(SectionId::kVocabTable, "vocab table"));
  vocab.table_ = TableView<uint32_t>(table);
  if (table.size() % sizeof(uint32_t) != 0 || !std::has_single_bit(vocab.table_.size())) {
    return invalid_tokenizer("vocab table size is not a power of two");
  }
  vocab.table_mask_ = vocab.table_.size() - 1;
  uint32_t has_empty = 0;
  const size_t bad_slot = first_bad(vocab.table_.size(), [&](size_t slot) {
    const uint32_t id = vocab.table_[slot];
    const uint32_t is_empty = id == kNoId;
    has_empty |= is_empty;
    return uint32_t{id >= n_vocab} & ~is_empty;
  });
  if (bad_slot != vocab.table_.size()) {
    return invalid_tokenizer("vocab table slot " + std::to_string(bad_slot) + " is out of range");
  }
  if (has_empty == 0) return invalid_tokenizer("vocab table has no empty slot");
  return vocab;
}

uint32_t Vocab::find(std::string_view key) const {
  uint64_t slot = hash_bytes(key);
  for (uint32_t probe = 0; probe < max_probes_; ++probe, ++slot) {
    const uint32_t id = table_[slot & table_mask_];
    if (id == kNoId) break;
    if (bytes(id) == key) return id;
  }
  return kNoId;
}

Result<MergeTable> MergeTable::create(const Sections& sections, uint32_t n_vocab,
                                      uint32_t max_probes) {
  EDGE_ASSIGN_OR_RETURN(const auto bytes, sections.get(SectionId::kMergeTable, "merge table"));
  const uint64_t n_slots = bytes.size() / kSlotBytes;
  if (bytes.size() % kSlotBytes != 0 || n_slots < 2 || !std::has_single_bit(n_slots)) {
    return invalid_tokenizer("merge table size is not a power of two");
  }
  MergeTable table;
  table.slots_ = bytes.data();
  table.mask_ = n_slots - 1;
  table.shift_ = 64u - static_cast<uint32_t>(std::countr_zero(n_slots));
  table.max_probes_ = max_probes;
  uint32_t has_empty = 0;
  const size_t bad_slot = first_bad(n_slots, [&](size_t slot) {
    const std::byte* at = bytes.data() + slot * kSlotBytes;
    const uint32_t left = load_le<uint32_t>(at);
    const uint32_t is_empty = left == kNoId;
    has_empty |= is_empty;
    return (uint32_t{left >= n_vocab} | uint32_t{load_le<uint32_t>(at + 4) >= n_vocab} |
            uint32_t{load_le<uint32_t>(at + 8) == kNoId} |
            uint32_t{load_le<uint32_t>(at + 12) >= n_vocab}) &
           ~is_empty;
  });
  if (bad_slot != n_slots) {
    return invalid_tokenizer("merge table slot " + std::to_string(bad_slot) + " is out of range");
  }
  if (has_empty == 0) return invalid_tokenizer("merge table has no empty slot");
  return table;
}

}  // namespace edge
