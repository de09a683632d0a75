// A directory for files that come and go by name and are nobody else's business: 0700, the files
// 0600. Part of the OS layer: files_posix.cc, os_win.cc.
//
// Other processes of the same user may use it at the same time. Files appear whole, under names
// that say what is in them, and are never changed; whoever has opened one keeps it though another
// removes it. No symbolic link is followed. Nothing is mapped: a file that shrinks under a mapping
// kills its reader.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/os.h"
#include "base/status.h"

namespace edge {

class PrivateDirectory {
 public:
  struct File {
    std::string name;
    uint64_t n_bytes = 0;
    int64_t used_ns = 0;  // when it was written or touched; only the order matters
  };
  // kOther: what is there cannot be the file that was asked for.
  enum class Found { kNothing, kOther, kFile };

  // Makes it unless it is there: kFileWriteFailed, also for one that others may look into.
  static Result<PrivateDirectory> open(const std::string& path);

  std::vector<File> files() const;  // regular ones
  bool has(const std::string& name) const;
  // Reads the whole file `name`, which must have the size of all parts, into them.
  Found read(const std::string& name, std::span<const std::span<std::byte>> parts) const;
  // Whole or not at all, but not synced: kFileWriteFailed.
  Status write(const std::string& name, ByteParts parts) const;
  // Makes it the one used last; false if there is none.
  bool touch(const std::string& name) const;
  void remove(const std::string& name) const;
  // A temporary file of write(), unless its writer lives.
  void remove_stale(const std::string& name) const;

 private:
  explicit PrivateDirectory(std::string path) : path_(std::move(path)) {}
  std::string place(const std::string& name) const { return path_ + '/' + name; }

  std::string path_;  // absolute
};

}  // namespace edge
