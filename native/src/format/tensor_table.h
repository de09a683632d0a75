// The tensor table of a `.edge` header: what the safetensors entries and edgellm.tensors say,
// checked one by one and against each other.
//
// Knows shapes, formats and offsets; reads no tensor data.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "format/edge_file.h"
#include "format/json.h"

namespace edge {

constexpr std::string_view kMetadataKey = "__metadata__";
constexpr std::string_view kHashesName = "edgellm.hashes";
constexpr uint64_t kBlobAlignment = 64;    // stored sizes are multiples of this
constexpr uint64_t kMaxSize = 1ull << 48;  // of a dimension and of a tensor in bytes
constexpr const char* kCopyAgain = "if the file was cut off, copy or convert it again";

// The tensors in file order. `header` is the whole header, `described` the parsed edgellm.tensors,
// `data` the data section. Every byte of `data` belongs to exactly one tensor.
Result<std::vector<TensorEntry>> read_tensor_table(const Json& header, const Json& described,
                                                   std::span<const std::byte> data);

}  // namespace edge
