#include "format/tensor_table.h"

#include <algorithm>
#include <unordered_map>

#include "base/checked.h"

namespace edge {

namespace {

using Ints = std::vector<int64_t>;

Result<Ints> get_ints(const Json& object, std::string_view key, std::string_view where) {
  EDGE_ASSIGN_OR_RETURN(const Json* array, object.get_array(key, where));
  Ints values;
  for (const Json& item : array->items()) {
    if (item.kind() != Json::Kind::kInt) {
      return {Code::kJsonType, std::string(where) + ": " + printable(key) + " is not all integers"};
    }
    values.push_back(item.as_int());
  }
  return values;
}

bool all_of_text(std::string_view text, size_t max_size, std::string_view punctuation,
                 bool upper_case) {
  const auto allowed = [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
           (upper_case && c >= 'A' && c <= 'Z') || punctuation.find(c) != punctuation.npos;
  };
  return !text.empty() && text.size() <= max_size && std::all_of(text.begin(), text.end(), allowed);
}

Status check_act(const Json& row, bool is_matrix, std::string_view where, Tensor& tensor) {
  const Json* act = row.find("act");
  if (!is_matrix) {
    tensor.act = Act::kF32;
    if (act == nullptr) return {};
    return {Code::kJsonUnknownKey, std::string(where) + ": only matrices have an act"};
  }
  if (act == nullptr) return {Code::kJsonMissingKey, std::string(where) + ": has no act"};
  const auto known = act_from_name(act->as_string());
  if (!known) {
    return {Code::kTensorAct, std::string(where) + ": unknown act " + printable(act->as_string())};
  }
  tensor.act = *known;
  return {};
}

// Name, role, format, logical shape and act; leaves offset and data alone.
Result<TensorEntry> read_description(std::string_view name, const Json& row,
                                     std::string_view where) {
  const std::string at(where);
  TensorEntry entry;
  entry.name = name;
  EDGE_ASSIGN_OR_RETURN(entry.role, row.get_string("role", where));
  EDGE_ASSIGN_OR_RETURN(const std::string format_text, row.get_string("format", where));
  if (row.find("act") != nullptr) EDGE_RETURN_IF_ERROR(row.get_string("act", where).status());
  EDGE_ASSIGN_OR_RETURN(const Ints shape, get_ints(row, "shape", where));
  if (!all_of_text(name, 255, "._/-", true)) {
    return {Code::kTensorName, at + ": names are 1 to 255 of A-Z a-z 0-9 . _ / -"};
  }
  if (!all_of_text(entry.role, 64, "_", false)) {
    return {Code::kTensorRole,
            at + ": role " + printable(entry.role) + " is not 1 to 64 of a-z 0-9 _"};
  }
  const auto format = format_from_name(format_text);
  if (!format) {
    return {Code::kTensorFormat, at + ": unknown format " + printable(format_text)};
  }
  entry.tensor.format = *format;
  const bool is_matrix = tile_bytes(*format) != 0;
  if (shape.size() != (is_matrix ? 2 : 1)) {
    return {Code::kTensorShape, at + ": wrong number of dimensions for " + format_text};
  }
  for (const int64_t n : shape) {
    if (n < 1 || static_cast<uint64_t>(n) > kMaxSize) {
      return {Code::kTensorShape, at + ": dimension " + std::to_string(n) + " is not 1 to 2^48"};
    }
  }
  entry.tensor.n_rows = is_matrix ? shape[0] : 1;
  entry.tensor.n_cols = shape.back();
  const auto n_bytes = tensor_bytes(*format, static_cast<uint64_t>(entry.tensor.n_rows),
                                    static_cast<uint64_t>(entry.tensor.n_cols));
  if (!n_bytes || *n_bytes > kMaxSize) {
    return {Code::kTensorShape, at + ": shape is larger than 2^48 bytes"};
  }
  entry.tensor.n_bytes = static_cast<size_t>(*n_bytes);
  EDGE_RETURN_IF_ERROR(check_act(row, is_matrix, where, entry.tensor));
  return entry;
}

uint64_t stored_bytes(const TensorEntry& entry) {
  return (entry.tensor.n_bytes + kBlobAlignment - 1) / kBlobAlignment * kBlobAlignment;
}

Status require_keys(const Json& object, std::initializer_list<std::string_view> keys,
                    std::string_view where) {
  for (const std::string_view key : keys) {
    if (object.find(key) == nullptr) {
      return {Code::kJsonMissingKey, std::string(where) + ": has no " + std::string(key)};
    }
  }
  return {};
}

Result<TensorEntry> read_entry(std::string_view name, const Json& stored, const Json& row) {
  const std::string at = "tensor " + printable(name);
  EDGE_RETURN_IF_ERROR(stored.only_keys({"dtype", "shape", "data_offsets"}, at));
  EDGE_RETURN_IF_ERROR(require_keys(stored, {"dtype", "shape", "data_offsets"}, at));
  EDGE_RETURN_IF_ERROR(row.only_keys({"role", "format", "shape", "act"}, at));
  EDGE_RETURN_IF_ERROR(require_keys(row, {"role", "format", "shape"}, at));
  EDGE_ASSIGN_OR_RETURN(const std::string dtype, stored.get_string("dtype", at));
  if (dtype != "U8") {
    return {Code::kTensorDtype, at + ": dtype " + printable(dtype) + ", must be U8"};
  }
  EDGE_ASSIGN_OR_RETURN(const Ints stored_shape, get_ints(stored, "shape", at));
  EDGE_ASSIGN_OR_RETURN(const Ints offsets, get_ints(stored, "data_offsets", at));
  if (offsets.size() != 2 || offsets[0] < 0 || offsets[1] < offsets[0] ||
      static_cast<uint64_t>(offsets[1]) > kMaxSize) {
    return {Code::kTensorOffsets, at + ": data_offsets are no range"};
  }
  EDGE_ASSIGN_OR_RETURN(TensorEntry entry, read_description(name, row, at));
  const uint64_t n_stored = stored_bytes(entry);
  if (stored_shape.size() != 1 || static_cast<uint64_t>(stored_shape[0]) != n_stored) {
    return {Code::kTensorShape,
            at + ": the stored shape must be [" + std::to_string(n_stored) + "]"};
  }
  const uint64_t n_data = static_cast<uint64_t>(offsets[1] - offsets[0]);
  if (n_data != n_stored) {
    return {Code::kTensorOffsets, at + ": " + std::to_string(n_data) +
                                      " bytes of data, its shape needs " +
                                      std::to_string(n_stored)};
  }
  entry.offset = static_cast<uint64_t>(offsets[0]);
  return entry;
}

// `tensors` sorted by offset: end to end over the whole of `data`.
Status place_tensors(std::vector<TensorEntry>& tensors, std::span<const std::byte> data) {
  uint64_t end = 0;
  for (TensorEntry& entry : tensors) {
    const std::string at = "tensor '" + entry.name + "' starts at " + std::to_string(entry.offset);
    if (entry.offset < end) return {Code::kTensorOverlap, at + ", inside another"};
    if (entry.offset > end) {
      return {Code::kTensorHole, at + ", after a hole at " + std::to_string(end)};
    }
    end = entry.offset + stored_bytes(entry);
    if (end > data.size()) {
      return {Code::kTensorPastEnd, at + " and ends " + std::to_string(end - data.size()) +
                                        " bytes past the end; " + kCopyAgain};
    }
    entry.tensor.data = data.data() + entry.offset;
  }
  if (end == data.size()) return {};
  return {Code::kTrailingBytes, std::to_string(data.size() - end) + " bytes after the last tensor"};
}

Status check_hashes_entry(const std::vector<TensorEntry>& tensors) {
  if (tensors.empty() || tensors.back().name != kHashesName) {
    return {Code::kTensorMissing, "the last tensor is not 'edgellm.hashes'"};
  }
  const TensorEntry& hashes = tensors.back();
  if (hashes.role != "hashes" || hashes.tensor.format != Format::kU8) {
    return {Code::kTensorRole, "'edgellm.hashes' must be U8 with role 'hashes'"};
  }
  const uint64_t n_leaves = (hashes.offset + kLeafBytes - 1) / kLeafBytes;
  if (hashes.tensor.n_bytes == 32 * n_leaves) return {};
  return {Code::kTensorShape,
          "'edgellm.hashes' must hold " + std::to_string(n_leaves) + " hashes of 32 bytes"};
}

}  // namespace

Result<std::vector<TensorEntry>> read_tensor_table(const Json& header, const Json& described,
                                                   std::span<const std::byte> data) {
  std::unordered_map<std::string_view, const Json*> stored;
  for (const auto& [name, entry] : header.members()) {
    if (name != kMetadataKey) stored.emplace(name, &entry);
  }
  if (stored.size() > kMaxTensors) {
    return {Code::kTooManyTensors, "more than " + std::to_string(kMaxTensors) + " tensors"};
  }
  std::unordered_map<std::string_view, const Json*> rows;
  for (const auto& [name, row] : described.members()) {
    if (!stored.contains(name)) {
      return {Code::kTensorMissing, "tensor " + printable(name) + " has no data entry"};
    }
    rows.emplace(name, &row);
  }
  std::vector<TensorEntry> tensors;
  tensors.reserve(stored.size());
  for (const auto& [name, entry] : header.members()) {
    if (name == kMetadataKey) continue;
    const auto row = rows.find(name);
    if (row == rows.end()) {
      return {Code::kTensorUnexpected, "tensor " + printable(name) + " is not in edgellm.tensors"};
    }
    EDGE_ASSIGN_OR_RETURN(TensorEntry tensor, read_entry(name, entry, *row->second));
    tensors.push_back(std::move(tensor));
  }
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](const auto& a, const auto& b) { return a.offset < b.offset; });
  EDGE_RETURN_IF_ERROR(place_tensors(tensors, data));
  EDGE_RETURN_IF_ERROR(check_hashes_entry(tensors));
  return tensors;
}

}  // namespace edge
