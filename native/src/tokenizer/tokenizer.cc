#include "tokenizer/tokenizer.h"

#include <bit>
#include <utility>

#include "tokenizer/added_tokens.h"
#include "tokenizer/blob.h"
#include "tokenizer/decoder.h"
#include "tokenizer/piece_model.h"
#include "tokenizer/pipeline.h"
#include "tokenizer/utf8.h"

namespace edge {

static_assert(std::endian::native == std::endian::little, "the blob is read in place");

namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;  // positions are 32-bit
constexpr uint32_t kMaxAffixIds = 16;

// The character that GPT-2's byte alphabet shows for a byte.
uint32_t byte_character(uint8_t byte) {
  if ((byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD)) return byte;
  if (byte <= 0x20) return 0x100u + byte;
  if (byte <= 0xA0) return 0x121u + (byte - 0x7Fu);
  return 0x143;
}

class TableTokenizer final : public Tokenizer {
 public:
  Status init(std::span<const std::byte> blob);
  Result<std::vector<int32_t>> encode(std::string_view text,
                                      const EncodeOptions& options) const override;
  Result<std::string> decode(std::span<const int32_t> ids, bool special) const override;
  Status decode_step(DecodeState& state, int32_t id, bool special, std::string& out) const override;
  void decode_finish(DecodeState& state, std::string& out) const override {
    decoder_.finish(state, out);
  }
  int32_t n_vocab() const override { return static_cast<int32_t>(model_->vocab().n_tokens()); }
  bool is_special(int32_t id) const override {
    return in_range(id) && (flags(id) & kTokenSpecial) != 0;
  }
  Result<std::string> token_text(int32_t id) const override;
  Result<std::string> token_bytes(int32_t id) const override;

 private:
  // Everything one encode() call works with.
  struct Work {
    bool special;
    PieceScratch scratch;
    TextArena arena;
    std::vector<std::string_view> pieces;
    std::vector<Segment> segments;
    std::vector<int32_t> ids;
  };
  bool in_range(int32_t id) const { return id >= 0 && id < n_vocab(); }
  uint8_t flags(int32_t id) const { return model_->vocab().flags(static_cast<uint32_t>(id)); }
  Status out_of_range(int32_t id) const;
  Status read_affixes(const Sections& sections);
  Status encode_segment(std::string_view text, bool at_start, Work& work) const;
  Status encode_normalized(std::string_view text, bool at_start, Work& work) const;

