#include "tokenizer/decoder.h"

#include "tokenizer/pipeline.h"
#include "tokenizer/utf8.h"

namespace edge {

namespace {

constexpr uint32_t kMaxReplacements = 8;
constexpr uint32_t kMaxLiteralBytes = 64;
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

uint32_t hex_value(char c) {
  if (c >= '0' && c <= '9') return static_cast<uint32_t>(c - '0');
  return static_cast<uint32_t>((c | 0x20) - 'a') + 10;
}

// Of a byte token's spelling, "<0x0A>".
char byte_of(std::string_view text) {
  return static_cast<char>(hex_value(text[3]) << 4 | hex_value(text[4]));
}

// True if `bytes` is well-formed UTF-8 or could become it by appending.
bool may_become_utf8(std::string_view bytes) {
  for (size_t offset = 0; offset < bytes.size();) {
    const Utf8Step step = utf8_step(bytes.substr(offset));
    if (step.kind == Utf8Step::Kind::kBad) return false;
    offset += step.n_bytes;
  }
  return true;
}

}  // namespace

Result<Decoder> Decoder::create(const Sections& sections, bool byte_alphabet) {
  EDGE_ASSIGN_OR_RETURN(const auto bytes, sections.get(SectionId::kDecoder, "decoder"));
  SectionReader reader(bytes);
  Decoder decoder;
  const uint32_t kind = reader.u32();
  const uint32_t fallback = reader.u32();
  decoder.strip_code_point_ = reader.u32();
  decoder.n_strip_ = reader.u32();
  const uint32_t n_replacements = reader.u32();
  if (reader.failed()) return invalid_tokenizer("decoder is cut short");
  if (kind > 3 || fallback > 1) return unsupported_tokenizer("unknown decoder");
  if (byte_alphabet != (kind == static_cast<uint32_t>(Kind::kBytes))) {
    return invalid_tokenizer("decoder does not fit the alphabet");
  }
  if (n_replacements > kMaxReplacements || decoder.strip_code_point_ > kMaxCodePoint) {
    return invalid_tokenizer("decoder is out of range");
  }
  decoder.kind_ = static_cast<Kind>(kind);
  decoder.byte_fallback_ = fallback == 1;
  for (uint32_t i = 0; i < n_replacements; ++i) {
    const uint32_t n_from = reader.u32();
    const uint32_t n_to = reader.u32();
    if (reader.failed() || n_from == 0 || n_from > kMaxLiteralBytes || n_to > kMaxLiteralBytes) {
      return invalid_tokenizer("decoder replacement has a bad length");
    }
    const std::string_view from = as_text(reader.take(n_from));
    const std::string_view to = as_text(reader.take(n_to));
    reader.align4();
    if (reader.failed() || utf8_invalid_at(from) != std::string_view::npos ||
        utf8_invalid_at(to) != std::string_view::npos) {
      return invalid_tokenizer("decoder replacement is cut short or not UTF-8");
    }
    decoder.replacements_.emplace_back(from, to);
  }
  if (!reader.at_end()) return invalid_tokenizer("decoder has trailing bytes");
  if (kind == static_cast<uint32_t>(Kind::kMetaspace) && n_replacements != 1) {
    return invalid_tokenizer("metaspace decoder needs one replacement");
  }
  return decoder;
}

Status Decoder::step(const Vocab& vocab, DecodeState& state, uint32_t id, std::string& out) const {
  const std::string_view text = vocab.bytes(id);
  const bool first = state.n_tokens++ == 0;
  if (kind_ == Kind::kBytes) {
    state.pending.append(text);
    state.pending.erase(0, append_lossy(out, state.pending, false));
    return Status::ok();
  }
  if (kind_ == Kind::kJoin) {
    if (!first) out.push_back(' ');
    out.append(text);
    return Status::ok();
  }
  if (is_byte(vocab, id)) {
    push_byte(state, byte_of(text), out);
    return Status::ok();
  }
  end_run(state, out);
  EDGE_ASSIGN_OR_RETURN(const std::string piece, replaced(text, first));
  emit(state, piece, out);
  return Status::ok();
}

Result<std::string> Decoder::token_bytes(const Vocab& vocab, uint32_t id) const {
  const std::string_view text = vocab.bytes(id);
  if (kind_ == Kind::kBytes) return std::string(text);
  if (kind_ == Kind::kJoin) return std::string(1, ' ').append(text);
  if (is_byte(vocab, id)) return std::string(1, byte_of(text));
  return replaced(text, false);
}

bool Decoder::is_byte(const Vocab& vocab, uint32_t id) const {
  return byte_fallback_ && (vocab.flags(id) & kTokenByte) != 0;
}

Result<std::string> Decoder::replaced(std::string_view text, bool is_first) const {
  std::string piece(text);
  for (const auto& [from, to] : replacements_) {
    if (piece.find(from) == std::string::npos) continue;
    const bool drop = kind_ == Kind::kMetaspace && is_first;
    EDGE_ASSIGN_OR_RETURN(piece, replace_all(piece, from, drop ? std::string_view() : to));
  }
  return piece;
}

void Decoder::finish(DecodeState& state, std::string& out) const {
  if (kind_ == Kind::kBytes) {
    append_lossy(out, state.pending, true);
    state.pending.clear();
  } else {
    end_run(state, out);
  }
}

// HF decodes a run of byte tokens as a whole: one bad byte turns every byte of the run into U+FFFD.
// So a run stays pending until it ends, or until it is certain that it is bad.
void Decoder::push_byte(DecodeState& state, char byte, std::string& out) const {
  if (state.bad_run) {
    emit(state, kReplacement, out);
    return;
  }
  state.pending.push_back(byte);
  // All but the last character of a good run is known to be good: recheck only its last bytes.
  const std::string_view pending = state.pending;
  size_t tail = pending.size();
  while (tail > 0 && pending.size() - tail < 4) {
    --tail;
    if ((static_cast<uint8_t>(pending[tail]) & 0xC0) != 0x80) break;
  }
  if (may_become_utf8(pending.substr(tail))) return;
  state.bad_run = true;
  for (size_t i = 0; i < state.pending.size(); ++i) emit(state, kReplacement, out);
  state.pending.clear();
}

void Decoder::end_run(DecodeState& state, std::string& out) const {
  if (utf8_invalid_at(state.pending) == std::string_view::npos) {
    emit(state, state.pending, out);
  } else {
    for (size_t i = 0; i < state.pending.size(); ++i) emit(state, kReplacement, out);
  }
  state.pending.clear();
  state.bad_run = false;
}

void Decoder::emit(DecodeState& state, std::string_view text, std::string& out) const {
  size_t offset = 0;
  while (!state.strip_done && offset < text.size()) {
    if (state.n_strip_checked == n_strip_) {
      state.strip_done = true;
      break;
    }
    size_t after = offset;
    if (utf8_next(text, after) != strip_code_point_) {
      state.strip_done = true;
      break;
    }
    offset = after;
    ++state.n_strip_checked;
  }
  out.append(text.substr(offset));
}

}  // namespace edge
