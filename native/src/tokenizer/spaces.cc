#include "tokenizer/spaces.h"

#include "tokenizer/utf8.h"

namespace edge {

namespace {
constexpr size_t kMaxRangeBytes = 64 * 8;  // a lookup reads them all
}  // namespace

Result<SpaceSet> SpaceSet::create(const Sections& sections) {
  EDGE_ASSIGN_OR_RETURN(const auto bytes, sections.get(SectionId::kSpaces, "spaces"));
  if (bytes.size() % 8 != 0) return invalid_tokenizer("space ranges are not pairs");
  if (bytes.size() > kMaxRangeBytes) return invalid_tokenizer("too many space ranges");
  SpaceSet set;
  set.ranges_ = TableView<uint32_t>(bytes);
  return set;
}

bool SpaceSet::contains(uint32_t code_point) const {
  for (size_t i = 0; i + 1 < ranges_.size(); i += 2) {
    if (code_point >= ranges_[i] && code_point <= ranges_[i + 1]) return true;
  }
  return false;
}

size_t SpaceSet::before(std::string_view text, size_t end) const {
  while (end > 0) {
    const size_t begin = utf8_previous(text, end);
    size_t offset = begin;
    if (!contains(utf8_next(text, offset))) break;
    end = begin;
  }
  return end;
}

size_t SpaceSet::after(std::string_view text, size_t begin) const {
  while (begin < text.size()) {
    size_t offset = begin;
    if (!contains(utf8_next(text, offset))) break;
    begin = offset;
  }
  return begin;
}

}  // namespace edge
