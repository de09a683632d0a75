#include "backends/cuda/mail.h"

#include <algorithm>
#include <cstring>

#include "backends/cuda/device_memory.h"

namespace edge::cuda {
namespace {

constexpr size_t kBoxBytes = size_t{256} << 10;
constexpr size_t kAlignment = 256;
// Copies are whole units, so that a step that sends a little more has the same ones.
constexpr size_t kCopyUnit = size_t{16} << 10;

size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

PinnedBoxes::~PinnedBoxes() {
  for (const Box& box : boxes_) cudaFreeHost(box.host);
}

Result<PinnedBoxes::Place> PinnedBoxes::take(size_t n_bytes) {
  while (box_ < boxes_.size() && boxes_[box_].n_bytes - boxes_[box_].used < n_bytes) ++box_;
  if (box_ == boxes_.size()) {
    void* host = nullptr;
    const size_t n_box = round_up(std::max(kBoxBytes, n_bytes), kCopyUnit);
    EDGE_RETURN_IF_ERROR(status_of(cudaMallocHost(&host, n_box), "pinned memory"));
    boxes_.push_back({static_cast<std::byte*>(host), n_box, 0});
  }
  Box& box = boxes_[box_];
  const Place place = {box_, box.used};
  box.used = std::min(box.n_bytes, box.used + round_up(n_bytes, kAlignment));
  n_bytes_ += n_bytes;
  return place;
}

void PinnedBoxes::clear() {
  for (Box& box : boxes_) box.used = 0;
  box_ = 0;
  n_bytes_ = 0;
}

Mailbox::~Mailbox() {
  for (const OnDevice& device : devices_) cudaFree(device.bytes);
}

void Mailbox::clear() {
  boxes_.clear();
  for (OnDevice& device : devices_) device.n_sent = 0;
}

Result<const std::byte*> Mailbox::put(std::span<const std::byte> bytes) {
  EDGE_ASSIGN_OR_RETURN(const PinnedBoxes::Place place, boxes_.take(bytes.size()));
  while (devices_.size() < boxes_.n_boxes()) {
    void* device = nullptr;
    EDGE_RETURN_IF_ERROR(
        status_of(cudaMalloc(&device, boxes_.capacity(devices_.size())), "memory for rows"));
    devices_.push_back({static_cast<std::byte*>(device), 0});
  }
  if (!bytes.empty()) std::memcpy(boxes_.host(place), bytes.data(), bytes.size());
  return static_cast<const std::byte*>(devices_[place.box].bytes + place.at);
}

void Mailbox::send(StepRecord& record) {
  for (size_t i = 0; i < devices_.size(); ++i) {
    OnDevice& device = devices_[i];
    const size_t end = std::min(boxes_.capacity(i), round_up(boxes_.used(i), kCopyUnit));
    if (boxes_.used(i) <= device.n_sent) continue;
    record.copy_first(device.bytes + device.n_sent, boxes_.host({i, device.n_sent}),
                      end - device.n_sent);
    device.n_sent = boxes_.used(i);
  }
}

Status Outbox::fetch(const void* from, size_t n_bytes, void* to, StepRecord& record) {
  EDGE_ASSIGN_OR_RETURN(const PinnedBoxes::Place place, boxes_.take(n_bytes));
  std::byte* pinned = boxes_.host(place);
  record.copy(pinned, from, n_bytes);
  letters_.push_back({pinned, n_bytes, to});
  return {};
}

void Outbox::deliver() {
  for (const Letter& letter : letters_) std::memcpy(letter.to, letter.pinned, letter.n_bytes);
  clear();
}

void Outbox::clear() {
  letters_.clear();
  boxes_.clear();
}

}  // namespace edge::cuda
