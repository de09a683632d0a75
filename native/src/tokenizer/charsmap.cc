#include "tokenizer/charsmap.h"

#include "tokenizer/utf8.h"

namespace edge {

namespace {
constexpr uint32_t kMaxReplacements = 1u << 24;
constexpr size_t kShortCluster = 5;  // bytes; HF looks up longer ones character by character
}  // namespace

// Layout: u32 n, u32 offsets[n + 1], the texts padded to 4 bytes, the trie, the cluster table.
Result<Charsmap> Charsmap::create(const Sections& sections) {
  Charsmap map;
  if (!sections.has(SectionId::kCharsmap)) return map;
  EDGE_ASSIGN_OR_RETURN(const auto bytes, sections.get(SectionId::kCharsmap, "charsmap"));
  SectionReader reader(bytes);
  const uint32_t n = reader.u32();
  if (reader.failed() || n > kMaxReplacements) {
    return invalid_tokenizer("charsmap: number of replacements is out of range");
  }
  map.offsets_ = TableView<uint32_t>(reader.take((uint64_t{n} + 1) * 4));
  if (reader.failed()) return invalid_tokenizer("charsmap is cut short");
  map.texts_ = as_text(reader.take(map.offsets_[n]));
  reader.align4();
  if (reader.failed() || map.offsets_[0] != 0) return invalid_tokenizer("charsmap is cut short");
  for (uint32_t i = 0; i < n; ++i) {
    const uint32_t begin = map.offsets_[i];
    const uint32_t end = map.offsets_[size_t{i} + 1];
    if (end < begin || end > map.texts_.size() ||
        utf8_invalid_at(map.texts_.substr(begin, end - begin)) != std::string_view::npos) {
      return invalid_tokenizer("charsmap: replacement " + std::to_string(i) + " is damaged");
    }
  }
  EDGE_ASSIGN_OR_RETURN(map.trie_, ByteTrie::create(reader, "charsmap trie", n));
  EDGE_ASSIGN_OR_RETURN(map.graphemes_, Graphemes::create(reader, "charsmap clusters"));
  if (!reader.at_end()) return invalid_tokenizer("charsmap has trailing bytes");
  map.exists_ = true;
  return map;
}

bool Charsmap::replace(std::string_view part, std::string& out) const {
  uint32_t node = ByteTrie::kRoot;
  for (const char c : part) {
    node = trie_.child(node, static_cast<uint8_t>(c));
    if (node == ByteTrie::kNone) return false;
    const uint32_t i = trie_.value(node);
    if (i == ByteTrie::kNone) continue;
    out.append(texts_.substr(offsets_[i], offsets_[size_t{i} + 1] - offsets_[i]));
    return true;
  }
  return false;
}

Result<std::string> Charsmap::apply(std::string_view text) const {
  const size_t max_bytes = max_grown_bytes(text.size());
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = graphemes_.cluster_end(text, begin);
    const std::string_view cluster = text.substr(begin, end - begin);
    if (cluster.size() > kShortCluster || !replace(cluster, out)) {
      for (size_t offset = 0; offset < cluster.size();) {
        const size_t from = offset;
        utf8_next(cluster, offset);
        const std::string_view character = cluster.substr(from, offset - from);
        if (!replace(character, out)) out.append(character);
      }
    }
    begin = end;
    if (out.size() > max_bytes) return invalid_tokenizer("normalizing grows the text too much");
  }
  return out;
}

}  // namespace edge
