#include "tokenizer/pipeline.h"

#include <algorithm>
#include <utility>

#include "tokenizer/utf8.h"

namespace edge {

namespace {

constexpr uint32_t kMaxOps = 32;
constexpr size_t kMaxLiteralBytes = 256;

// The argument of an operation, which means something else for each kind.
Status read_argument(TextOp& op, uint32_t argument, const std::string& where,
                     const TextTables& tables, bool splits) {
  switch (op.kind) {
    case TextOp::Kind::kSplit:
      op.dfa = argument & 0xFFFF;
      op.behavior = {(argument & 0x10000) == 0, (argument & 0x20000) == 0};
      if (splits && op.dfa < tables.dfas->n_dfas() && argument >> 18 == 0) return Status::ok();
      return invalid_tokenizer(where + " names an unknown DFA");
    case TextOp::Kind::kReplaceMatches:
      op.dfa = argument;
      if (argument < tables.dfas->n_dfas()) return Status::ok();
      return invalid_tokenizer(where + " names an unknown DFA");
    case TextOp::Kind::kForm:
      op.form = argument;
      if (!splits && argument < tables.forms->size()) return Status::ok();
      return invalid_tokenizer(where + " names an unknown normal form");
    case TextOp::Kind::kCharsmap:
      if (!splits && tables.charsmap->exists() && argument == 0) return Status::ok();
      return invalid_tokenizer(where + " names an unknown charsmap");
    case TextOp::Kind::kStrip:
      op.strips_start = (argument & 1) != 0;
      op.strips_end = (argument & 2) != 0;
      if (!splits && argument >= 1 && argument <= 3) return Status::ok();
      return invalid_tokenizer(where + " has a bad argument");
    case TextOp::Kind::kReplace:
      if (op.a.empty()) return invalid_tokenizer(where + " replaces the empty string");
      break;
    case TextOp::Kind::kPrepend:
    case TextOp::Kind::kPrependUnless:
      break;
  }
  op.only_at_start = argument == 1;
  if (argument == 0 || (argument == 1 && op.kind == TextOp::Kind::kPrependUnless)) {
    return Status::ok();
  }
  return invalid_tokenizer(where + " has a bad argument");
}

Result<TextOp> read_op(SectionReader& reader, const std::string& where, const TextTables& tables,
                       bool splits) {
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
  if (kind < 1 || kind > 8) return unsupported_tokenizer(where + ": unknown operation");
  op.kind = static_cast<TextOp::Kind>(kind);
  if (utf8_invalid_at(op.a) != std::string_view::npos ||
      utf8_invalid_at(op.b) != std::string_view::npos) {
    return invalid_tokenizer(where + ": text is not UTF-8");
  }
  EDGE_RETURN_IF_ERROR(read_argument(op, argument, where, tables, splits));
  return op;
}

}  // namespace

Result<std::string> replace_all(std::string_view text, std::string_view from, std::string_view to) {
  const size_t max_bytes = max_grown_bytes(text.size());
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
                                        const TextTables& tables, bool splits) {
  SectionReader reader(section);
  TextProgram program;
  program.tables_ = tables;
  const uint32_t n_ops = reader.u32();
  if (reader.failed() || n_ops > kMaxOps) {
    return invalid_tokenizer(std::string(name) + ": too many operations");
  }
  for (uint32_t i = 0; i < n_ops; ++i) {
    const std::string where = std::string(name) + " operation " + std::to_string(i);
    EDGE_ASSIGN_OR_RETURN(TextOp op, read_op(reader, where, tables, splits));
    program.ops_.push_back(op);
  }
  if (!reader.at_end()) return invalid_tokenizer(std::string(name) + " has trailing bytes");
  return program;
}

Status TextProgram::run(bool at_start, TextArena& arena,
                        std::vector<std::string_view>& pieces) const {
  size_t n_bytes = 0;
  for (const std::string_view piece : pieces) n_bytes += piece.size();
  const size_t max_bytes = max_grown_bytes(n_bytes);
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
      EDGE_RETURN_IF_ERROR(tables_.dfas->split(op.dfa, op.behavior, piece, parts));
    }
    pieces = std::move(parts);
    return Status::ok();
  }
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (pieces[i].empty()) continue;
    EDGE_ASSIGN_OR_RETURN(pieces[i], rewrite(op, pieces[i], at_start && i == 0, arena));
  }
  std::erase_if(pieces, [](std::string_view piece) { return piece.empty(); });
  return Status::ok();
}

Result<std::string_view> TextProgram::rewrite(const TextOp& op, std::string_view text,
                                              bool at_start, TextArena& arena) const {
  std::string made;
  switch (op.kind) {
    case TextOp::Kind::kReplace: {
      if (text.find(op.a) == std::string_view::npos) return text;
      EDGE_ASSIGN_OR_RETURN(made, replace_all(text, op.a, op.b));
      break;
    }
    case TextOp::Kind::kReplaceMatches: {
      EDGE_ASSIGN_OR_RETURN(made, tables_.dfas->replace(op.dfa, text, op.a));
      break;
    }
    case TextOp::Kind::kForm: {
      const Form& form = (*tables_.forms)[op.form];
      if (form.leaves_unchanged(text)) return text;
      made = form.apply(text);
      break;
    }
    case TextOp::Kind::kCharsmap: {
      EDGE_ASSIGN_OR_RETURN(made, tables_.charsmap->apply(text));
      break;
    }
    case TextOp::Kind::kStrip:
      return strip(op, text);
    case TextOp::Kind::kPrependUnless:
      if ((op.only_at_start && !at_start) || text.starts_with(op.b)) return text;
      made = std::string(op.a).append(text);
      break;
    case TextOp::Kind::kPrepend:
      made = std::string(op.a).append(text);
      break;
    case TextOp::Kind::kSplit:  // cuts texts and rewrites none: run_op() does it
      return text;
  }
  return std::string_view(arena.emplace_front(std::move(made)));
}

std::string_view TextProgram::strip(const TextOp& op, std::string_view text) const {
  const size_t end = op.strips_end ? tables_.spaces->before(text, text.size()) : text.size();
  const size_t begin = op.strips_start ? std::min(end, tables_.spaces->after(text, 0)) : 0;
  return text.substr(begin, end - begin);
}

}  // namespace edge
