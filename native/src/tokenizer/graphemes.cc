#include "tokenizer/graphemes.h"

#include "tokenizer/utf8.h"

namespace edge {

namespace {

constexpr size_t kIndexEntries = (kMaxCodePoint + 1) / 256;
constexpr uint32_t kZeroWidthJoiner = 0x200D;
enum Bit : uint8_t {
  kControl = 1,          // stands alone
  kAttach = 2,           // belongs to what is before it: Extend, ZWJ, SpacingMark
  kPrepend = 4,          // belongs to what is after it
  kPictograph = 8,       // Extended_Pictographic
  kConsonant = 16,       // Indic_Conjunct_Break=Consonant
  kExtend = 32,          // of kAttach: may stand between a pictograph and a ZWJ
  kConjunctExtend = 64,  // of kAttach: may stand inside a conjunct
  kLinker = 128,         // of kAttach: joins consonants
};

enum class Hangul : uint8_t { kNone, kL, kV, kT, kLv, kLvt };

Hangul hangul_of(uint32_t c) {
  if (c < 0x1100 || c > 0xD7FB) return Hangul::kNone;
  if (c <= 0x115F || (c >= 0xA960 && c <= 0xA97C)) return Hangul::kL;
  if (c <= 0x11A7 || (c >= 0xD7B0 && c <= 0xD7C6)) return Hangul::kV;
  if (c <= 0x11FF || c >= 0xD7CB) return Hangul::kT;
  if (c < 0xAC00 || c > 0xD7A3) return Hangul::kNone;
  return (c - 0xAC00) % 28 == 0 ? Hangul::kLv : Hangul::kLvt;
}

bool hangul_joins(Hangul left, Hangul right) {
  switch (left) {
    case Hangul::kL:
      return right != Hangul::kNone && right != Hangul::kT;
    case Hangul::kLv:
    case Hangul::kV:
      return right == Hangul::kV || right == Hangul::kT;
    case Hangul::kLvt:
    case Hangul::kT:
      return right == Hangul::kT;
    case Hangul::kNone:
      return false;
  }
  return false;
}

}  // namespace

Result<Graphemes> Graphemes::create(SectionReader& reader, const std::string& where) {
  const uint32_t n_blocks = reader.u32();
  if (reader.failed() || n_blocks == 0 || n_blocks > kIndexEntries) {
    return invalid_tokenizer(where + ": number of blocks is out of range");
  }
  Graphemes graphemes;
  graphemes.index_ = TableView<uint16_t>(reader.take(kIndexEntries * 2));
  graphemes.blocks_ = TableView<uint8_t>(reader.take(uint64_t{n_blocks} * 256));
  if (reader.failed()) return invalid_tokenizer(where + " is cut short");
  for (size_t i = 0; i < kIndexEntries; ++i) {
    if (graphemes.index_[i] >= n_blocks) return invalid_tokenizer(where + ": block out of range");
  }
  return graphemes;
}

// Pairs of regional indicators are left as two clusters: both halves are too long for anyone who
// asks about short clusters to see a difference.
size_t Graphemes::cluster_end(std::string_view text, size_t begin) const {
  size_t end = begin;
  uint32_t left = utf8_next(text, end);
  if (left == '\r' && end < text.size() && text[end] == '\n') return end + 1;
  uint8_t left_bits = bits(left);
  bool in_emoji = (left_bits & kPictograph) != 0;    // pictograph Extend*
  bool in_conjunct = (left_bits & kConsonant) != 0;  // consonant (ConjunctExtend | Linker)*
  bool linked = false;                               // with a linker in it
  bool joined_emoji = false;                         // ... ZWJ
  while (end < text.size() && (left_bits & kControl) == 0) {
    size_t after = end;
    const uint32_t right = utf8_next(text, after);
    const uint8_t right_bits = bits(right);
    if ((right_bits & kControl) != 0) break;
    const bool joins = (right_bits & kAttach) != 0 || (left_bits & kPrepend) != 0 ||
                       hangul_joins(hangul_of(left), hangul_of(right)) ||
                       (linked && (right_bits & kConsonant) != 0) ||
                       (joined_emoji && (right_bits & kPictograph) != 0);
    if (!joins) break;
    joined_emoji = in_emoji && right == kZeroWidthJoiner;
    in_emoji = (in_emoji && !joined_emoji && (right_bits & kExtend) != 0) ||
               (right_bits & kPictograph) != 0;
    const bool conjunct = in_conjunct && (right_bits & (kConjunctExtend | kLinker)) != 0;
    linked = conjunct && (linked || (right_bits & kLinker) != 0);
    in_conjunct = conjunct || (right_bits & kConsonant) != 0;
    left = right;
    left_bits = right_bits;
    end = after;
  }
  return end;
}

}  // namespace edge
