#include "tokenizer/piece_model.h"

#include "tokenizer/bpe.h"
#include "tokenizer/unigram.h"

namespace edge {

namespace {

constexpr uint32_t kKindBpe = 1;
constexpr uint32_t kKindUnigram = 2;
constexpr uint32_t kFlagFuseUnk = 1;
constexpr uint32_t kFlagByteFallback = 2;
constexpr uint32_t kMaxVocab = 1u << 24;

Result<ModelHeader> read_header(const Sections& sections) {
  EDGE_ASSIGN_OR_RETURN(const auto bytes, sections.get_exact(SectionId::kModel, "model", 32));
  SectionReader reader(bytes);
  ModelHeader header;
  header.kind = reader.u32();
  const uint32_t alphabet = reader.u32();
  header.n_vocab = reader.u32();
  header.unk_id = reader.u32();
  const uint32_t flags = reader.u32();
  header.n_merges = reader.u32();
  header.merge_probes = reader.u32();
  header.vocab_probes = reader.u32();
  header.byte_alphabet = alphabet == 1;
  header.fuse_unk = (flags & kFlagFuseUnk) != 0;
  header.byte_fallback = (flags & kFlagByteFallback) != 0;
  if (header.kind != kKindBpe && header.kind != kKindUnigram) {
    return unsupported_tokenizer("model kind " + std::to_string(header.kind));
  }
  if (alphabet > 1) return unsupported_tokenizer("alphabet " + std::to_string(alphabet));
  if (header.n_vocab == 0 || header.n_vocab > kMaxVocab) {
    return invalid_tokenizer("vocabulary of " + std::to_string(header.n_vocab) + " tokens");
  }
  if (header.unk_id != kNoId && header.unk_id >= header.n_vocab) {
    return invalid_tokenizer("unk id is out of range");
  }
  if ((flags & ~(kFlagFuseUnk | kFlagByteFallback)) != 0) {
    return unsupported_tokenizer("model flags " + std::to_string(flags));
  }
  if (header.merge_probes > kMaxProbes || header.vocab_probes > kMaxProbes) {
    return invalid_tokenizer("probe limit is above " + std::to_string(kMaxProbes));
  }
  return header;
}

}  // namespace

Result<std::unique_ptr<PieceModel>> PieceModel::create(const Sections& sections) {
  EDGE_ASSIGN_OR_RETURN(const ModelHeader header, read_header(sections));
  std::unique_ptr<PieceModel> model;
  if (header.kind == kKindBpe) {
    model = std::make_unique<Bpe>();
  } else {
    model = std::make_unique<Unigram>();
  }
  model->header_ = header;
  EDGE_ASSIGN_OR_RETURN(model->vocab_, Vocab::create(sections, header.n_vocab, header.vocab_probes,
                                                     !header.byte_alphabet));
  EDGE_ASSIGN_OR_RETURN(const auto byte_ids,
                        sections.get_exact(SectionId::kByteIds, "byte ids", 256 * 4));
  const TableView<uint32_t> byte_table(byte_ids);
  for (size_t i = 0; i < 256; ++i) {
    model->byte_ids_[i] = byte_table[i];
    if (byte_table[i] >= header.n_vocab && byte_table[i] != kNoId) {
      return invalid_tokenizer("id of byte " + std::to_string(i) + " is out of range");
    }
  }
  EDGE_RETURN_IF_ERROR(model->init(sections));
  return model;
}

bool PieceModel::has_fallback_bytes(std::string_view text) const {
  for (const char c : text) {
    if (byte_ids_[static_cast<uint8_t>(c)] == kNoId) return false;
  }
  return true;
}

}  // namespace edge
