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
  std::string name;  // "layers.3.ffn_up"
  std::string role;  // "ffn_up"
  Tensor tensor;     // format, act, shape, data inside the mapping
  uint64_t offset = 0;  // from the data start
};

class EdgeFile {
 public:
  static Result<std::shared_ptr<const EdgeFile>> open(const std::string& path);

  const std::string& path() const { return path_; }
  // Value of a __metadata__ key ("edgellm.spec"); empty if absent.
  std::string_view metadata(std::string_view key) const;
  const std::vector<std::pair<std::string, std::string>>& all_metadata() const { return metadata_; }
  const std::vector<TensorEntry>& tensors() const { return tensors_; }  // file order
  const TensorEntry* find(std::string_view name) const;                 // nullptr if absent
  std::string_view root_hex() const { return metadata("edgellm.root"); }
  uint64_t file_bytes() const { return map_.bytes().size(); }
  uint64_t data_start() const { return data_start_; }
  const MappedFile& map() const { return map_; }

  // The hashed range of the data section and its leaves, for the Verifier.
  std::span<const std::byte> hashed_bytes() const;
  std::span<const std::byte> leaf_hashes() const;  // 32 bytes each

 private:
  std::string path_;
  MappedFile map_;
  uint64_t data_start_ = 0;
  std::vector<std::pair<std::string, std::string>> metadata_;
  std::vector<TensorEntry> tensors_;
};

}  // namespace edge
