#include "tokenizer/forms.h"

#include <algorithm>

#include "tokenizer/utf8.h"

namespace edge {

namespace {

constexpr uint32_t kMaxForms = 4;
constexpr uint32_t kMaxRecords = 1u << 16;
constexpr uint32_t kMaxPairs = 1u << 16;
constexpr uint32_t kMaxTextBytes = 1u << 24;
constexpr size_t kIndexEntries = 0x1100;
constexpr size_t kRecordBytes = 8;  // u32 offset, u8 bytes, u8 combining class, u8 flags, u8 0
constexpr uint8_t kQuick = 1;       // alone it changes nothing and no neighbour moves over it
constexpr uint8_t kMapped = 2;      // becomes its text
constexpr uint8_t kHangul = 4;      // a syllable: becomes its letters by arithmetic

// Unicode 3.12, conjoining jamo.
constexpr uint32_t kSBase = 0xAC00;
constexpr uint32_t kLBase = 0x1100;
constexpr uint32_t kVBase = 0x1161;
constexpr uint32_t kTBase = 0x11A7;
constexpr uint32_t kLCount = 19;
constexpr uint32_t kVCount = 21;
constexpr uint32_t kTCount = 28;
constexpr uint32_t kSCount = kLCount * kVCount * kTCount;

bool is_scalar(uint32_t code_point) {
  return code_point <= kMaxCodePoint && (code_point < 0xD800 || code_point > 0xDFFF);
}

}  // namespace

Result<Form> Form::create(SectionReader& reader, const std::string& where) {
  const uint32_t flags = reader.u32();
  const uint32_t n_blocks = reader.u32();
  const uint32_t n_records = reader.u32();
  const uint32_t n_pairs = reader.u32();
  const uint32_t n_text_bytes = reader.u32();
  if (reader.failed() || flags > 1 || n_blocks == 0 || n_blocks > kIndexEntries || n_records == 0 ||
      n_records > kMaxRecords || n_pairs > kMaxPairs || n_text_bytes > kMaxTextBytes) {
    return invalid_tokenizer(where + " has a bad header");
  }
  Form form;
  form.composes_ = flags == 1;
  form.index_ = TableView<uint16_t>(reader.take(kIndexEntries * 2));
  form.blocks_ = TableView<uint16_t>(reader.take(uint64_t{n_blocks} * 512));
  form.records_ = reader.take(uint64_t{n_records} * kRecordBytes);
  form.pairs_ = TableView<uint32_t>(reader.take(uint64_t{n_pairs} * 12));
  form.texts_ = as_text(reader.take(n_text_bytes));
  reader.align4();
  if (reader.failed()) return invalid_tokenizer(where + " is cut short");
  for (size_t i = 0; i < form.index_.size(); ++i) {
    if (form.index_[i] >= n_blocks) return invalid_tokenizer(where + ": block out of range");
  }
  for (size_t i = 0; i < form.blocks_.size(); ++i) {
    if (form.blocks_[i] >= n_records) return invalid_tokenizer(where + ": record out of range");
  }
  EDGE_RETURN_IF_ERROR(form.check_records(where));
  EDGE_RETURN_IF_ERROR(form.check_pairs(where));
  return form;
}

Status Form::check_records(const std::string& where) const {
  for (size_t i = 0; i < records_.size() / kRecordBytes; ++i) {
    const Record record = record_at(i);
    const uint64_t end = uint64_t{record.offset} + record.n_bytes;
    if (record.flags > (kQuick | kMapped | kHangul) || end > texts_.size() ||
        utf8_invalid_at(texts_.substr(record.offset, record.n_bytes)) != std::string_view::npos) {
      return invalid_tokenizer(where + ": record " + std::to_string(i) + " is out of range");
    }
  }
  return Status::ok();
}

Status Form::check_pairs(const std::string& where) const {
  for (size_t i = 0; i < pairs_.size(); i += 3) {
    const uint64_t key = uint64_t{pairs_[i]} << 32 | pairs_[i + 1];
    if (i > 0 && key <= (uint64_t{pairs_[i - 3]} << 32 | pairs_[i - 2])) {
      return invalid_tokenizer(where + ": compositions are not sorted");
    }
    if (!is_scalar(pairs_[i + 2]) || pairs_[i + 2] == 0) {
      return invalid_tokenizer(where + ": a composition is no character");
    }
  }
  return Status::ok();
}

Form::Record Form::record_at(size_t i) const {
  const std::byte* at = records_.data() + i * kRecordBytes;
  return {load_le<uint32_t>(at), load_le<uint8_t>(at + 4), load_le<uint8_t>(at + 5),
          load_le<uint8_t>(at + 6)};
}

Form::Record Form::record_of(uint32_t code_point) const {
  const size_t block = index_[code_point >> 8];
  return record_at(blocks_[block << 8 | (code_point & 0xFF)]);
}

bool Form::leaves_unchanged(std::string_view text) const {
  for (size_t offset = 0; offset < text.size();) {
    if ((record_of(utf8_next(text, offset)).flags & kQuick) == 0) return false;
  }
  return true;
}

std::string Form::apply(std::string_view text) const {
  std::vector<Mark> marks;
  marks.reserve(text.size());
  decompose(text, marks);
  // Within a run of combining marks order is by class; equal ones stay in theirs.
  for (size_t begin = 0; begin < marks.size(); ++begin) {
    size_t end = begin;
    while (end < marks.size() && marks[end].combining_class != 0) ++end;
    if (end - begin > 1) {
      std::stable_sort(
          marks.begin() + static_cast<ptrdiff_t>(begin),
          marks.begin() + static_cast<ptrdiff_t>(end),
          [](const Mark& a, const Mark& b) { return a.combining_class < b.combining_class; });
    }
    begin = end;
  }
  if (composes_) compose(marks);
  std::string out;
  out.reserve(text.size());
  for (const Mark& mark : marks) append_utf8(out, mark.code_point);
  return out;
}

void Form::decompose(std::string_view text, std::vector<Mark>& out) const {
  for (size_t offset = 0; offset < text.size();) {
    const uint32_t code_point = utf8_next(text, offset);
    const Record record = record_of(code_point);
    const uint32_t syllable = code_point - kSBase;
    if ((record.flags & kHangul) != 0 && syllable < kSCount) {
      out.push_back({kLBase + syllable / (kVCount * kTCount), 0});
      out.push_back({kVBase + syllable / kTCount % kVCount, 0});
      if (syllable % kTCount != 0) out.push_back({kTBase + syllable % kTCount, 0});
    } else if ((record.flags & kMapped) != 0) {
      const std::string_view mapped = texts_.substr(record.offset, record.n_bytes);
      for (size_t at = 0; at < mapped.size();) {
        const uint32_t part = utf8_next(mapped, at);
        out.push_back({part, record_of(part).combining_class});
      }
    } else {
      out.push_back({code_point, record.combining_class});
    }
  }
}

uint32_t Form::composite(uint32_t first, uint32_t second) const {
  if (first - kLBase < kLCount && second - kVBase < kVCount) {
    return kSBase + ((first - kLBase) * kVCount + (second - kVBase)) * kTCount;
  }
  if (first - kSBase < kSCount && (first - kSBase) % kTCount == 0 && second > kTBase &&
      second < kTBase + kTCount) {
    return first + (second - kTBase);
  }
  const uint64_t key = uint64_t{first} << 32 | second;
  size_t low = 0;
  size_t high = pairs_.size() / 3;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    const uint64_t found = uint64_t{pairs_[middle * 3]} << 32 | pairs_[middle * 3 + 1];
    if (found == key) return pairs_[middle * 3 + 2];
    if (found < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return 0;
}

void Form::compose(std::vector<Mark>& marks) const {
  constexpr size_t kNone = SIZE_MAX;
  size_t starter = kNone;
  size_t n_kept = 0;
  for (size_t i = 0; i < marks.size(); ++i) {
    const Mark mark = marks[i];
    // What stands between the starter and this mark blocks it unless its class is lower.
    const bool adjacent = starter != kNone && starter + 1 == n_kept;
    const bool open = adjacent || (starter != kNone && mark.combining_class != 0 &&
                                   marks[n_kept - 1].combining_class < mark.combining_class);
    const uint32_t joined = open ? composite(marks[starter].code_point, mark.code_point) : 0;
    if (joined != 0) {
      marks[starter].code_point = joined;
      continue;
    }
    if (mark.combining_class == 0) starter = n_kept;
    marks[n_kept++] = mark;
  }
  marks.resize(n_kept);
}

Result<FormSet> FormSet::create(const Sections& sections) {
  FormSet set;
  if (!sections.has(SectionId::kForms)) return set;
  EDGE_ASSIGN_OR_RETURN(const auto bytes, sections.get(SectionId::kForms, "normal forms"));
  SectionReader reader(bytes);
  const uint32_t n_forms = reader.u32();
  if (reader.failed() || n_forms > kMaxForms) return invalid_tokenizer("too many normal forms");
  for (uint32_t i = 0; i < n_forms; ++i) {
    EDGE_ASSIGN_OR_RETURN(Form form, Form::create(reader, "normal form " + std::to_string(i)));
    set.forms_.push_back(form);
  }
  if (!reader.at_end()) return invalid_tokenizer("normal forms have trailing bytes");
  return set;
}

}  // namespace edge
