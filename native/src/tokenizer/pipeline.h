// Normalizer and pre-tokenizer: small programs of string operations from the blob. Knows nothing of
// tokens; turns one segment of text into the pieces that BPE sees.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/forms.h"
#include "tokenizer/splitter.h"

namespace edge {

struct TextOp {
  enum class Kind : uint32_t {
    kPrepend = 1,        // put `a` in front of a text that is not empty
    kPrependUnless = 2,  // put `a` in front unless the text starts with `b`
    kReplace = 3,        // every `a` becomes `b`, left to right
    kSplit = 4,          // cut with DFA `argument & 0xFFFF`; bit 16 drops matches, bit 17 gaps
    kForm = 5,           // normal form `argument`
  };
  Kind kind;
  bool only_at_start = false;  // kPrependUnless: only a text that starts the whole input
  uint32_t dfa = 0;
  uint32_t form = 0;
  SplitBehavior behavior;
  std::string_view a;
  std::string_view b;
};

// Owns the strings that operations make; the views given out stay valid as long as it lives.
using TextArena = std::deque<std::string>;

Result<std::string> replace_all(std::string_view text, std::string_view from, std::string_view to);

class TextProgram {
 public:
  // One of `dfas` and `forms` is nullptr: splitting is for the pre-tokenizer, forms are for the
  // normalizer. The other must outlive this.
  static Result<TextProgram> create(std::span<const std::byte> section, std::string_view name,
                                    const DfaSet* dfas, const FormSet* forms);
  bool empty() const { return ops_.empty(); }
  // Replaces `pieces` by what the program makes of them. `at_start`: the first piece starts the
  // whole input.
  Status run(bool at_start, TextArena& arena, std::vector<std::string_view>& pieces) const;

 private:
  Status run_op(const TextOp& op, bool at_start, TextArena& arena,
                std::vector<std::string_view>& pieces) const;

  std::vector<TextOp> ops_;
  const DfaSet* dfas_ = nullptr;
  const FormSet* forms_ = nullptr;
};

}  // namespace edge
