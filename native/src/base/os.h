// The one operating-system layer: everything that differs between POSIX and Windows is declared
// here and implemented in os_posix.cc and files_posix.cc, or in os_win.cc. Paths are UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"

namespace edge {

// Identifies the content of a file for "was this verified before": any rewrite changes it.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size_bytes = 0;
  int64_t mtime_ns = 0;
  int64_t ctime_ns = 0;
  bool operator==(const FileIdentity&) const = default;
};

// A read-only mapping of a whole file. Unmapped by the destructor; movable, not copyable.
class MappedFile {
 public:
  static Result<MappedFile> open(const std::string& path);
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_bytes_}; }
  const FileIdentity& identity() const { return identity_; }
  // Hints that a range will be read soon (madvise WILLNEED); out-of-range parts are ignored.
  void will_need(size_t offset, size_t n_bytes) const;

 private:
  const std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
  FileIdentity identity_;
  void* handle_ = nullptr;  // Windows mapping handle; unused on POSIX
};

// Zero-filled pages straight from the OS: KV pages and scratch. Freed by the destructor.
class PageBuffer {
 public:
  static Result<PageBuffer> allocate(size_t n_bytes);
  using Allocate = Result<PageBuffer> (*)(size_t n_bytes);
  // Memory from elsewhere, such as a device's driver, with what gives it back.
  using Release = void (*)(std::byte* data, size_t size_bytes);
  static PageBuffer adopt(std::byte* data, size_t n_bytes, Release release);
  PageBuffer() = default;
  PageBuffer(PageBuffer&& other) noexcept;
  PageBuffer& operator=(PageBuffer&& other) noexcept;
  PageBuffer(const PageBuffer&) = delete;
  PageBuffer& operator=(const PageBuffer&) = delete;
  ~PageBuffer();
  std::byte* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
  Release release_ = nullptr;  // null: the OS's own
};

// Writes the parts one after another to `path` so that a reader sees the old file or the whole new
// one, never a part of it: temp file in the same directory, fsync, rename, fsync of the directory.
// What need not outlast a power failure, and is checked when it is read, can do without the fsyncs.
enum class Durability { kPowerFailure, kProcess };
using ByteParts = std::span<const std::span<const std::byte>>;
Status atomic_write_parts(const std::string& path, ByteParts parts,
                          Durability durability = Durability::kPowerFailure);
Status atomic_write_file(const std::string& path, std::span<const std::byte> bytes);
// Temporary files for `path` whose writers were killed; never one that is being written.
void remove_stale_temporaries(const std::string& path);

// Asks the OS to run the calling thread only when nothing else wants the core; best effort.
void lower_thread_priority();

// Logical CPUs this process may run on, after affinity; at least 1.
int n_usable_cpus();
// CPUs the cgroup quota allows, rounded up; 0 when there is no quota.
int n_quota_cpus();
// One logical CPU id per physical core (performance cores first where the OS tells) within
// affinity.
std::vector<int> physical_core_cpus();

struct MemoryFigures {
  uint64_t total_bytes = 0;      // of the machine, or of the cgroup if that is less
  uint64_t available_bytes = 0;  // what may be taken without swapping, cgroup limit included
  uint64_t rss_bytes = 0;        // of this process now
  uint64_t peak_rss_bytes = 0;   // of this process so far
};
MemoryFigures memory_figures();

// The per-user cache directory of edgellm (XDG_CACHE_HOME/edgellm and its peers); "" if none.
std::string user_cache_dir();
// Differs between parent and child: helper threads do not survive a fork.
int64_t process_id();
// Monotonic clock in nanoseconds.
int64_t monotonic_ns();

}  // namespace edge
