#include "tokenizer/added_tokens.h"

#include <algorithm>

#include "tokenizer/utf8.h"

namespace edge {

namespace {

constexpr uint32_t kFlagSpecial = 1;
constexpr uint32_t kFlagStripLeft = 2;
constexpr uint32_t kFlagStripRight = 4;
constexpr uint32_t kMaxAdded = 1u << 20;
constexpr uint32_t kMaxAddedBytes = 512;  // bounds the work at one position of a text

}  // namespace

Result<AddedTokens::Lists> AddedTokens::create(const Sections& sections, const SpaceSet& spaces,
                                               uint32_t n_vocab) {
  EDGE_ASSIGN_OR_RETURN(const auto bytes, sections.get(SectionId::kAdded, "added tokens"));
  SectionReader reader(bytes);
  const uint32_t n_raw = reader.u32();
  const uint32_t n_normalized = reader.u32();
  if (reader.failed() || n_raw > kMaxAdded || n_normalized > kMaxAdded) {
    return invalid_tokenizer("too many added tokens");
  }
  const uint64_t table_bytes = (uint64_t{n_raw} + n_normalized) * 16;
  const auto table = reader.take(table_bytes);
  const auto texts = reader.take(reader.n_left());
  if (reader.failed()) return invalid_tokenizer("added tokens are cut short");
  SectionReader entries(table);
  Lists lists;
  EDGE_RETURN_IF_ERROR(lists.raw.read_tokens(entries, n_raw, as_text(texts), n_vocab));
  EDGE_RETURN_IF_ERROR(
      lists.normalized.read_tokens(entries, n_normalized, as_text(texts), n_vocab));
  lists.raw.spaces_ = spaces;
  lists.normalized.spaces_ = spaces;
  return lists;
}

Status AddedTokens::read_tokens(SectionReader& reader, uint32_t n_tokens, std::string_view texts,
                                uint32_t n_vocab) {
  tokens_.reserve(n_tokens);
  for (uint32_t i = 0; i < n_tokens; ++i) {
    const std::string name = "added token " + std::to_string(i);
    const uint32_t offset = reader.u32();
    const uint32_t n_bytes = reader.u32();
    const uint32_t id = reader.u32();
    const uint32_t flags = reader.u32();
    if (n_bytes == 0 || n_bytes > kMaxAddedBytes || offset > texts.size() ||
        n_bytes > texts.size() - offset) {
      return invalid_tokenizer(name + ": text is empty, too long or past the end");
    }
    if (id >= n_vocab) return invalid_tokenizer(name + ": id is out of range");
    if (flags > 7) return unsupported_tokenizer(name + ": unknown flags");
    const std::string_view text = texts.substr(offset, n_bytes);
    if (utf8_invalid_at(text) != std::string_view::npos) {
      return invalid_tokenizer(name + ": text is not UTF-8");
    }
    if (!tokens_.empty() && tokens_.back().text >= text) {
      return invalid_tokenizer(name + " is out of order or a duplicate");
    }
    tokens_.push_back({text, static_cast<int32_t>(id), flags});
    first_[static_cast<uint8_t>(text[0]) + 1] = i + 1;
  }
  // Bytes that start no token get an empty range.
  for (size_t byte = 1; byte <= 256; ++byte)
    first_[byte] = std::max(first_[byte], first_[byte - 1]);
  return Status::ok();
}

int64_t AddedTokens::longest_at(std::string_view text) const {
  const auto first = static_cast<uint8_t>(text[0]);
  size_t low = first_[first];
  size_t high = first_[size_t{first} + 1];
  int64_t best = -1;
  // [low, high) are the tokens that agree with the text in the first `depth` bytes.
  for (size_t depth = 1; low < high; ++depth) {
    if (tokens_[low].text.size() == depth) {
      best = static_cast<int64_t>(low);
      ++low;
    }
    if (depth >= text.size()) break;
    const auto next = static_cast<uint8_t>(text[depth]);
    const auto at = [&](const Token& token) { return static_cast<uint8_t>(token.text[depth]); };
    const auto begin = tokens_.begin() + static_cast<ptrdiff_t>(low);
    const auto end = tokens_.begin() + static_cast<ptrdiff_t>(high);
    const auto from =
        std::partition_point(begin, end, [&](const Token& token) { return at(token) < next; });
    const auto to =
        std::partition_point(from, end, [&](const Token& token) { return at(token) == next; });
    low = static_cast<size_t>(from - tokens_.begin());
    high = static_cast<size_t>(to - tokens_.begin());
  }
  return best;
}

void AddedTokens::split(std::string_view text, bool special, std::vector<Segment>& segments) const {
  size_t done = 0;
  for (size_t offset = 0; !tokens_.empty() && offset < text.size();) {
    const auto first = static_cast<uint8_t>(text[offset]);
    const int64_t found =
        first_[first] == first_[size_t{first} + 1] ? -1 : longest_at(text.substr(offset));
    if (found < 0) {
      ++offset;
      continue;
    }
    const Token& token = tokens_[static_cast<size_t>(found)];
    size_t begin = offset;
    size_t end = offset + token.text.size();
    offset = end;
    if (!special && (token.flags & kFlagSpecial) != 0) continue;
    if ((token.flags & kFlagStripLeft) != 0) begin = std::max(spaces_.before(text, begin), done);
    if ((token.flags & kFlagStripRight) != 0) end = spaces_.after(text, end);
    if (done < begin) segments.push_back({text.substr(done, begin - done), kNotAdded});
    segments.push_back({text.substr(begin, end - begin), token.id});
    done = end;
  }
  if (done < text.size()) segments.push_back({text.substr(done), kNotAdded});
}

}  // namespace edge
