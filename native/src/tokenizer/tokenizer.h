// Tokenizer: text <-> ids from the tables that the converter compiled into the file (blob
// "tokenizer"; byte layout in docs/TOKENIZER.md). BPE, byte-level or SentencePiece style with byte
// fallback, and Unigram; the pre-tokenizer regex is a DFA over code point classes. Knows nothing of
// models.
//
// The blob is hostile input: create() validates every table before use. Thread-safe after create();
// the blob must outlive the Tokenizer (it lives in the mapped file).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace edge {

struct EncodeOptions {
  bool special = false;  // true: special-token strings in the text become special ids
  bool bos = true;       // add what the model's post-processor adds (usually BOS in front)
};

// Where an incremental decode stands. Owned by the caller; start with a fresh one.
struct DecodeState {
  std::string pending;           // bytes whose text is not certain yet
  uint64_t n_tokens = 0;         // tokens seen, without those left out
  uint32_t n_strip_checked = 0;  // leading characters that were looked at for stripping
  bool strip_done = false;
  bool bad_run = false;  // the current run of byte tokens cannot become UTF-8
};

class Tokenizer {
 public:
  static Result<std::unique_ptr<Tokenizer>> create(std::span<const std::byte> blob);
  virtual ~Tokenizer() = default;

  // `text` must be valid UTF-8 (kInvalidUtf8 otherwise, with the byte offset).
  virtual Result<std::vector<int32_t>> encode(std::string_view text,
                                              const EncodeOptions& options) const = 0;
  // Whole-sequence decode, equal to HF's decode(skip_special_tokens=!special). Ill-formed bytes
  // become U+FFFD. Ids out of range are kTokenOutOfRange.
  virtual Result<std::string> decode(std::span<const int32_t> ids, bool special) const = 0;
  // One step of decode(): appends the text that became certain to `out`. decode() is these two.
  virtual Status decode_step(DecodeState& state, int32_t id, bool special,
                             std::string& out) const = 0;
  virtual void decode_finish(DecodeState& state, std::string& out) const = 0;
  virtual int32_t n_vocab() const = 0;
  virtual bool is_special(int32_t id) const = 0;
  // The token as the vocabulary spells it ("<0x0A>", byte-level stand-ins as UTF-8), for
  // inspection.
  virtual Result<std::string> token_text(int32_t id) const = 0;
  // What the token adds to a text, not at its beginning; half a character of a byte token.
  virtual Result<std::string> token_bytes(int32_t id) const = 0;
};

// Incremental decode: push ids one at a time, get text that is complete UTF-8. The concatenation of
// all pieces plus flush() equals Tokenizer::decode of all ids.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool special);
  Result<std::string> push(int32_t id);
  std::string flush();  // what is still incomplete, as U+FFFD

 private:
  const Tokenizer* tokenizer_;
  bool special_;
  DecodeState state_;
};

}  // namespace edge
