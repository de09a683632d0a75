// What goes to the device and comes back with a step, through pinned memory that a stream reads and
// writes while the host does something else.
#pragma once

#include <span>
#include <vector>

#include "backends/cuda/step_record.h"
#include "base/status.h"

namespace edge::cuda {

// Pinned memory in boxes that stay, so that what comes in the same order in every step has the same
// addresses.
class PinnedBoxes {
 public:
  struct Place {
    size_t box = 0;
    size_t at = 0;
  };
  PinnedBoxes() = default;
  PinnedBoxes(const PinnedBoxes&) = delete;
  PinnedBoxes& operator=(const PinnedBoxes&) = delete;
  ~PinnedBoxes();

  // Aligned to 256 bytes.
  Result<Place> take(size_t n_bytes);
  void clear();
  std::byte* host(Place place) const { return boxes_[place.box].host + place.at; }
  size_t n_boxes() const { return boxes_.size(); }
  size_t capacity(size_t box) const { return boxes_[box].n_bytes; }
  size_t used(size_t box) const { return boxes_[box].used; }
  size_t n_bytes() const { return n_bytes_; }  // taken

 private:
  struct Box {
    std::byte* host = nullptr;
    size_t n_bytes = 0;
    size_t used = 0;
  };
  std::vector<Box> boxes_;
  size_t box_ = 0;  // that has room
  size_t n_bytes_ = 0;
};

// Small things that a step's kernels read. What was put there stays until clear(), which is for
// when the stream is idle.
class Mailbox {
 public:
  Mailbox() = default;
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;
  ~Mailbox();
  void clear();
  // The device's address.
  Result<const std::byte*> put(std::span<const std::byte> bytes);
  // Records the copies of what was put there since the last time, before all else.
  void send(StepRecord& record);

 private:
  struct OnDevice {
    std::byte* bytes = nullptr;
    size_t n_sent = 0;
  };
  PinnedBoxes boxes_;
  std::vector<OnDevice> devices_;  // of every box
};

// What is fetched from the device for memory that is not pinned.
class Outbox {
 public:
  // Records the copy; it is in `to` after deliver().
  Status fetch(const void* from, size_t n_bytes, void* to, StepRecord& record);
  // The stream has done what was recorded.
  void deliver();
  void clear();
  size_t n_bytes() const { return boxes_.n_bytes(); }

 private:
  struct Letter {
    const std::byte* pinned;
    size_t n_bytes;
    void* to;
  };
  PinnedBoxes boxes_;
  std::vector<Letter> letters_;
};

}  // namespace edge::cuda
