#include "backends/npu/step_memory.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/half.h"

namespace edge::npu {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kMostBytes = SIZE_MAX / 4;

void load_row(const std::byte* from, bool is_half, int n, float* to) {
  if (!is_half) {
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  for (int i = 0; i < n; ++i) {
    uint16_t half;
    std::memcpy(&half, from + static_cast<size_t>(i) * sizeof half, sizeof half);
    to[i] = half_to_float(half);
  }
}

void store_row(const float* from, bool is_half, int n, std::byte* to) {
  if (!is_half) {
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  for (int i = 0; i < n; ++i) {
    const uint16_t half = float_to_half(from[i]);
    std::memcpy(to + static_cast<size_t>(i) * sizeof half, &half, sizeof half);
  }
}

// Heads of `used` bytes, `before` apart, come to stand `after` apart.
void spread_heads(std::byte* data, int n_heads, size_t before, size_t after, size_t used) {
  const auto move = [&](int head) {
    const auto at = static_cast<size_t>(head);
    std::memmove(data + at * after, data + at * before, used);
  };
  if (after > before) {
    for (int head = n_heads - 1; head > 0; --head) move(head);
  } else {
    for (int head = 1; head < n_heads; ++head) move(head);
  }
}

}  // namespace

StepMemory::StepMemory(const Bundle& bundle)
    : bundle_(bundle), facts_(bundle.facts), element_bytes_(bundle.facts.is_half ? 2 : 4) {
  const auto n_rows = static_cast<size_t>(bundle.most_rows());
  const auto n_slots = static_cast<size_t>(facts_.capacity);
  ids_ = reserve(n_rows, sizeof(int32_t));
  positions_ = reserve(n_rows, sizeof(int32_t));
  for (size_t& place : hidden_) {
    place = reserve(n_rows * static_cast<size_t>(facts_.d_model), sizeof(float));
  }
  if (facts_.has_head) {
    logits_ = reserve(n_rows * static_cast<size_t>(facts_.n_vocab), sizeof(float));
  }
  for (const auto& [rope, rotation] : bundle.rotations) {
    const size_t n = n_rows * 2 * rotation.inv_freq.size();
    cos_[rope] = reserve(n, sizeof(float));
    sin_[rope] = reserve(n, sizeof(float));
  }
  for (const GraphLayer& one : facts_.layers) {
    if (!masks_.contains(one.window)) {
      masks_[one.window] = reserve(n_rows * (n_slots + n_rows), sizeof(float));
    }
    const auto width = static_cast<size_t>(one.n_kv_heads) * static_cast<size_t>(one.head_dim);
    LayerPlaces places;
    places.new_k = reserve(width * n_rows, element_bytes_);
    places.new_v = reserve(width * n_rows, element_bytes_);
    for (size_t& place : places.past_k) place = reserve(width * n_slots, element_bytes_);
    for (size_t& place : places.past_v) place = reserve(width * n_slots, element_bytes_);
    layers_.push_back(places);
  }
  std::ranges::fill(n_past_, facts_.capacity);
}

size_t StepMemory::reserve(size_t n_elements, size_t element_bytes) {
  const size_t place = n_bytes_;
  // What no machine has is refused by whoever is told n_bytes(); it only must not wrap around.
  const size_t n = std::min(n_elements, kMostBytes / element_bytes) * element_bytes;
  n_bytes_ = std::min(n_bytes_ + n, kMostBytes) + kAlignment - 1;
  n_bytes_ -= n_bytes_ % kAlignment;
  return place;
}

Status StepMemory::allocate() {
  EDGE_ASSIGN_OR_RETURN(memory_, PageBuffer::allocate(n_bytes_));
  return {};
}

size_t StepMemory::row_bytes(int index) const {
  return static_cast<size_t>(layer(index).head_dim) * element_bytes_;
}

std::byte* StepMemory::at(const GraphName& name, int buffer, int part) const {
  const auto number = static_cast<size_t>(name.number), which = static_cast<size_t>(buffer);
  std::byte* const data = memory_.data();
  switch (name.kind) {
    case NameKind::kIds:
      return data + ids_;
    case NameKind::kPositions:
      return data + positions_;
    case NameKind::kX:
      return data + hidden_[part % 2];
    case NameKind::kHidden:
      return data + hidden_[(part + 1) % 2];
    case NameKind::kMask:
      return data + masks_.at(name.number);
    case NameKind::kCos:
      return data + cos_.at(name.rope);
    case NameKind::kSin:
      return data + sin_.at(name.rope);
    case NameKind::kPastK:
      return data + layers_[number].past_k[which];
    case NameKind::kPastV:
      return data + layers_[number].past_v[which];
    case NameKind::kNewK:
      return data + layers_[number].new_k;
    case NameKind::kNewV:
      return data + layers_[number].new_v;
    case NameKind::kLogits:
      break;
  }
  return data + logits_;
}

const float* StepMemory::outputs(int n_parts) const {
  return floats(facts_.has_head ? logits_ : hidden_[n_parts % 2]);
}

void StepMemory::fill_inputs(const GraphPart& shape, int n_before, std::span<const int32_t> ids,
                             const float* x) {
  auto* const id = reinterpret_cast<int32_t*>(memory_.data() + ids_);
  std::fill(std::ranges::copy(ids, id).out, id + shape.n_rows, 0);
  auto* const position = reinterpret_cast<int32_t*>(memory_.data() + positions_);
  for (int i = 0; i < shape.n_rows; ++i) {
    position[i] = std::max(0, std::min(n_before + i, bundle_.n_positions - 1));
  }
  if (x != nullptr) {
    const auto n_cols = static_cast<size_t>(facts_.d_model);
    float* const end = std::copy_n(x, ids.size() * n_cols, floats(hidden_[0]));
    std::fill(end, floats(hidden_[0]) + static_cast<size_t>(shape.n_rows) * n_cols, 0.0f);
  }
  for (const auto& [window, place] : masks_) fill_mask(shape, n_before, window, floats(place));
  for (const auto& [rope, rotation] : bundle_.rotations) {
    fill_turns(rotation, shape.n_rows, n_before, floats(cos_.at(rope)), floats(sin_.at(rope)));
  }
}

// [n_rows][n_past + n_rows]: row i sees the filled slots and the rows up to itself, of them the
// last `window`.
void StepMemory::fill_mask(const GraphPart& shape, int n_before, int window, float* mask) const {
  const int n_seen = shape.n_past + shape.n_rows;
  for (int i = 0; i < shape.n_rows; ++i, mask += n_seen) {
    std::fill_n(mask, n_seen, bundle_.masked);
    const int first = window > 0 ? std::max(0, n_before + i - window + 1) : 0;
    if (first < n_before) std::fill(mask + first, mask + n_before, 0.0f);
    const int first_new = std::max(0, first - n_before);
    std::fill(mask + shape.n_past + first_new, mask + shape.n_past + i + 1, 0.0f);
  }
}

// [n_rows][n_rope]; sin is negative in the first half.
void StepMemory::fill_turns(const Rotation& rotation, int n_rows, int n_before, float* cos,
                            float* sin) const {
  const size_t half = rotation.inv_freq.size();
  for (int i = 0; i < n_rows; ++i, cos += 2 * half, sin += 2 * half) {
    for (size_t k = 0; k < half; ++k) {
      const float angle = static_cast<float>(n_before + i) * rotation.inv_freq[k];
      cos[k] = cos[half + k] =
          static_cast<float>(std::cos(static_cast<double>(angle)) * rotation.factor);
      sin[half + k] = static_cast<float>(std::sin(static_cast<double>(angle)) * rotation.factor);
      sin[k] = -sin[half + k];
    }
  }
}

void StepMemory::lay_out(int buffer, int n_past) {
  const auto which = static_cast<size_t>(buffer);
  const int before = std::exchange(n_past_[which], n_past);
  if (before == n_past) return;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const size_t row = row_bytes(static_cast<int>(i));
    const auto old_bytes = static_cast<size_t>(before) * row;
    const auto new_bytes = static_cast<size_t>(n_past) * row;
    for (const size_t place : {layers_[i].past_k[which], layers_[i].past_v[which]}) {
      spread_heads(memory_.data() + place, facts_.layers[i].n_kv_heads, old_bytes, new_bytes,
                   std::min(old_bytes, new_bytes));
    }
  }
}

void StepMemory::keep(int buffer, int n_before, int n_rows, int n) {
  const auto which = static_cast<size_t>(buffer);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const LayerPlaces& places = layers_[i];
    const size_t row = row_bytes(static_cast<int>(i));
    const std::pair<size_t, size_t> moves[] = {{places.new_k, places.past_k[which]},
                                               {places.new_v, places.past_v[which]}};
    for (const auto& [from, to] : moves) {
      for (size_t head = 0; head < static_cast<size_t>(facts_.layers[i].n_kv_heads); ++head) {
        const size_t slot =
            head * static_cast<size_t>(n_past_[which]) + static_cast<size_t>(n_before);
        std::memcpy(memory_.data() + to + slot * row,
                    memory_.data() + from + head * static_cast<size_t>(n_rows) * row,
                    static_cast<size_t>(n) * row);
      }
    }
  }
}

void StepMemory::load_new(const GraphRow& row, int n_rows, float* key, float* value) const {
  const LayerPlaces& places = layers_[static_cast<size_t>(row.layer)];
  const size_t at = static_cast<size_t>(row.kv_head * n_rows + row.slot) * row_bytes(row.layer);
  const int n = layer(row.layer).head_dim;
  load_row(memory_.data() + places.new_k + at, facts_.is_half, n, key);
  load_row(memory_.data() + places.new_v + at, facts_.is_half, n, value);
}

void StepMemory::store_past(int buffer, const GraphRow& row, const float* key, const float* value) {
  const auto which = static_cast<size_t>(buffer);
  const LayerPlaces& places = layers_[static_cast<size_t>(row.layer)];
  const size_t slot = static_cast<size_t>(row.kv_head) * static_cast<size_t>(n_past_[which]) +
                      static_cast<size_t>(row.slot);
  const size_t at = slot * row_bytes(row.layer);
  const int n = layer(row.layer).head_dim;
  store_row(key, facts_.is_half, n, memory_.data() + places.past_k[which] + at);
  store_row(value, facts_.is_half, n, memory_.data() + places.past_v[which] + at);
}

}  // namespace edge::npu
