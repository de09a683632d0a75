#include "runtime/session_file.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <limits>
#include <utility>

#include "base/checked.h"
#include "base/sha256.h"
#include "base/thread_pool.h"
#include "base/xxh64.h"
#include "format/json.h"
#include "runtime/kv_plan.h"

namespace edge {
namespace {

constexpr char kMagic[] = {'e', 'd', 'g', 'e', 's', 'e', 's', 's'};
constexpr uint32_t kVersion = 1;
constexpr size_t kPrefixBytes = 16;  // magic, version, length of the header
constexpr size_t kDigestBytes = 32;
constexpr size_t kMaxHeaderBytes = size_t{1} << 20;
constexpr size_t kMaxGroups = 4096;
constexpr const char* kSectionNames[] = {"note", "ids", "logits", "page_sums"};
enum SectionIndex : size_t { kNote, kIds, kLogits, kPageSums, kSections };

struct IdentityField {
  const char* key;
  std::string SessionIdentity::* text;
  const char* difference;  // of a file that has another one
};

constexpr IdentityField kFields[] = {
    {"model", &SessionIdentity::model, "another model"},
    {"spec", &SessionIdentity::spec, "a model with another spec"},
    {"tokenizer", &SessionIdentity::tokenizer, "another tokenizer"},
    {"kv_format", &SessionIdentity::kv_format, "another KV format"},
    {"kv_layout", &SessionIdentity::kv_layout, "another layout of KV pages"},
    {"rope", &SessionIdentity::rope, "another choice between short and long rotary tables"},
    {"adapter", &SessionIdentity::adapter, "another adapter"},
};

std::string hex64(uint64_t value) {
  std::string digits(16, '0');
  for (size_t i = 0; i < 16; ++i) digits[i] = "0123456789abcdef"[value >> (60 - 4 * i) & 15];
  return digits;
}

std::string quoted(std::string_view text) {
  std::string safe = "\"";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    safe += code < 0x20 || code > 0x7E || c == '"' || c == '\\' ? '?' : c;
  }
  return safe + '"';
}

std::string shown(std::string_view text) {
  return text.empty() ? "none" : printable(text.substr(0, 16));
}

template <class T>
std::span<const std::byte> bytes_of(std::span<const T> values) {
  return std::as_bytes(values);
}

std::string section_text(size_t index, std::span<const std::byte> bytes) {
  return quoted(kSectionNames[index]) + ":{\"n_bytes\":" + std::to_string(bytes.size()) +
         ",\"xxh64\":\"" + hex64(xxh64(bytes)) + "\"}";
}

std::string header_of(const SessionContent& content, std::span<const std::byte> page_sums) {
  std::string text = "{\"identity\":{";
  for (const IdentityField& field : kFields) {
    if (text.back() != '{') text += ',';
    text += quoted(field.key) + ':' + quoted(content.identity.*field.text);
  }
  text += "},\"n_kv_tokens\":" + std::to_string(content.n_kv_tokens);
  const std::span<const char> note(content.note.data(), content.note.size());
  text += "," + section_text(kNote, bytes_of(note));
  text += "," + section_text(kIds, bytes_of(content.ids));
  text += "," + section_text(kLogits, bytes_of(content.logits));
  text += "," + section_text(kPageSums, page_sums) + ",\"groups\":[";
  for (const SessionGroup& group : content.groups) {
    if (text.back() != '[') text += ',';
    text += "{\"first_page\":" + std::to_string(group.first_page) +
            ",\"n_pages\":" + std::to_string(group.n_pages) +
            ",\"window\":" + std::to_string(group.window) +
            ",\"page_bytes\":" + std::to_string(group.page_bytes) +
            ",\"first_page_bytes\":" + std::to_string(group.first_page_bytes) + "}";
  }
  return text + "]}";
}

// Magic, version, length, digest over these and the header.
std::string prefix_of(std::string_view header) {
  std::string prefix(kPrefixBytes, '\0');
  std::memcpy(prefix.data(), kMagic, sizeof kMagic);
  std::memcpy(prefix.data() + 8, &kVersion, sizeof kVersion);
  const auto n_bytes = static_cast<uint32_t>(header.size());
  std::memcpy(prefix.data() + 12, &n_bytes, sizeof n_bytes);
  Sha256 hash;
  hash.update(std::as_bytes(std::span(prefix)));
  hash.update(std::as_bytes(std::span(header)));
  const Sha256Digest digest = hash.finish();
  return prefix.append(reinterpret_cast<const char*>(digest.data()), digest.size());
}

Result<int> get_count(const Json& object, std::string_view key, std::string_view where,
                      int64_t most) {
  EDGE_ASSIGN_OR_RETURN(const int64_t value, object.get_int(key, where));
  if (value >= 0 && value <= most) return static_cast<int>(value);
  return {Code::kSessionInvalid, std::string(where) + "." + std::string(key) + " is " +
                                     std::to_string(value) + "; it must be from 0 to " +
                                     std::to_string(most)};
}

Result<uint64_t> get_sum(const Json& section, std::string_view where) {
  EDGE_ASSIGN_OR_RETURN(const std::string digits, section.get_string("xxh64", where));
  uint64_t sum = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), sum, 16);
  if (error == std::errc() && end == digits.data() + digits.size() && digits == hex64(sum)) {
    return sum;
  }
  return {Code::kSessionInvalid, std::string(where) + ".xxh64 must be 16 lower-case hex digits"};
}

