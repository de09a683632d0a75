// Files: mappings, writes that are whole or not there, directories of one's own.
#include <dirent.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>

#include "base/posix_file.h"
#include "base/private_directory.h"
#include "base/temporary_name.h"

namespace edge {

namespace {

const struct timespec& mtime_of(const struct stat& s) {
#ifdef __APPLE__
  return s.st_mtimespec;
#else
  return s.st_mtim;
#endif
}

FileIdentity identity_of(const struct stat& s) {
#ifdef __APPLE__
  const struct timespec ctime = s.st_ctimespec;
#else
  const struct timespec ctime = s.st_ctim;
#endif
  return {.device = static_cast<uint64_t>(s.st_dev),
          .inode = static_cast<uint64_t>(s.st_ino),
          .size_bytes = static_cast<uint64_t>(s.st_size),
          .mtime_ns = to_ns(mtime_of(s)),
          .ctime_ns = to_ns(ctime)};
}

Status write_all(int fd, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), std::min(bytes.size(), size_t{1} << 30));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return {Code::kFileWriteFailed, path + ": write failed: " + errno_text(errno)};
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return {};
}

// False at the end of the file.
bool read_all(int fd, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::read(fd, bytes.data(), std::min(bytes.size(), size_t{1} << 30));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return true;
}

std::string directory_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "./" : path.substr(0, slash + 1);
}

Status fsync_directory_of(const std::string& path) {
  const std::string dir = directory_of(path);
  FileDescriptor fd(open_retrying(dir.c_str(), O_RDONLY | O_DIRECTORY));
  // Some file systems cannot sync a directory (EINVAL); the rename itself has happened by now.
  if (fd.get() < 0 || (::fsync(fd.get()) != 0 && errno != EINVAL)) {
    return {Code::kFileWriteFailed, dir + ": cannot sync the directory: " + errno_text(errno)};
  }
  return {};
}

struct Temporary {
  std::string path;
  FileDescriptor fd;
};

