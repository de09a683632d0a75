#include "format/edge_file.h"

#include <algorithm>

#include "base/sha256.h"
#include "format/json.h"
#include "format/tensor_table.h"

namespace edge {

namespace {

constexpr std::string_view kVersion = "0";
constexpr std::string_view kDigestField = "\"edgellm.header_sha256\":\"";
constexpr size_t kHexDigits = 64;

uint64_t load_le64(std::span<const std::byte> bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) value |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  return value;
}

std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// Features of edgellm.requires that this reader understands; none exist so far.
bool is_known_feature(std::string_view) { return false; }

Status check_requires(std::string_view text) {
  auto parsed = Json::parse(text);
  if (!parsed.is_ok()) return parsed.status().with_context("edgellm.requires");
  const Json& names = parsed.value();
  const auto is_string = [](const Json& n) { return n.kind() == Json::Kind::kString; };
  if (names.kind() != Json::Kind::kArray ||
      !std::all_of(names.items().begin(), names.items().end(), is_string)) {
    return {Code::kJsonType, "edgellm.requires is not a list of strings"};
  }
  for (const Json& name : names.items()) {
    if (is_known_feature(name.as_string())) continue;
    return {Code::kFeatureUnsupported,
            "needs feature " + printable(name.as_string()) + ", unknown here; upgrade edgellm"};
  }
  return {};
}

Result<std::vector<std::pair<std::string, std::string>>> read_metadata(const Json& header) {
  const Json* stored = header.find(kMetadataKey);
  if (stored == nullptr) {
    return {Code::kNotAnEdgeFile, "no __metadata__; not an .edge file"};
  }
  if (stored->kind() != Json::Kind::kObject) {
    return {Code::kJsonType, "__metadata__ is not an object"};
  }
  std::vector<std::pair<std::string, std::string>> metadata;
  for (const auto& [key, value] : stored->members()) {
    if (value.kind() != Json::Kind::kString) {
      return {Code::kJsonType, "__metadata__ " + printable(key) + " is not a string"};
    }
    metadata.emplace_back(key, value.as_string());
  }
  return metadata;
}

}  // namespace

Result<std::shared_ptr<const EdgeFile>> EdgeFile::open(const std::string& path) {
  auto file = std::make_shared<EdgeFile>();
  file->path_ = path;
  EDGE_ASSIGN_OR_RETURN(file->map_, MappedFile::open(path));
  file->bytes_ = file->map_.bytes();
  EDGE_RETURN_IF_ERROR(file->parse().with_context(path));
  return std::shared_ptr<const EdgeFile>(std::move(file));
}

Result<std::shared_ptr<const EdgeFile>> EdgeFile::from_bytes(std::span<const std::byte> bytes,
                                                             std::string name) {
  if (reinterpret_cast<uintptr_t>(bytes.data()) % kBlobAlignment != 0) {
    return {Code::kInvalidArgument, name + ": the bytes are not 64-byte aligned"};
  }
  auto file = std::make_shared<EdgeFile>();
  file->path_ = std::move(name);
  file->bytes_ = bytes;
  EDGE_RETURN_IF_ERROR(file->parse().with_context(file->path_));
  return std::shared_ptr<const EdgeFile>(std::move(file));
}