Result<SessionGroup> group_of(const Json& item, std::string_view where) {
  constexpr int kMost = std::numeric_limits<int>::max();
  EDGE_RETURN_IF_ERROR(
      item.only_keys({"first_page", "n_pages", "window", "page_bytes", "first_page_bytes"}, where));
  SessionGroup group;
  EDGE_ASSIGN_OR_RETURN(group.first_page, get_count(item, "first_page", where, kMost));
  EDGE_ASSIGN_OR_RETURN(group.n_pages, get_count(item, "n_pages", where, kMost));
  EDGE_ASSIGN_OR_RETURN(group.window, get_count(item, "window", where, kMost));
  EDGE_ASSIGN_OR_RETURN(const int page_bytes, get_count(item, "page_bytes", where, kMost));
  EDGE_ASSIGN_OR_RETURN(const int first_bytes, get_count(item, "first_page_bytes", where, kMost));
  group.page_bytes = static_cast<uint64_t>(page_bytes);
  group.first_page_bytes = static_cast<uint64_t>(first_bytes);
  return group;
}

// A section as values of its own: the file gives no alignment.
template <class T>
Status copy_values(std::span<const std::byte> bytes, std::string_view name, std::vector<T>& to) {
  if (bytes.size() % sizeof(T) != 0) {
    return {Code::kSessionInvalid, std::string(name) + " has " + std::to_string(bytes.size()) +
                                       " bytes, which are no whole values"};
  }
  to.resize(bytes.size() / sizeof(T));
  if (!bytes.empty()) std::memcpy(to.data(), bytes.data(), bytes.size());
  return {};
}

}  // namespace

std::vector<std::pair<std::string, std::string>> SessionIdentity::items() const {
  std::vector<std::pair<std::string, std::string>> items;
  for (const IdentityField& field : kFields) items.emplace_back(field.key, this->*field.text);
  return items;
}

Status SessionIdentity::check_same(const SessionIdentity& current) const {
  std::string differences;
  for (const IdentityField& field : kFields) {
    const std::string& saved = this->*field.text;
    const std::string& wanted = current.*field.text;
    if (saved == wanted) continue;
    differences += (differences.empty() ? "" : ", ") + std::string(field.difference) + " (" +
                   shown(saved) + ", here " + shown(wanted) + ")";
  }
  if (differences.empty()) return {};
  return {Code::kSessionMismatch,
          "was saved with " + differences +
              "; open it with what it was saved with, or restore it without its KV, which is then "
              "computed again"};
}

Status write_session_file(const std::string& path, const SessionContent& content, int n_threads) {
  if (content.note.size() > kMaxSessionNoteBytes) {
    return {Code::kInvalidArgument, "the note has " + std::to_string(content.note.size()) +
                                        " bytes; it may have " +
                                        std::to_string(kMaxSessionNoteBytes)};
  }
  std::vector<uint64_t> sums(content.pages.size());
  parallel_for(n_threads, static_cast<int64_t>(sums.size()), [&](int64_t i, int) {
    sums[static_cast<size_t>(i)] = xxh64(content.pages[static_cast<size_t>(i)]);
  });
  const std::span<const std::byte> sum_bytes = bytes_of(std::span<const uint64_t>(sums));
  const std::string header = header_of(content, sum_bytes);
  const std::string prefix = prefix_of(header);
  std::vector<std::span<const std::byte>> parts{
      std::as_bytes(std::span(prefix)),
      std::as_bytes(std::span(header)),
      std::as_bytes(std::span(content.note)),
      bytes_of(content.ids),
      bytes_of(content.logits),
      sum_bytes,
  };
  parts.insert(parts.end(), content.pages.begin(), content.pages.end());
  remove_stale_temporaries(path);
  return atomic_write_parts(path, parts);
}

