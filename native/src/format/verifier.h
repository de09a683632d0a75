// Verifier: hashes the leaves of an EdgeFile, at once or on a background thread, and remembers
// success in the user cache so that the next load of the same bytes need not hash again.
//
// "Remembered" means an entry keyed by (root, device, inode, size, mtime_ns, ctime_ns) under
// user_cache_dir()/verified/; a missing or unwritable cache only costs time. Thread-safe.
#pragma once

#include <atomic>
#include <memory>

#include "format/edge_file.h"

namespace edge {

class Verifier {
 public:
  // kAlways: hashes with `n_threads` before returning and fails on the first wrong leaf.
  // kOnce: returns at once; hashes on one low-priority thread unless remembered.
  // kNever: does nothing.
  static Result<std::unique_ptr<Verifier>> start(std::shared_ptr<const EdgeFile> file,
                                                 VerifyMode mode, int n_threads);
  ~Verifier();  // stops and joins a running background pass

  // Share of the file's leaves known to be right, 0..1; 1 when remembered. 0 for kNever.
  double verified_fraction() const;
  // ok while nothing wrong was found; kLeafHash afterwards. Cheap: called once per step.
  Status status() const;
  // Blocks until the background pass has ended and returns its status.
  Status wait();

 private:
  struct State;
  explicit Verifier(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace edge
