#include "tokenizer/pipeline.h"

#include "tokenizer/utf8.h"

namespace edge {

namespace {

constexpr uint32_t kMaxOps = 32;
constexpr size_t kMaxLiteralBytes = 256;
// Chains of replacements could grow a text exponentially; no real normalizer comes near this.
constexpr size_t kMaxGrowth = 64;

Result<TextOp> read_op(SectionReader& reader, const std::string& where, const DfaSet* dfas,
                       const FormSet* forms) {
  TextOp op{};
  const uint32_t kind = reader.u32();
  const uint32_t argument = reader.u32();
  const uint32_t n_a = reader.u32();
  const uint32_t n_b = reader.u32();
  if (reader.failed() || n_a > kMaxLiteralBytes || n_b > kMaxLiteralBytes) {
    return invalid_tokenizer(where + " is cut short or its text is too long");
  }
  op.a = as_text(reader.take(n_a));
  op.b = as_text(reader.take(n_b));
  reader.align4();
  if (reader.failed()) return invalid_tokenizer(where + " is cut short");
  if (kind < 1 || kind > 5) return unsupported_tokenizer(where + ": unknown operation");
  op.kind = static_cast<TextOp::Kind>(kind);
  if (utf8_invalid_at(op.a) != std::string_view::npos ||
      utf8_invalid_at(op.b) != std::string_view::npos) {
    return invalid_tokenizer(where + ": text is not UTF-8");
  }
  if (op.kind == TextOp::Kind::kReplace && op.a.empty()) {
    return invalid_tokenizer(where + " replaces the empty string");
  }
  if (op.kind == TextOp::Kind::kSplit) {
    op.dfa = argument & 0xFFFF;
    op.behavior = {(argument & 0x10000) == 0, (argument & 0x20000) == 0};
    if (dfas == nullptr || op.dfa >= dfas->n_dfas() || argument >> 18 != 0) {
      return invalid_tokenizer(where + " names an unknown DFA");
    }
  } else if (op.kind == TextOp::Kind::kForm) {
    op.form = argument;
    if (forms == nullptr || argument >= forms->size()) {
      return invalid_tokenizer(where + " names an unknown normal form");
    }
  } else if (argument > 1 || (argument == 1 && op.kind != TextOp::Kind::kPrependUnless)) {
    return invalid_tokenizer(where + " has a bad argument");
  } else {
    op.only_at_start = argument == 1;
  }
  return op;
}

}  // namespace

Result<std::string> replace_all(std::string_view text, std::string_view from, std::string_view to) {
  const size_t max_bytes = text.size() * kMaxGrowth + 4096;
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  size_t begin = 0;
  for (;;) {
    const size_t at = text.find(from, begin);
    if (at == std::string_view::npos) break;
    out.append(text, begin, at - begin).append(to);
    begin = at + from.size();
    if (out.size() > max_bytes) return invalid_tokenizer("a replacement grows the text too much");
  }
  out.append(text, begin);
  return out;
}

Result<TextProgram> TextProgram::create(std::span<const std::byte> section, std::string_view name,
                                        const DfaSet* dfas, const FormSet* forms) {
  SectionReader reader(section);
  TextProgram program;
  program.dfas_ = dfas;
  program.forms_ = forms;
  const uint32_t n_ops = reader.u32();
  if (reader.failed() || n_ops > kMaxOps) {
    return invalid_tokenizer(std::string(name) + ": too many operations");
  }
  for (uint32_t i = 0; i < n_ops; ++i) {
    const std::string where = std::string(name) + " operation " + std::to_string(i);
    EDGE_ASSIGN_OR_RETURN(TextOp op, read_op(reader, where, dfas, forms));
    program.ops_.push_back(op);
  }
  if (!reader.at_end()) return invalid_tokenizer(std::string(name) + " has trailing bytes");
  return program;
}

Status TextProgram::run(bool at_start, TextArena& arena,
                        std::vector<std::string_view>& pieces) const {
  size_t n_bytes = 0;
  for (const std::string_view piece : pieces) n_bytes += piece.size();
  const size_t max_bytes = n_bytes * kMaxGrowth + 4096;
  for (const TextOp& op : ops_) {
    EDGE_RETURN_IF_ERROR(run_op(op, at_start, arena, pieces));
    n_bytes = 0;
    for (const std::string_view piece : pieces) n_bytes += piece.size();
    if (n_bytes > max_bytes) return invalid_tokenizer("normalizing grows the text too much");
  }
  return Status::ok();
}

Status TextProgram::run_op(const TextOp& op, bool at_start, TextArena& arena,
                           std::vector<std::string_view>& pieces) const {
  if (op.kind == TextOp::Kind::kSplit) {
    std::vector<std::string_view> parts;
    parts.reserve(pieces.size() + 16);
    for (const std::string_view piece : pieces) {
      EDGE_RETURN_IF_ERROR(dfas_->split(op.dfa, op.behavior, piece, parts));
    }
    pieces = std::move(parts);
    return Status::ok();
  }
  for (size_t i = 0; i < pieces.size(); ++i) {
    std::string_view& piece = pieces[i];
    if (piece.empty()) continue;
    if (op.kind == TextOp::Kind::kReplace) {
      if (piece.find(op.a) == std::string_view::npos) continue;
      EDGE_ASSIGN_OR_RETURN(std::string text, replace_all(piece, op.a, op.b));
      arena.push_back(std::move(text));
    } else if (op.kind == TextOp::Kind::kForm) {
      const Form& form = (*forms_)[op.form];
      if (form.leaves_unchanged(piece)) continue;
      arena.push_back(form.apply(piece));
    } else {
      if (op.kind == TextOp::Kind::kPrependUnless) {
        if (op.only_at_start && !(at_start && i == 0)) continue;
        if (piece.starts_with(op.b)) continue;
      }
      arena.push_back(std::string(op.a).append(piece));
    }
    piece = arena.back();
  }
  std::erase_if(pieces, [](std::string_view piece) { return piece.empty(); });
  return Status::ok();
}

}  // namespace edge