Result<std::shared_ptr<const SessionFile>> SessionFile::open(const std::string& path) {
  EDGE_ASSIGN_OR_RETURN(MappedFile map, MappedFile::open(path));
  const auto file = std::make_shared<SessionFile>();
  file->map_ = std::move(map);
  file->bytes_ = file->map_.bytes();
  file->path_ = path;
  if (Status status = file->parse(); !status.is_ok()) return status.with_context(path);
  return std::shared_ptr<const SessionFile>(file);
}

Result<std::shared_ptr<const SessionFile>> SessionFile::from_bytes(std::span<const std::byte> bytes,
                                                                   std::string name) {
  const auto file = std::make_shared<SessionFile>();
  file->bytes_ = bytes;
  file->path_ = std::move(name);
  if (Status status = file->parse(); !status.is_ok()) return status.with_context(file->path_);
  return std::shared_ptr<const SessionFile>(file);
}

Status SessionFile::parse() {
  if (bytes_.size() < sizeof kMagic || std::memcmp(bytes_.data(), kMagic, sizeof kMagic) != 0) {
    return {Code::kSessionInvalid, "is no saved session; give a file that save() has written"};
  }
  if (bytes_.size() < kPrefixBytes + kDigestBytes) {
    return {Code::kSessionTruncated, "ends within its first 48 bytes; save the session again"};
  }
  uint32_t version = 0, n_header = 0;
  std::memcpy(&version, bytes_.data() + 8, sizeof version);
  std::memcpy(&n_header, bytes_.data() + 12, sizeof n_header);
  if (version != kVersion) {
    return {Code::kVersionUnsupported, "is a saved session of version " + std::to_string(version) +
                                           "; this edgellm reads version " +
                                           std::to_string(kVersion)};
  }
  if (n_header > kMaxHeaderBytes) {
    return {Code::kSessionInvalid, "has a header of " + std::to_string(n_header) +
                                       " bytes; at most " + std::to_string(kMaxHeaderBytes) +
                                       " are allowed"};
  }
  const uint64_t at = kPrefixBytes + kDigestBytes + n_header;
  if (at > bytes_.size()) {
    return {Code::kSessionTruncated, "ends within its header; save the session again"};
  }
  const std::string_view header(
      reinterpret_cast<const char*>(bytes_.data()) + kPrefixBytes + kDigestBytes, n_header);
  const std::string prefix = prefix_of(header);
  if (std::memcmp(prefix.data(), bytes_.data(), prefix.size()) != 0) {
    return {Code::kSessionHash, "the header is damaged: its SHA-256 differs"};
  }
  EDGE_RETURN_IF_ERROR(parse_header(header));
  return parse_sections(at);
}

Status SessionFile::parse_header(std::string_view text) {
  EDGE_ASSIGN_OR_RETURN(const Json root, Json::parse(text));
  EDGE_RETURN_IF_ERROR(root.only_keys(
      {"identity", "n_kv_tokens", "note", "ids", "logits", "page_sums", "groups"}, "header"));
  EDGE_ASSIGN_OR_RETURN(const Json* identity, root.get_object("identity", "header"));
  for (const IdentityField& field : kFields) {
    EDGE_ASSIGN_OR_RETURN(identity_.*field.text, identity->get_string(field.key, "identity"));
  }
  if (identity->members().size() != std::size(kFields)) {
    return {Code::kSessionInvalid, "identity has keys that this version does not know"};
  }
  EDGE_ASSIGN_OR_RETURN(n_kv_tokens_, get_count(root, "n_kv_tokens", "header",
                                                std::numeric_limits<int>::max() - kPageTokens));
  for (const char* name : kSectionNames) {
    EDGE_ASSIGN_OR_RETURN(const Json* item, root.get_object(name, "header"));
    EDGE_RETURN_IF_ERROR(item->only_keys({"n_bytes", "xxh64"}, name));
    Section section;
    EDGE_ASSIGN_OR_RETURN(const int64_t n_bytes, item->get_int("n_bytes", name));
    if (n_bytes < 0) return {Code::kSessionInvalid, std::string(name) + ".n_bytes is negative"};
    section.n_bytes = static_cast<uint64_t>(n_bytes);
    EDGE_ASSIGN_OR_RETURN(section.sum, get_sum(*item, name));
    sections_.push_back(section);
  }
  EDGE_ASSIGN_OR_RETURN(const Json* groups, root.get_array("groups", "header"));
  if (groups->items().size() > kMaxGroups) {
    return {Code::kSessionInvalid, "header.groups has more than 4096 items"};
  }
  for (const Json& item : groups->items()) {
    const std::string where = "groups[" + std::to_string(groups_.size()) + "]";
    EDGE_ASSIGN_OR_RETURN(const SessionGroup group, group_of(item, where));
    groups_.push_back(group);
  }
  return {};
}