Status EdgeFile::parse() {
  if (bytes_.size() < 8) {
    return {Code::kFileTooSmall, std::to_string(bytes_.size()) + " bytes; " + kCopyAgain};
  }
  const uint64_t n_header = load_le64(bytes_);
  if (n_header > kMaxHeaderBytes) {
    return {Code::kHeaderTooLarge, "header of " + std::to_string(n_header) +
                                       " bytes is over the cap of " +
                                       std::to_string(kMaxHeaderBytes)};
  }
  data_start_ = 8 + n_header;
  if (data_start_ > bytes_.size()) {
    return {Code::kHeaderTruncated, std::to_string(bytes_.size()) + " bytes, header of " +
                                        std::to_string(n_header) + "; " + kCopyAgain};
  }
  const std::string_view header(reinterpret_cast<const char*>(bytes_.data()) + 8,
                                static_cast<size_t>(n_header));
  if (!header.starts_with('{')) {
    return {Code::kNotAnEdgeFile, "the header does not start with '{'"};
  }
  auto parsed = Json::parse(header);
  if (!parsed.is_ok()) return parsed.status().with_context("header");
  const Json& document = parsed.value();
  EDGE_ASSIGN_OR_RETURN(metadata_, read_metadata(document));
  EDGE_RETURN_IF_ERROR(check_metadata(header));
  auto described = Json::parse(metadata("edgellm.tensors"));
  if (!described.is_ok()) return described.status().with_context("edgellm.tensors");
  if (described.value().kind() != Json::Kind::kObject) {
    return {Code::kJsonType, "edgellm.tensors is not an object"};
  }
  EDGE_ASSIGN_OR_RETURN(
      tensors_, read_tensor_table(document, described.value(), bytes_.subspan(data_start_)));
  for (size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
  return check_root();
}

Status EdgeFile::check_metadata(std::string_view header) const {
  const auto has = [&](std::string_view key) {
    return std::any_of(metadata_.begin(), metadata_.end(),
                       [&](const auto& pair) { return pair.first == key; });
  };
  if (!has("edgellm.version")) {
    return {Code::kNotAnEdgeFile, "no edgellm.version; not an .edge file"};
  }
  if (metadata("edgellm.version") != kVersion) {
    return {Code::kVersionUnsupported, "format version " + printable(metadata("edgellm.version")) +
                                           ", this reader knows '0'; upgrade edgellm or convert "
                                           "again"};
  }
  for (const std::string_view key : {"edgellm.header_sha256", "edgellm.root", "edgellm.requires",
                                     "edgellm.spec", "edgellm.tensors"}) {
    if (!has(key)) return {Code::kJsonMissingKey, "no " + std::string(key) + " in __metadata__"};
  }
  EDGE_RETURN_IF_ERROR(check_header_hash(header));
  EDGE_RETURN_IF_ERROR(check_requires(metadata("edgellm.requires")));
  if (data_start_ % kDataAlignment != 0) {
    return {Code::kDataMisaligned, "data starts at " + std::to_string(data_start_) +
                                       ", not at a multiple of " + std::to_string(kDataAlignment)};
  }
  return {};
}

// The digest covers the length and the header with its own digits as zeros. The digits must stand
// exactly once in the text, so that there is no doubt which bytes are left out.
Status EdgeFile::check_header_hash(std::string_view header) const {
  const std::string_view want = metadata("edgellm.header_sha256");
  const size_t field = header.find(kDigestField);
  const Status bad(Code::kHeaderHash, "edgellm.header_sha256 is not 64 hex digits");
  if (field == header.npos || header.find(kDigestField, field + 1) != header.npos) return bad;
  const size_t digits = field + kDigestField.size();
  if (want.size() != kHexDigits || header.substr(digits, kHexDigits) != want) return bad;
  Sha256 hash;
  hash.update(bytes_.first(8));
  hash.update(as_bytes(header.substr(0, digits)));
  hash.update(as_bytes(std::string(kHexDigits, '0')));
  hash.update(as_bytes(header.substr(digits + kHexDigits)));
  if (to_hex(hash.finish()) == want) return {};
  return {Code::kHeaderHash, "the header is damaged; get the file again"};
}

Status EdgeFile::check_root() const {
  const TensorEntry& hashes = tensors_.back();
  const auto stored = bytes_.subspan(data_start_ + hashes.offset);  // with its padding
  std::byte n_hashed[8];
  for (size_t i = 0; i < 8; ++i) n_hashed[i] = static_cast<std::byte>(hashes.offset >> (8 * i));
  Sha256 hash;
  hash.update(stored);
  hash.update(n_hashed);
  if (to_hex(hash.finish()) == root_hex()) return {};
  return {Code::kRootHash, "the leaf hashes do not match the root; get the file again"};
}

std::string_view EdgeFile::metadata(std::string_view key) const {
  for (const auto& [name, value] : metadata_) {
    if (name == key) return value;
  }
  return {};
}

const TensorEntry* EdgeFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

std::span<const std::byte> EdgeFile::hashed_bytes() const {
  return bytes_.subspan(data_start_, tensors_.back().offset);
}

std::span<const std::byte> EdgeFile::leaf_hashes() const {
  return {tensors_.back().tensor.data, tensors_.back().tensor.n_bytes};
}

}  // namespace edge
