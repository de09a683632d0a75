#include "model/layer_split.h"

#include <charconv>
#include <optional>
#include <string>

namespace edge {
namespace {

// N of "layers.N.role".
std::optional<size_t> layer_of(std::string_view name) {
  constexpr std::string_view kPrefix = "layers.";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  size_t layer = 0;
  const auto parsed =
      std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), layer);
  if (parsed.ec != std::errc()) return std::nullopt;
  return layer;
}

// Whether kernels meet it when layers from n_host_layers on are the device's. The vectors of the
// last layer before are, too: it leaves its bias and norm to the first norm behind it.
bool is_on_device(const TensorEntry& entry, size_t n_host_layers, bool has_tied_head) {
  if (entry.tensor.format == Format::kU8) return false;
  if (n_host_layers == 0) return true;
  const std::optional<size_t> layer = layer_of(entry.name);
  if (!layer) return entry.role == "token_embd" ? has_tied_head : entry.role != "position_embd";
  return *layer >= n_host_layers ||
         (*layer + 1 == n_host_layers && entry.tensor.format == Format::kF32);
}

// Tensors that follow each other are one range, with what stands between them, as long as it is
// not so large that the host notices it.
void add(std::span<const std::byte> tensor, std::vector<std::span<const std::byte>>& ranges) {
  constexpr std::ptrdiff_t kMostBetween = 32768;  // tensors begin at whole pages at most
  constexpr size_t kMostBytes = size_t{128} << 20;
  if (!ranges.empty() && ranges.back().size() < kMostBytes) {
    std::span<const std::byte>& last = ranges.back();
    const std::ptrdiff_t between = tensor.data() - (last.data() + last.size());
    if (between >= 0 && between < kMostBetween) {
      last = {last.data(), tensor.data() + tensor.size()};
      return;
    }
  }
  ranges.push_back(tensor);
}

LayerSplit split_at(const EdgeFile& file, size_t n_host_layers, bool has_tied_head) {
  LayerSplit split;
  split.n_host_layers = n_host_layers;
  for (const TensorEntry& entry : file.tensors()) {
    if (!is_on_device(entry, n_host_layers, has_tied_head)) continue;
    add({entry.tensor.data, entry.tensor.n_bytes}, split.on_device);
  }
  for (const auto& range : split.on_device) split.device_bytes += range.size();
  return split;
}

}  // namespace

Result<LayerSplit> split_layers(const EdgeFile& file, size_t n_layers, bool has_tied_head,
                                size_t room) {
  for (size_t n_host_layers = 0; n_host_layers <= n_layers; ++n_host_layers) {
    LayerSplit split = split_at(file, n_host_layers, has_tied_head);
    if (split.device_bytes <= room) return split;
  }
  const size_t least = split_at(file, n_layers, has_tied_head).device_bytes;
  return {Code::kMemoryBudget, "the device has " + std::to_string(room >> 10) +
                                   " KiB for weights, and the head alone takes " +
                                   std::to_string(least >> 10) +
                                   " KiB; load with backend 'cpu', or free memory of the device"};
}

}  // namespace edge