// Pages as a sequence of so many tokens holds them, and what they take.
Status SessionFile::check_pages(uint64_t& n_pages, uint64_t& n_bytes) const {
  for (size_t g = 0; g < groups_.size(); ++g) {
    const SessionGroup& group = groups_[g];
    const bool has_all = int64_t{group.first_page} + group.n_pages == n_pages_for(n_kv_tokens_);
    const int first_needed = first_seen(group.window, n_kv_tokens_);
    if (!has_all || int64_t{group.first_page} * kPageTokens > first_needed) {
      return {Code::kSessionInvalid,
              "groups[" + std::to_string(g) + "] has pages " + std::to_string(group.first_page) +
                  " and " + std::to_string(group.n_pages - 1) + " more, not those of " +
                  std::to_string(n_kv_tokens_) + " tokens"};
    }
    if (group.page_bytes == 0 || group.first_page_bytes == 0) {
      return {Code::kSessionInvalid, "groups[" + std::to_string(g) + "] has pages of no bytes"};
    }
    // Below 2^64: both factors of a term are below 2^31, and there are at most 2^12 groups.
    n_pages += static_cast<uint64_t>(group.n_pages);
    const int n_first = std::clamp(kFirstPages - group.first_page, 0, group.n_pages);
    const auto n_other = static_cast<uint64_t>(group.n_pages - n_first);
    const auto sum =
        checked_add(n_bytes, n_other * group.page_bytes +
                                 static_cast<uint64_t>(n_first) * group.first_page_bytes);
    if (!sum) return {Code::kSessionInvalid, "the pages take more bytes than a file can have"};
    n_bytes = *sum;
  }
  return {};
}

Status SessionFile::parse_sections(uint64_t at) {
  uint64_t n_pages = 0, n_page_bytes = 0;
  EDGE_RETURN_IF_ERROR(check_pages(n_pages, n_page_bytes));
  std::optional<uint64_t> end = checked_add(at, n_page_bytes);
  for (const Section& section : sections_) {
    if (end) end = checked_add(*end, section.n_bytes);
  }
  if (!end || *end > bytes_.size()) {
    return {Code::kSessionTruncated, "has " + std::to_string(bytes_.size()) +
                                         " bytes, fewer than its header says; save the session "
                                         "again"};
  }
  if (*end < bytes_.size()) {
    return {Code::kTrailingBytes, "has " + std::to_string(bytes_.size() - *end) +
                                      " bytes after its end; save the session again"};
  }
  if (sections_[kNote].n_bytes > kMaxSessionNoteBytes) {
    return {Code::kSessionInvalid, "note is longer than 64 MiB"};
  }
  std::array<std::span<const std::byte>, kSections> found;
  for (size_t i = 0; i < kSections; ++i) {
    found[i] = bytes_.subspan(at, sections_[i].n_bytes);
    at += sections_[i].n_bytes;
    if (xxh64(found[i]) == sections_[i].sum) continue;
    return {Code::kSessionHash, std::string(kSectionNames[i]) + ": damaged, its XXH64 differs"};
  }
  note_ = {reinterpret_cast<const char*>(found[kNote].data()), found[kNote].size()};
  EDGE_RETURN_IF_ERROR(copy_values(found[kIds], "ids", ids_));
  EDGE_RETURN_IF_ERROR(copy_values(found[kLogits], "logits", logits_));
  EDGE_RETURN_IF_ERROR(copy_values(found[kPageSums], "page_sums", page_sums_));
  if (page_sums_.size() != n_pages || static_cast<size_t>(n_kv_tokens_) > ids_.size() ||
      ids_.size() > static_cast<size_t>(std::numeric_limits<int>::max() - kPageTokens)) {
    return {Code::kSessionInvalid, "has " + std::to_string(ids_.size()) + " ids, KV of " +
                                       std::to_string(n_kv_tokens_) + ", " +
                                       std::to_string(n_pages) + " pages and " +
                                       std::to_string(page_sums_.size()) + " sums of pages"};
  }
  for (const SessionGroup& group : groups_) {
    for (int i = 0; i < group.n_pages; ++i) {
      page_offsets_.push_back(at);
      at += group.bytes_of(group.first_page + i);
    }
  }
  return {};
}

Status SessionFile::read_page(size_t i, std::span<std::byte> to) const {
  std::memcpy(to.data(), bytes_.data() + page_offsets_[i], to.size());
  if (xxh64(to) == page_sums_[i]) return {};
  return {Code::kSessionHash,
          path_ + ": page " + std::to_string(i) +
              " of the KV is damaged: its XXH64 differs; restore it without its KV, which is then "
              "computed again"};
}

}  // namespace edge
