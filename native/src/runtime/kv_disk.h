// KvDisk: pages of texts that have left memory, in the files of one directory within a budget of
// bytes. docs/SESSIONS.md gives the bytes.
//
// A file has the pages of 16 tokens, one of each group, and its name is the SHA-256 of all that
// they depend on: model, format, key and every id up to theirs. So files are never changed, what
// several processes write under one name is the same, and whoever asks for a name knows every byte
// but those of the pages, which have checksums: there is nothing to parse. A file that is not as
// it must be is removed, and its text computed again.
//
// The budget holds for the directory: when it is spent, the files used least recently go. What
// other processes write is seen at least whenever a sixteenth of it was written here. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

#include "backends/kv_layout.h"
#include "base/private_directory.h"
#include "base/sha256.h"
#include "base/status.h"

namespace edge {

struct KvDiskFigures {
  uint64_t n_bytes = 0;  // of all files, as far as known
  int64_t n_written_tokens = 0;
  int64_t n_read_tokens = 0;
  int64_t n_damaged_files = 0;  // found and removed
  int64_t n_failed_writes = 0;
};

class KvDisk {
 public:
  using Name = Sha256Digest;
  // The pages of the same tokens, by group.
  template <class Byte>
  using Pages = std::span<const std::span<Byte>>;

  struct Options {
    std::string directory;
    uint64_t budget_bytes = 0;
    std::string identity;             // what pages depend on besides keys and ids
    std::function<bool()> may_write;  // whether what is computed now is right; from any thread
  };
  // kFileWriteFailed for a directory that cannot be used, kInvalidArgument for a budget of less
  // than two files.
  static Result<std::unique_ptr<KvDisk>> open(Options options, std::span<const KvGroup> groups);

  // Where texts under `key` begin, and the page of `ids` after another one.
  Name beginning(std::string_view key) const;
  static Name after(const Name& before, std::span<const int32_t> ids);

  // Unless it is there. Failures are counted: what is not written is computed again.
  void write(const Name& name, std::span<const int32_t> ids, Pages<const std::byte> pages);
  // From now on nothing is, and Options::may_write is not called any more.
  void stop_writing();
  bool has(const Name& name) const;
  // False if there is no such file or it is damaged; `pages` then hold anything.
  bool read(const Name& name, std::span<const int32_t> ids, Pages<std::byte> pages);
  // Files used together are to be touched from the last one on, so that no text loses its
  // beginning first.
  void touch(const Name& name) const;

  KvDiskFigures figures() const;
  // The lock of all state, for fork(): a child must not inherit it half-way.
  std::mutex& mutex() { return mutex_; }

 private:
  KvDisk(PrivateDirectory directory, Options options);
  bool may_write();
  bool write_new(const Name& name, std::span<const int32_t> ids, Pages<const std::byte> pages);
  void look(uint64_t n_wanted_bytes);
  void make_room(uint64_t n_bytes);

  const PrivateDirectory directory_;
  const uint64_t budget_bytes_;
  const Sha256Digest identity_;
  mutable std::mutex mutex_;
  std::function<bool()> may_write_;  // empty: no more
  uint64_t n_bytes_since_look_ = 0;  // written here
  KvDiskFigures figures_;
};

}  // namespace edge
