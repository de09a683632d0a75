// Writes small but complete `.edge` files for tests: all tensors zero unless filled. Test code
// only.
#pragma once

#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/os.h"
#include "base/sha256.h"
#include "format/edge_file.h"
#include "tensor/tensor.h"

namespace edge::test {

struct FixtureTensor {
  std::string name;
  std::string role;
  Format format = Format::kF32;
  int64_t n_rows = 1;  // 1 for F32 and U8
  int64_t n_cols = 0;
  Act act = Act::kA8;
};

// Writes the bytes of a tensor; `out` is zeroed and exactly as long as the tensor.
using FillFn = std::function<void(const FixtureTensor&, std::span<std::byte>)>;

inline void append_u64(std::string& out, uint64_t value) {
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<char>(value >> (8 * i) & 0xFF));
}

inline std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\') out.push_back('\\');
    out.push_back(c);
  }
  return out;
}

// The bytes of a file with these tensors, in this order; their data is zero without `fill`.
inline std::string edge_bytes(const std::vector<FixtureTensor>& tensors, const std::string& spec,
                              const FillFn& fill = {}) {
  std::string described = "{";
  std::string entries;
  uint64_t offset = 0;
  const auto add = [&](const FixtureTensor& t, uint64_t n_bytes) {
    const bool is_matrix = tile_bytes(t.format) != 0;
    const uint64_t stored = (n_bytes + 63) / 64 * 64;
    described += std::string(described.size() > 1 ? "," : "") + "\"" + t.name + "\":{\"role\":\"" +
                 t.role + "\",\"format\":\"" + std::string(format_name(t.format)) +
                 "\",\"shape\":[" + (is_matrix ? std::to_string(t.n_rows) + "," : "") +
                 std::to_string(t.n_cols) + "]" +
                 (is_matrix ? ",\"act\":\"" + std::string(act_name(t.act)) + "\"" : "") + "}";
    entries += ",\"" + t.name + "\":{\"dtype\":\"U8\",\"shape\":[" + std::to_string(stored) +
               "],\"data_offsets\":[" + std::to_string(offset) + "," +
               std::to_string(offset + stored) + "]}";
    offset += stored;
  };
  for (const FixtureTensor& t : tensors) {
    add(t, tensor_bytes(t.format, static_cast<uint64_t>(t.n_rows), static_cast<uint64_t>(t.n_cols))
               .value());
  }
  const uint64_t n_hashed = offset;
  std::string data(n_hashed, '\0');
  for (size_t at = 0; const FixtureTensor& t : tensors) {
    const size_t n_bytes =
        tensor_bytes(t.format, static_cast<uint64_t>(t.n_rows), static_cast<uint64_t>(t.n_cols))
            .value();
    if (fill) fill(t, std::as_writable_bytes(std::span(data)).subspan(at, n_bytes));
    at += (n_bytes + 63) / 64 * 64;
  }
  const uint64_t n_leaves = (n_hashed + kLeafBytes - 1) / kLeafBytes;
  std::vector<std::byte> hashes((32 * n_leaves + 63) / 64 * 64);
  sha256_leaves(std::as_bytes(std::span(data)), kLeafBytes, std::span(hashes).first(32 * n_leaves));
  add({"edgellm.hashes", "hashes", Format::kU8, 1, static_cast<int64_t>(32 * n_leaves), Act::kA8},
      32 * n_leaves);
  described += "}";
  std::string rooted(reinterpret_cast<const char*>(hashes.data()), hashes.size());
  append_u64(rooted, n_hashed);
  const std::string zeros(64, '0');
  std::string header = "{\"__metadata__\":{\"edgellm.version\":\"0\",\"edgellm.header_sha256\":\"" +
                       zeros + "\",\"edgellm.root\":\"" +
                       to_hex(sha256(std::as_bytes(std::span(rooted)))) +
                       "\",\"edgellm.requires\":\"[]\",\"edgellm.spec\":\"" + escaped(spec) +
                       "\",\"edgellm.tensors\":\"" + escaped(described) + "\"}" + entries + "}";
  const size_t data_start =
      (8 + header.size() + kDataAlignment - 1) / kDataAlignment * kDataAlignment;
  header.resize(data_start - 8, ' ');
  std::string file;
  append_u64(file, header.size());
  file += header;
  const std::string digest = to_hex(sha256(std::as_bytes(std::span(file))));
  file.replace(file.find(zeros), 64, digest);
  return file + data + std::string(reinterpret_cast<const char*>(hashes.data()), hashes.size());
}

// Writes the file to a temporary path, opens it and removes the path again.
inline Result<std::shared_ptr<const EdgeFile>> open_fixture(
    const std::vector<FixtureTensor>& tensors, const std::string& spec) {
  static int n_files = 0;
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() /
      ("edge_fixture_" + std::to_string(getpid()) + "_" + std::to_string(n_files++));
  const std::string bytes = edge_bytes(tensors, spec);
  EDGE_RETURN_IF_ERROR(atomic_write_file(path.string(), std::as_bytes(std::span(bytes))));
  auto file = EdgeFile::open(path.string());
  std::filesystem::remove(path);
  return file;
}

}  // namespace edge::test
