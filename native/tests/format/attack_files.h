// Builds the spoiled files of attacks.json (written by tests/format/make_attacks.py; the Python
// reader is tested on the same table).
#pragma once

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/os.h"
#include "base/sha256.h"
#include "doctest/doctest.h"
#include "format/json.h"

namespace edge::testing {

constexpr size_t kAttackDataStart = 16384;

struct Case {
  std::string name;
  std::string code;
  std::vector<std::pair<std::string, std::string>> edits;
  bool seal = true;
  bool has_header_len = false;
  uint64_t header_len = 0;
  size_t data_start = kAttackDataStart;
  bool has_file_bytes = false;
  size_t file_bytes = 0;
  std::vector<size_t> flips;  // from the data start
};

struct AttackTable {
  std::string header;
  std::string data;
  std::vector<Case> cases;
};

// 64-byte aligned bytes, as EdgeFile::from_bytes wants them.
class AlignedBytes {
 public:
  explicit AlignedBytes(std::string_view bytes) : n_bytes_(bytes.size()) {
    auto buffer = PageBuffer::allocate(std::max<size_t>(bytes.size(), 1));
    REQUIRE(buffer.is_ok());
    buffer_ = buffer.take();
    std::memcpy(buffer_.data(), bytes.data(), bytes.size());
  }
  std::span<const std::byte> bytes() const { return {buffer_.data(), n_bytes_}; }

 private:
  PageBuffer buffer_;
  size_t n_bytes_;
};

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file.good());
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

inline void write_file(const std::string& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  REQUIRE(file.good());
}

inline size_t as_size(const Json& value) { return static_cast<size_t>(value.as_int()); }

inline Case read_case(const Json& row) {
  Case result;
  result.name = row.find("name")->as_string();
  result.code = row.find("code")->as_string();
  if (const Json* edits = row.find("edits")) {
    for (const Json& edit : edits->items()) {
      result.edits.emplace_back(edit.items()[0].as_string(), edit.items()[1].as_string());
    }
  }
  if (const Json* seal = row.find("seal")) result.seal = seal->as_bool();
  if (const Json* start = row.find("data_start")) result.data_start = as_size(*start);
  if (const Json* length = row.find("header_len_hex")) {
    result.has_header_len = true;
    result.header_len = std::stoull(length->as_string(), nullptr, 16);
  }
  if (const Json* size = row.find("file_bytes")) {
    result.has_file_bytes = true;
    result.file_bytes = as_size(*size);
  }
  if (const Json* flips = row.find("flip")) {
    for (const Json& flip : flips->items()) result.flips.push_back(as_size(flip));
  }
  return result;
}

inline AttackTable load_attack_table() {
  const std::string text = read_file(EDGE_ATTACKS_JSON);
  const auto parsed = Json::parse(text);
  REQUIRE_MESSAGE(parsed.is_ok(), parsed.status().message());
  const Json& root = parsed.value();
  AttackTable table;
  table.header = root.find("header")->as_string();
  const std::string hex = root.find("data_hex")->as_string();
  for (size_t i = 0; i < hex.size(); i += 2) {
    table.data += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  for (const Json& row : root.find("cases")->items()) table.cases.push_back(read_case(row));
  return table;
}

inline std::string length_prefix(uint64_t n) {
  std::string prefix;
  for (int i = 0; i < 8; ++i) prefix += static_cast<char>(n >> (8 * i) & 0xFF);
  return prefix;
}

// Length and header, padded, with a right digest.
inline std::string seal(std::string header, size_t data_start) {
  header.resize(data_start - 8, ' ');
  std::string blob = length_prefix(header.size()) + header;
  const std::string field = "\"edgellm.header_sha256\":\"";
  const size_t at = blob.find(field);
  if (at == std::string::npos) return blob;
  blob.replace(at + field.size(), 64, std::string(64, '0'));
  const std::string digest =
      to_hex(sha256(std::as_bytes(std::span<const char>(blob.data(), blob.size()))));
  return blob.replace(at + field.size(), 64, digest);
}

inline std::string build(const AttackTable& table, const Case& attack) {
  std::string header = table.header;
  header.resize(attack.data_start - 8, ' ');
  for (const auto& [find, replace] : attack.edits) {
    const size_t at = header.find(find);
    REQUIRE_MESSAGE(at != std::string::npos, attack.name);
    header.replace(at, find.size(), replace);
  }
  header.resize(attack.data_start - 8, ' ');
  std::string file =
      attack.seal ? seal(header, attack.data_start) : length_prefix(header.size()) + header;
  file += table.data;
  if (attack.has_header_len) file.replace(0, 8, length_prefix(attack.header_len));
  for (const size_t flip : attack.flips) {
    file[attack.data_start + flip] = static_cast<char>(~file[attack.data_start + flip]);
  }
  if (attack.has_file_bytes) file.resize(attack.file_bytes, '\0');
  return file;
}

// A file over `n_blob` bytes of one blob, for tests that need several leaves.
inline std::string build_blob_file(size_t n_blob) {
  const size_t n_stored = (n_blob + 63) / 64 * 64;
  std::string blob(n_blob, '\0');
  for (size_t i = 0; i < n_blob; ++i) blob[i] = static_cast<char>(i * 2654435761u >> 24);
  blob.resize(n_stored, '\0');
  constexpr size_t kLeaf = 1 << 20;
  std::string hashes((n_stored + kLeaf - 1) / kLeaf * 32, '\0');
  sha256_leaves(std::as_bytes(std::span<const char>(blob)), kLeaf,
                std::as_writable_bytes(std::span<char>(hashes)));
  const std::string n_hashes = std::to_string(hashes.size());
  hashes.resize((hashes.size() + 63) / 64 * 64, '\0');
  const std::string rooted = hashes + length_prefix(n_stored);
  const std::string root = to_hex(sha256(std::as_bytes(std::span<const char>(rooted))));
  const std::string at = std::to_string(n_stored);
  const std::string end = std::to_string(n_stored + hashes.size());
  std::string header = R"({"__metadata__":{"edgellm.version":"0","edgellm.header_sha256":")";
  header += std::string(64, '0') + R"(","edgellm.root":")" + root;
  header += R"(","edgellm.requires":"[]","edgellm.spec":"{}","edgellm.tensors":"{\"blob\":)";
  header += R"({\"role\":\"blob\",\"format\":\"U8\",\"shape\":[)" + std::to_string(n_blob);
  header +=
      R"(]},\"edgellm.hashes\":{\"role\":\"hashes\",\"format\":\"U8\",\"shape\":[)" + n_hashes;
  header += R"(]}}"},"blob":{"dtype":"U8","shape":[)" + at + R"(],"data_offsets":[0,)" + at;
  header += R"(]},"edgellm.hashes":{"dtype":"U8","shape":[)" + std::to_string(hashes.size());
  header += R"(],"data_offsets":[)" + at + "," + end + "]}}";
  return seal(header, kAttackDataStart) + blob + hashes;
}

}  // namespace edge::testing
