#include "tokenizer/splitter.h"

#include "tokenizer/utf8.h"

namespace edge {

namespace {

constexpr uint32_t kIndexEntries = (kMaxCodePoint + 1) / 256;
constexpr uint32_t kMaxClasses = 255;
constexpr uint32_t kMaxStates = 0x7FFF;
constexpr uint32_t kMaxDfas = 16;
constexpr uint32_t kStateMask = 0x7FFF;
constexpr uint32_t kMatchBit = 0x8000;
// A pattern that fails late rereads the text from every start. Real tokenizers stay below 3 steps
// per byte; beyond this the file is hostile and the text is refused instead of hanging.
constexpr uint64_t kMaxStepsPerByte = 512;

}  // namespace

Result<CodePointClasses> CodePointClasses::create(const Sections& sections, uint32_t n_classes) {
  CodePointClasses classes;
  EDGE_ASSIGN_OR_RETURN(const auto index, sections.get_exact(SectionId::kClassIndex, "class index",
                                                             kIndexEntries * sizeof(uint16_t)));
  EDGE_ASSIGN_OR_RETURN(const auto blocks, sections.get(SectionId::kClassBlocks, "class blocks"));
  if (blocks.empty() || blocks.size() % 256 != 0) {
    return invalid_tokenizer("class blocks are not whole");
  }
  classes.index_ = TableView<uint16_t>(index);
  classes.blocks_ = TableView<uint8_t>(blocks);
  for (size_t i = 0; i < kIndexEntries; ++i) {
    if (classes.index_[i] >= blocks.size() / 256) {
      return invalid_tokenizer("class index entry " + std::to_string(i) + " is out of range");
    }
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (classes.blocks_[i] >= n_classes) {
      return invalid_tokenizer("class block byte " + std::to_string(i) + " is out of range");
    }
  }
  for (size_t i = 0; i < 128; ++i) {
    classes.ascii_[i] = classes.blocks_[size_t{classes.index_[0]} * 256 + i];
  }
  return classes;
}

Result<DfaSet> DfaSet::create(const Sections& sections) {
  EDGE_ASSIGN_OR_RETURN(const auto bytes, sections.get(SectionId::kDfas, "dfas"));
  SectionReader reader(bytes);
  DfaSet set;
  const uint32_t n_dfas = reader.u32();
  set.n_classes_ = reader.u32();
  if (reader.failed() || n_dfas > kMaxDfas) return invalid_tokenizer("too many DFAs");
  if (n_dfas == 0) {
    if (!reader.at_end()) return invalid_tokenizer("DFA section has trailing bytes");
    return set;
  }
  if (set.n_classes_ == 0 || set.n_classes_ > kMaxClasses) {
    return invalid_tokenizer("number of code point classes is out of range");
  }
  EDGE_ASSIGN_OR_RETURN(set.classes_, CodePointClasses::create(sections, set.n_classes_));
  for (uint32_t i = 0; i < n_dfas; ++i) {
    const std::string name = "DFA " + std::to_string(i);
    Dfa dfa;
    dfa.n_states = reader.u32();
    if (dfa.n_states < 2 || dfa.n_states > kMaxStates) {
      return invalid_tokenizer(name + ": number of states is out of range");
    }
    const uint64_t n_entries = uint64_t{dfa.n_states} * (set.n_classes_ + 1);
    const auto table = reader.take(n_entries * sizeof(uint16_t));
    reader.align4();
    if (reader.failed()) return invalid_tokenizer(name + " is cut short");
    dfa.transitions = TableView<uint16_t>(table);
    for (size_t entry = 0; entry < n_entries; ++entry) {
      if ((dfa.transitions[entry] & kStateMask) >= dfa.n_states) {
        return invalid_tokenizer(name + ": transition to an unknown state");
      }
    }
    set.dfas_.push_back(dfa);
  }
  if (!reader.at_end()) return invalid_tokenizer("DFA section has trailing bytes");
  return set;
}

size_t DfaSet::match_end(const Dfa& dfa, std::string_view text, size_t begin,
                         uint64_t& n_steps) const {
  const size_t row = n_classes_ + 1;
  size_t end = begin;
  size_t offset = begin;
  uint32_t state = 1;
  while (offset < text.size()) {
    const size_t here = offset;
    const uint32_t code_point = utf8_next(text, offset);
    const uint32_t entry = dfa.transitions[state * row + classes_(code_point)];
    if ((entry & kMatchBit) != 0) end = here;
    state = entry & kStateMask;
    if (state == 0) {
      n_steps += offset - begin;
      return end;
    }
  }
  if ((dfa.transitions[state * row + n_classes_] & kMatchBit) != 0) end = text.size();
  n_steps += offset - begin;
  return end;
}

template <class F>
Status DfaSet::for_each_match(uint32_t dfa, std::string_view text, F&& found) const {
  const Dfa& machine = dfas_[dfa];
  const uint64_t step_budget = (uint64_t{text.size()} + 256) * kMaxStepsPerByte;
  uint64_t n_steps = 0;
  size_t offset = 0;
  while (offset < text.size()) {
    const size_t end = match_end(machine, text, offset, n_steps);
    if (n_steps > step_budget) {
      return invalid_tokenizer("a pattern needs too many steps for this text");
    }
    if (end == offset) {
      utf8_next(text, offset);
      continue;
    }
    found(offset, end);
    offset = end;
  }
  return Status::ok();
}

Status DfaSet::split(uint32_t dfa, SplitBehavior behavior, std::string_view text,
                     std::vector<std::string_view>& pieces) const {
  size_t gap_begin = 0;
  EDGE_RETURN_IF_ERROR(for_each_match(dfa, text, [&](size_t begin, size_t end) {
    if (behavior.keep_gap && gap_begin < begin) {
      pieces.push_back(text.substr(gap_begin, begin - gap_begin));
    }
    if (behavior.keep_match) pieces.push_back(text.substr(begin, end - begin));
    gap_begin = end;
  }));
  if (behavior.keep_gap && gap_begin < text.size()) pieces.push_back(text.substr(gap_begin));
  return Status::ok();
}

Result<std::string> DfaSet::replace(uint32_t dfa, std::string_view text,
                                    std::string_view to) const {
  const size_t max_bytes = max_grown_bytes(text.size());
  std::string out;
  size_t gap_begin = 0;
  EDGE_RETURN_IF_ERROR(for_each_match(dfa, text, [&](size_t begin, size_t end) {
    if (out.size() > max_bytes) return;
    out.append(text.substr(gap_begin, begin - gap_begin)).append(to);
    gap_begin = end;
  }));
  if (out.size() > max_bytes) return invalid_tokenizer("a replacement grows the text too much");
  out.append(text.substr(gap_begin));
  return out;
}

}  // namespace edge