// Locked for as long as it is open, which is how others know that its writer lives; nothing but the
// end of a process lets a lock go that it has not let go itself. Where locks are not supported,
// nobody gets one, and temporary files of the dead stay.
Result<Temporary> create_temporary(const std::string& path) {
  for (;;) {
    Temporary made{temporary_name(path), FileDescriptor()};
    made.fd = FileDescriptor(open_retrying(made.path.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0600));
    if (made.fd.get() < 0) {
      return {Code::kFileWriteFailed, path + ": cannot write here: " + errno_text(errno)};
    }
    // Someone may have taken it for a stale one before it was locked.
    const bool is_locked_by_other =
        ::flock(made.fd.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    struct stat s;
    if (!is_locked_by_other && ::fstat(made.fd.get(), &s) == 0 && s.st_nlink > 0) return made;
  }
}

void remove_if_stale(const std::string& path) {
  const FileDescriptor fd(open_retrying(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
  if (fd.get() >= 0 && ::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) ::unlink(path.c_str());
}

// body(name) for everything in a directory.
template <class F>
void for_each_name(const std::string& directory, F&& body) {
  DIR* const dir = ::opendir(directory.c_str());
  if (dir == nullptr) return;
  while (const struct dirent* entry = ::readdir(dir)) body(std::string(entry->d_name));
  ::closedir(dir);
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must fail below, not wait for a writer.
  FileDescriptor fd(open_retrying(path.c_str(), O_RDONLY | O_NONBLOCK));
  if (fd.get() < 0) {
    const Code code = errno == ENOENT ? Code::kFileNotFound : Code::kFileUnreadable;
    return {code, path + ": cannot be opened: " + errno_text(errno)};
  }
  struct stat s;
  if (::fstat(fd.get(), &s) != 0) {
    return {Code::kFileUnreadable, path + ": cannot be examined: " + errno_text(errno)};
  }
  if (!S_ISREG(s.st_mode)) return {Code::kFileUnreadable, path + ": is not a regular file"};
  MappedFile file;
  file.identity_ = identity_of(s);
  if (s.st_size == 0) return file;
  if (static_cast<uint64_t>(s.st_size) > SIZE_MAX) {
    return {Code::kFileUnreadable, path + ": is larger than the address space"};
  }
  const size_t n_bytes = static_cast<size_t>(s.st_size);
  void* data = ::mmap(nullptr, n_bytes, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (data == MAP_FAILED) {
    return {Code::kFileUnreadable, path + ": cannot be mapped: " + errno_text(errno)};
  }
  file.data_ = static_cast<const std::byte*>(data);
  file.size_bytes_ = n_bytes;
  return file;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_bytes_);
}

void MappedFile::will_need(size_t offset, size_t n_bytes) const {
  if (offset >= size_bytes_) return;
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t start = offset - offset % page;
  const size_t end = offset + std::min(n_bytes, size_bytes_ - offset);
  ::madvise(const_cast<std::byte*>(data_) + start, end - start, MADV_WILLNEED);
}

Status atomic_write_file(const std::string& path, std::span<const std::byte> bytes) {
  return atomic_write_parts(path, std::span(&bytes, 1));
}

Status atomic_write_parts(const std::string& path, ByteParts parts, Durability durability) {
  EDGE_ASSIGN_OR_RETURN(Temporary temp, create_temporary(path));
  Status status;
  for (size_t i = 0; i < parts.size() && status.is_ok(); ++i) {
    status = write_all(temp.fd.get(), parts[i], path);
  }
  const bool syncs = durability == Durability::kPowerFailure;
  if (syncs && status.is_ok() && ::fsync(temp.fd.get()) != 0) {
    status = {Code::kFileWriteFailed, path + ": cannot sync: " + errno_text(errno)};
  }
  if (status.is_ok() && ::rename(temp.path.c_str(), path.c_str()) != 0) {
    status = {Code::kFileWriteFailed, path + ": cannot replace: " + errno_text(errno)};
  }
  if (!status.is_ok()) {
    ::unlink(temp.path.c_str());
    return status;
  }
  if (!temp.fd.close()) {
    return {Code::kFileWriteFailed, path + ": cannot close: " + errno_text(errno)};
  }
  return syncs ? fsync_directory_of(path) : status;
}

void remove_stale_temporaries(const std::string& path) {
  const std::string directory = directory_of(path);
  const std::string base = path.substr(path.rfind('/') + 1);
  for_each_name(directory, [&](const std::string& name) {
    if (is_temporary_of(name, base)) remove_if_stale(directory + name);
  });
}

Result<PrivateDirectory> PrivateDirectory::open(const std::string& path) {
  const auto refused = [&](const std::string& why) {
    return Status{Code::kFileWriteFailed,
                  path + ": " + why + "; give a directory of your own, or the name of a new one"};
  };
  if (path.find('\0') != std::string::npos) return refused("has a byte of zero in its name");
  std::string whole = path;
  while (whole.size() > 1 && whole.back() == '/') whole.pop_back();
  for (size_t at = whole.find('/', 1); at != std::string::npos; at = whole.find('/', at + 1)) {
    ::mkdir(whole.substr(0, at).c_str(), 0777);
  }
  struct stat s;
  if ((::mkdir(whole.c_str(), 0700) != 0 && errno != EEXIST) || ::lstat(whole.c_str(), &s) != 0) {
    return refused("cannot be made: " + errno_text(errno));
  }
  if (!S_ISDIR(s.st_mode)) return refused("is no directory");
  if (s.st_uid != ::geteuid()) return refused("belongs to another user");
  if ((s.st_mode & 077) != 0) return refused("is open to other users (chmod 700 makes it private)");
  char* const absolute = ::realpath(whole.c_str(), nullptr);
  if (absolute == nullptr) return refused("cannot be found: " + errno_text(errno));
  whole = absolute;
  std::free(absolute);
  return PrivateDirectory(std::move(whole));
}

std::vector<PrivateDirectory::File> PrivateDirectory::files() const {
  std::vector<File> files;
  for_each_name(path_, [&](std::string name) {
    struct stat s;
    if (::lstat(place(name).c_str(), &s) != 0 || !S_ISREG(s.st_mode)) return;
    files.push_back({std::move(name), static_cast<uint64_t>(s.st_size), to_ns(mtime_of(s))});
  });
  return files;
}

bool PrivateDirectory::has(const std::string& name) const {
  struct stat s;
  return ::lstat(place(name).c_str(), &s) == 0;
}

PrivateDirectory::Found PrivateDirectory::read(const std::string& name,
                                               std::span<const std::span<std::byte>> parts) const {
  const FileDescriptor fd(
      open_retrying(place(name).c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  if (fd.get() < 0) return errno == ELOOP ? Found::kOther : Found::kNothing;
  uint64_t n_bytes = 0;
  for (const auto& part : parts) n_bytes += part.size();
  struct stat s;
  if (::fstat(fd.get(), &s) != 0) return Found::kNothing;
  if (!S_ISREG(s.st_mode) || static_cast<uint64_t>(s.st_size) != n_bytes) return Found::kOther;
  const bool is_whole = std::all_of(parts.begin(), parts.end(),
                                    [&](const auto& part) { return read_all(fd.get(), part); });
  return is_whole ? Found::kFile : Found::kOther;
}

Status PrivateDirectory::write(const std::string& name, ByteParts parts) const {
  return atomic_write_parts(place(name), parts, Durability::kProcess);
}

// With the time of the clock: that of the kernel's files stands still for milliseconds.
bool PrivateDirectory::touch(const std::string& name) const {
  struct timespec times[2];
  ::clock_gettime(CLOCK_REALTIME, &times[0]);
  times[1] = times[0];
  return ::utimensat(AT_FDCWD, place(name).c_str(), times, AT_SYMLINK_NOFOLLOW) == 0;
}

void PrivateDirectory::remove(const std::string& name) const { ::unlink(place(name).c_str()); }

void PrivateDirectory::remove_stale(const std::string& name) const { remove_if_stale(place(name)); }

}  // namespace edge