  std::unique_ptr<PieceModel> model_;
  DfaSet dfas_;
  FormSet forms_;
  Charsmap charsmap_;
  SpaceSet spaces_;
  TextProgram normalizer_;
  TextProgram pre_tokenizer_;
  AddedTokens raw_added_;
  AddedTokens normalized_added_;
  Decoder decoder_;
  std::vector<int32_t> prefix_;
  std::vector<int32_t> suffix_;
};

Status TableTokenizer::init(std::span<const std::byte> blob) {
  EDGE_ASSIGN_OR_RETURN(const Sections sections, Sections::parse(blob));
  EDGE_ASSIGN_OR_RETURN(model_, PieceModel::create(sections));
  EDGE_ASSIGN_OR_RETURN(dfas_, DfaSet::create(sections));
  EDGE_ASSIGN_OR_RETURN(forms_, FormSet::create(sections));
  EDGE_ASSIGN_OR_RETURN(charsmap_, Charsmap::create(sections));
  EDGE_ASSIGN_OR_RETURN(spaces_, SpaceSet::create(sections));
  const TextTables tables{&dfas_, &forms_, &charsmap_, &spaces_};
  EDGE_ASSIGN_OR_RETURN(const auto normalizer, sections.get(SectionId::kNormalizer, "normalizer"));
  EDGE_ASSIGN_OR_RETURN(normalizer_, TextProgram::create(normalizer, "normalizer", tables, false));
  EDGE_ASSIGN_OR_RETURN(const auto splitter,
                        sections.get(SectionId::kPreTokenizer, "pre-tokenizer"));
  EDGE_ASSIGN_OR_RETURN(pre_tokenizer_,
                        TextProgram::create(splitter, "pre-tokenizer", tables, true));
  EDGE_ASSIGN_OR_RETURN(AddedTokens::Lists added,
                        AddedTokens::create(sections, spaces_, model_->vocab().n_tokens()));
  raw_added_ = std::move(added.raw);
  normalized_added_ = std::move(added.normalized);
  EDGE_ASSIGN_OR_RETURN(decoder_, Decoder::create(sections, model_->byte_alphabet()));
  return read_affixes(sections);
}

Status TableTokenizer::read_affixes(const Sections& sections) {
  EDGE_ASSIGN_OR_RETURN(const auto bytes,
                        sections.get(SectionId::kPostProcessor, "post-processor"));
  SectionReader reader(bytes);
  const uint32_t n_prefix = reader.u32();
  const uint32_t n_suffix = reader.u32();
  if (n_prefix > kMaxAffixIds || n_suffix > kMaxAffixIds) {
    return invalid_tokenizer("post-processor adds too many ids");
  }
  for (uint32_t i = 0; i < n_prefix + n_suffix; ++i) {
    const uint32_t id = reader.u32();
    if (id >= model_->vocab().n_tokens()) {
      return invalid_tokenizer("post-processor id " + std::to_string(id) + " is out of range");
    }
    (i < n_prefix ? prefix_ : suffix_).push_back(static_cast<int32_t>(id));
  }
  return reader.at_end() ? Status::ok() : invalid_tokenizer("post-processor has a bad length");
}

Result<std::vector<int32_t>> TableTokenizer::encode(std::string_view text,
                                                    const EncodeOptions& options) const {
  if (text.size() > kMaxTextBytes) {
    return {Code::kInvalidArgument, "text: " + std::to_string(text.size()) +
                                        " bytes are above the limit of 1 GiB; split it"};
  }
  if (const size_t at = utf8_invalid_at(text); at != std::string_view::npos) {
    return {Code::kInvalidUtf8, "text: byte " + std::to_string(at) + " is not valid UTF-8"};
  }
  Work work{};
  work.special = options.special;
  work.ids.reserve(text.size() / 4 + 4);
  if (options.bos) work.ids = prefix_;
  std::vector<Segment> segments;
  raw_added_.split(text, options.special, segments);
  for (const Segment& segment : segments) {
    if (segment.id != kNotAdded) {
      work.ids.push_back(segment.id);
      continue;
    }
    EDGE_RETURN_IF_ERROR(encode_segment(segment.text, segment.text.data() == text.data(), work));
  }
  if (options.bos) work.ids.insert(work.ids.end(), suffix_.begin(), suffix_.end());
  return std::move(work.ids);
}

Status TableTokenizer::encode_segment(std::string_view text, bool at_start, Work& work) const {
  work.arena.clear();
  work.pieces.assign(1, text);
  EDGE_RETURN_IF_ERROR(normalizer_.run(at_start, work.arena, work.pieces));
  if (work.pieces.empty()) return Status::ok();
  const std::string_view normalized = work.pieces[0];
  if (normalized_added_.empty()) return encode_normalized(normalized, at_start, work);
  work.segments.clear();
  normalized_added_.split(normalized, work.special, work.segments);
  for (const Segment& segment : work.segments) {
    if (segment.id != kNotAdded) {
      work.ids.push_back(segment.id);
      continue;
    }
    const bool first = at_start && segment.text.data() == normalized.data();
    EDGE_RETURN_IF_ERROR(encode_normalized(segment.text, first, work));
  }
  return Status::ok();
}

Status TableTokenizer::encode_normalized(std::string_view text, bool at_start, Work& work) const {
  work.pieces.assign(1, text);
  EDGE_RETURN_IF_ERROR(pre_tokenizer_.run(at_start, work.arena, work.pieces));
  for (const std::string_view piece : work.pieces) model_->encode(piece, work.scratch, work.ids);
  return Status::ok();
}

Status TableTokenizer::out_of_range(int32_t id) const {
  return {Code::kTokenOutOfRange,
          "token id " + std::to_string(id) + " is not in 0.." + std::to_string(n_vocab() - 1)};
}

Result<std::string> TableTokenizer::decode(std::span<const int32_t> ids, bool special) const {
  DecodeState state;
  std::string out;
  for (const int32_t id : ids) EDGE_RETURN_IF_ERROR(decode_step(state, id, special, out));
  decoder_.finish(state, out);
  return out;
}

Status TableTokenizer::decode_step(DecodeState& state, int32_t id, bool special,
                                   std::string& out) const {
  if (!in_range(id)) return out_of_range(id);
  if ((flags(id) & kTokenAbsent) != 0) return Status::ok();
  if (!special && (flags(id) & kTokenSpecial) != 0) return Status::ok();
  return decoder_.step(model_->vocab(), state, static_cast<uint32_t>(id), out);
}

Result<std::string> TableTokenizer::token_bytes(int32_t id) const {
  if (!in_range(id)) return out_of_range(id);
  return decoder_.token_bytes(model_->vocab(), static_cast<uint32_t>(id));
}

Result<std::string> TableTokenizer::token_text(int32_t id) const {
  if (!in_range(id)) return out_of_range(id);
  const std::string_view bytes = model_->vocab().bytes(static_cast<uint32_t>(id));
  std::string text;
  if (!model_->byte_alphabet()) return text.append(bytes);
  if ((flags(id) & kTokenLiteral) != 0) {
    append_lossy(text, bytes, true);
    return text;
  }
  for (const char c : bytes) append_utf8(text, byte_character(static_cast<uint8_t>(c)));
  return text;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::create(std::span<const std::byte> blob) {
  auto tokenizer = std::make_unique<TableTokenizer>();
  EDGE_RETURN_IF_ERROR(tokenizer->init(blob));
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool special)
    : tokenizer_(&tokenizer), special_(special) {}

Result<std::string> StreamDecoder::push(int32_t id) {
  std::string out;
  EDGE_RETURN_IF_ERROR(tokenizer_->decode_step(state_, id, special_, out));
  return out;
}

std::string StreamDecoder::flush() {
  std::string out;
  tokenizer_->decode_finish(state_, out);
  state_ = DecodeState{};
  return out;
}

}  // namespace edge
