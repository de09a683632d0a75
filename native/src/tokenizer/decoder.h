// Ids -> text, one id at a time, as HF's decoders do it for a whole sequence. Knows the vocabulary,
// not the merges.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "tokenizer/blob.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocab.h"

namespace edge {

class Decoder {
 public:
  static Result<Decoder> create(const Sections& sections, bool byte_alphabet);
  Status step(const Vocab& vocab, DecodeState& state, uint32_t id, std::string& out) const;
  void finish(DecodeState& state, std::string& out) const;
  // What step() adds inside a text, before bytes are made characters.
  Result<std::string> token_bytes(const Vocab& vocab, uint32_t id) const;

 private:
  enum class Kind : uint32_t {
    kJoin = 0,       // token texts with a space between
    kBytes = 1,      // concatenated bytes, ill-formed parts as U+FFFD
    kPieces = 2,     // token texts through the replacements, byte tokens fused to characters
    kMetaspace = 3,  // token texts; the first one loses its meta characters
  };
  bool is_byte(const Vocab& vocab, uint32_t id) const;
  Result<std::string> replaced(std::string_view text, bool is_first) const;
  void push_byte(DecodeState& state, char byte, std::string& out) const;
  void end_run(DecodeState& state, std::string& out) const;
  void emit(DecodeState& state, std::string_view text, std::string& out) const;

  Kind kind_ = Kind::kJoin;
  bool byte_fallback_ = false;
  uint32_t strip_code_point_ = 0;
  uint32_t n_strip_ = 0;  // at most so many leading strip_code_point_ are dropped
  std::vector<std::pair<std::string_view, std::string_view>> replacements_;
};

}  // namespace edge
