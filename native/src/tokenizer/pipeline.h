// Normalizer and pre-tokenizer: small programs of string operations from the blob. Knows nothing of
// tokens; turns one segment of text into the pieces that BPE sees.
#pragma once

#include <cstdint>
#include <forward_list>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/charsmap.h"
#include "tokenizer/forms.h"
#include "tokenizer/spaces.h"
#include "tokenizer/splitter.h"

namespace edge {

struct TextOp {
  enum class Kind : uint32_t {
    kPrepend = 1,         // put `a` in front of a text that is not empty
    kPrependUnless = 2,   // put `a` in front unless the text starts with `b`
    kReplace = 3,         // every `a` becomes `b`, left to right
    kSplit = 4,           // cut with DFA `argument & 0xFFFF`; bit 16 drops matches, bit 17 gaps
    kForm = 5,            // normal form `argument`
    kReplaceMatches = 6,  // every match of DFA `argument` becomes `a`
    kStrip = 7,           // take white space away: bit 0 at the start, bit 1 at the end
    kCharsmap = 8,        // the precompiled normalization
  };
  Kind kind;
  bool only_at_start = false;  // kPrependUnless: only a text that starts the whole input
  uint32_t dfa = 0;
  uint32_t form = 0;
  bool strips_start = false;
  bool strips_end = false;
  SplitBehavior behavior;
  std::string_view a;
  std::string_view b;
};

// Owns the strings that operations make; the views given out stay valid as long as it lives.
using TextArena = std::forward_list<std::string>;  // an empty one allocates nothing

Result<std::string> replace_all(std::string_view text, std::string_view from, std::string_view to);

// What operations refer to; must outlive the programs.
struct TextTables {
  const DfaSet* dfas = nullptr;
  const FormSet* forms = nullptr;
  const Charsmap* charsmap = nullptr;
  const SpaceSet* spaces = nullptr;
};

class TextProgram {
 public:
  // `splits`: whether it may cut texts (the pre-tokenizer) or only rewrite them (the normalizer).
  static Result<TextProgram> create(std::span<const std::byte> section, std::string_view name,
                                    const TextTables& tables, bool splits);
  bool empty() const { return ops_.empty(); }
  // Replaces `pieces` by what the program makes of them. `at_start`: the first piece starts the
  // whole input.
  Status run(bool at_start, TextArena& arena, std::vector<std::string_view>& pieces) const;

 private:
  Status run_op(const TextOp& op, bool at_start, TextArena& arena,
                std::vector<std::string_view>& pieces) const;
  // What `op` makes of one text; a text that it leaves alone is returned as it is.
  Result<std::string_view> rewrite(const TextOp& op, std::string_view text, bool at_start,
                                   TextArena& arena) const;
  std::string_view strip(const TextOp& op, std::string_view text) const;

  std::vector<TextOp> ops_;
  TextTables tables_;
};

}  // namespace edge
