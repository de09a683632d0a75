// Parts of hand-made tokenizer blobs: packing of sections and of the blob around them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace edge_test {

using Words = std::vector<uint32_t>;
constexpr uint32_t kNone = UINT32_MAX;

inline std::string pack(const Words& words) {
  return {reinterpret_cast<const char*>(words.data()), words.size() * 4};
}

inline void put_u16(std::string& out, uint32_t value) {
  out.push_back(static_cast<char>(value & 0xFF));
  out.push_back(static_cast<char>(value >> 8));
}

inline uint64_t hash_bytes(std::string_view key) {
  uint64_t hash = 0xCBF29CE484222325ull;
  for (const char c : key) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3ull;
  return hash ^ hash >> 32;
}

inline std::string join(const std::map<uint32_t, std::string>& parts) {
  const auto put = [](std::string& out, auto value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  uint64_t offset = 32 + 24 * parts.size();
  std::string directory;
  std::string body;
  for (const auto& [id, bytes] : parts) {
    put(directory, id);
    put(directory, uint32_t{0});
    put(directory, offset);
    put(directory, uint64_t{bytes.size()});
    body += bytes;
    offset += bytes.size();
  }
  std::string header = "EDGETOKN";
  put(header, uint32_t{1});
  put(header, static_cast<uint32_t>(parts.size()));
  put(header, offset);
  put(header, uint64_t{0});
  return header + directory + body;
}

inline edge::Result<std::unique_ptr<edge::Tokenizer>> create(const std::string& blob) {
  return edge::Tokenizer::create(std::as_bytes(std::span(blob.data(), blob.size())));
}

}  // namespace edge_test
