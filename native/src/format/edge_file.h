// EdgeFile: opens, validates and (on request) verifies a `.edge` file. Read-only, never aborts.
//
// Knows the container (docs/FORMAT.md) and nothing of models: the spec stays JSON text here and
// roles stay strings. open() maps the file, checks every structural rule, the header hash and the
// hash root; the bytes of large tensors are hashed by the Verifier according to VerifyMode.
// Thread-safe after open(): all methods are const.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/os.h"
#include "base/status.h"
#include "tensor/tensor.h"

namespace edge {

constexpr uint64_t kMaxHeaderBytes = 100ull << 20;  // reader's cap; the writer keeps it <= 1 MiB
constexpr uint64_t kMaxTensors = 65536;
constexpr uint64_t kDataAlignment = 16384;  // of the data start; tensors are 64-byte aligned
constexpr uint64_t kLeafBytes = 1u << 20;   // one SHA-256 leaf

enum class VerifyMode : uint8_t {
  kOnce,    // hash in the background; success is remembered per (root, file identity)
  kAlways,  // hash everything before open_verified() returns
  kNever,   // structure and header only
};

struct TensorEntry {
  std::string name;     // "layers.3.ffn_up"
  std::string role;     // "ffn_up"
  Tensor tensor;        // format, act, shape, data inside the mapping
  uint64_t offset = 0;  // from the data start
};

class EdgeFile {
 public:
  static Result<std::shared_ptr<const EdgeFile>> open(const std::string& path);
  // The same checks over a file already in memory, for tests and fuzzers. `bytes` must be 64-byte
  // aligned and outlive the result; `name` stands for the path in messages.
  static Result<std::shared_ptr<const EdgeFile>> from_bytes(std::span<const std::byte> bytes,
                                                            std::string name);
  EdgeFile() = default;  // refers to itself once opened: neither copied nor moved
  EdgeFile(const EdgeFile&) = delete;
  EdgeFile& operator=(const EdgeFile&) = delete;

  const std::string& path() const { return path_; }
  // Value of a __metadata__ key ("edgellm.spec"); empty if absent.
  std::string_view metadata(std::string_view key) const;
  const std::vector<std::pair<std::string, std::string>>& all_metadata() const { return metadata_; }
  const std::vector<TensorEntry>& tensors() const { return tensors_; }  // file order
  const TensorEntry* find(std::string_view name) const;                 // nullptr if absent
  std::string_view root_hex() const { return metadata("edgellm.root"); }
  uint64_t file_bytes() const { return bytes_.size(); }
  uint64_t data_start() const { return data_start_; }
  const MappedFile& map() const { return map_; }  // empty after from_bytes()

  // The hashed range of the data section and its leaves, for the Verifier.
  std::span<const std::byte> hashed_bytes() const;
  std::span<const std::byte> leaf_hashes() const;  // 32 bytes each

 private:
  Status parse();
  Status check_metadata(std::string_view header) const;
  Status check_header_hash(std::string_view header) const;
  Status check_root() const;

  std::string path_;
  MappedFile map_;
  std::span<const std::byte> bytes_;  // the whole file
  uint64_t data_start_ = 0;
  std::vector<std::pair<std::string, std::string>> metadata_;
  std::vector<TensorEntry> tensors_;
  std::unordered_map<std::string_view, size_t> index_;  // name -> position in tensors_
};

}  // namespace edge
