#include "tokenizer/blob.h"

#include "base/checked.h"

namespace edge {

namespace {
constexpr std::string_view kMagic = "EDGETOKN";
constexpr size_t kHeaderBytes = 32;
constexpr size_t kEntryBytes = 24;
constexpr uint32_t kMaxSections = 64;
}  // namespace

Status invalid_tokenizer(const std::string& what) {
  return {Code::kTokenizerInvalid, "tokenizer: " + what + "; convert the model again"};
}

Status unsupported_tokenizer(const std::string& what) {
  return {Code::kTokenizerUnsupported, "tokenizer: " + what + "; update edgellm"};
}

uint32_t SectionReader::u32() {
  const auto bytes = take(4);
  return failed_ ? 0 : load_le<uint32_t>(bytes.data());
}

std::span<const std::byte> SectionReader::take(uint64_t n_bytes) {
  if (failed_ || n_bytes > n_left()) {
    failed_ = true;
    return {};
  }
  const auto part = bytes_.subspan(offset_, static_cast<size_t>(n_bytes));
  offset_ += static_cast<size_t>(n_bytes);
  return part;
}

void SectionReader::align4() { take((4 - offset_ % 4) % 4); }

Result<Sections> Sections::parse(std::span<const std::byte> blob) {
  if (blob.size() < kHeaderBytes) return invalid_tokenizer("blob is shorter than its header");
  if (as_text(blob.first(kMagic.size())) != kMagic) return invalid_tokenizer("wrong magic");
  const uint32_t version = load_le<uint32_t>(blob.data() + 8);
  if (version != kBlobVersion) {
    return unsupported_tokenizer("blob version " + std::to_string(version) +
                                 " is unknown (this build reads 1)");
  }
  const uint32_t n_sections = load_le<uint32_t>(blob.data() + 12);
  const uint64_t total_bytes = load_le<uint64_t>(blob.data() + 16);
  const uint32_t features = load_le<uint32_t>(blob.data() + 24);
  if (features != 0) {
    return unsupported_tokenizer("needs feature bits " + std::to_string(features));
  }
  if (load_le<uint32_t>(blob.data() + 28) != 0) return invalid_tokenizer("reserved bytes are set");
  if (total_bytes > blob.size()) return invalid_tokenizer("blob is cut short");
  if (n_sections > kMaxSections) return invalid_tokenizer("too many sections");
  const uint64_t directory_end = kHeaderBytes + uint64_t{n_sections} * kEntryBytes;
  if (directory_end > total_bytes) return invalid_tokenizer("directory past end of blob");

  Sections sections;
  uint64_t previous_end = directory_end;
  uint32_t previous_id = 0;
  for (uint32_t i = 0; i < n_sections; ++i) {
    const std::byte* entry = blob.data() + kHeaderBytes + size_t{i} * kEntryBytes;
    const uint32_t id = load_le<uint32_t>(entry);
    const uint64_t offset = load_le<uint64_t>(entry + 8);
    const uint64_t n_bytes = load_le<uint64_t>(entry + 16);
    const std::string name = "section " + std::to_string(id);
    if (id <= previous_id) return invalid_tokenizer(name + " is out of order or a duplicate");
    if (load_le<uint32_t>(entry + 4) != 0) return invalid_tokenizer(name + ": reserved bytes set");
    const auto end = checked_add(offset, n_bytes);
    if (offset < previous_end || !end || *end > total_bytes) {
      return invalid_tokenizer(name + " overlaps or ends past the blob");
    }
    if (id > static_cast<uint32_t>(kLastSection) && id < kOptionalSections) {
      return unsupported_tokenizer(name + " is unknown");
    }
    sections.entries_.push_back(
        {id, blob.subspan(static_cast<size_t>(offset), static_cast<size_t>(n_bytes))});
    previous_end = *end;
    previous_id = id;
  }
  return sections;
}

bool Sections::has(SectionId id) const {
  for (const Entry& entry : entries_) {
    if (entry.id == static_cast<uint32_t>(id)) return true;
  }
  return false;
}

Result<std::span<const std::byte>> Sections::get(SectionId id, std::string_view name) const {
  for (const Entry& entry : entries_) {
    if (entry.id == static_cast<uint32_t>(id)) return entry.bytes;
  }
  return invalid_tokenizer("section '" + std::string(name) + "' is missing");
}

Result<std::span<const std::byte>> Sections::get_exact(SectionId id, std::string_view name,
                                                       uint64_t n_bytes) const {
  EDGE_ASSIGN_OR_RETURN(const auto bytes, get(id, name));
  if (bytes.size() != n_bytes) {
    return invalid_tokenizer("section '" + std::string(name) + "' has " +
                             std::to_string(bytes.size()) + " bytes, expected " +
                             std::to_string(n_bytes));
  }
  return bytes;
}

}  // namespace edge
