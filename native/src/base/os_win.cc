// Win32. Paths are UTF-8 outside and UTF-16 here. There is no cgroup: a job object's limits are the
// nearest thing, and its memory limit is honoured.
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
// After windows.h, on which it depends.
#include <psapi.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "base/private_directory.h"
#include "base/temporary_name.h"

namespace edge {

namespace {

std::string error_text(DWORD error) {
  return std::system_category().message(static_cast<int>(error));
}

std::optional<std::wstring> to_wide(const std::string& utf8) {
  if (utf8.empty() || utf8.size() > 32767) return std::nullopt;
  const int n_in = static_cast<int>(utf8.size());
  const int n = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, utf8.data(), n_in, nullptr, 0);
  if (n <= 0) return std::nullopt;
  std::wstring wide(static_cast<size_t>(n), L'\0');
  MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, utf8.data(), n_in, wide.data(), n);
  if (wide.find(L'\0') != wide.npos) return std::nullopt;
  return wide;
}

std::string from_wide(const wchar_t* wide) {
  const int n = WideCharToMultiByte(CP_UTF8, 0, wide, -1, nullptr, 0, nullptr, nullptr);
  if (n <= 1) return "";
  std::string utf8(static_cast<size_t>(n), '\0');
  WideCharToMultiByte(CP_UTF8, 0, wide, -1, utf8.data(), n, nullptr, nullptr);
  utf8.resize(static_cast<size_t>(n) - 1);  // without the terminator
  return utf8;
}

class Handle {
 public:
  explicit Handle(HANDLE handle) : handle_(handle) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() { close(); }
  HANDLE get() const { return handle_; }
  bool is_valid() const { return handle_ != nullptr && handle_ != INVALID_HANDLE_VALUE; }
  HANDLE release() { return std::exchange(handle_, nullptr); }
  bool close() {
    if (!is_valid()) return true;
    return CloseHandle(std::exchange(handle_, nullptr)) != 0;
  }

 private:
  HANDLE handle_;
};

uint64_t join(DWORD high, DWORD low) { return uint64_t{high} << 32 | low; }

// 100 ns units since 1601; only equality and order matter.
int64_t to_ns(const FILETIME& time) {
  return static_cast<int64_t>(join(time.dwHighDateTime, time.dwLowDateTime) * 100);
}

Result<FileIdentity> identity_of(HANDLE file, const std::string& path) {
  BY_HANDLE_FILE_INFORMATION info;
  FILE_BASIC_INFO basic;
  if (!GetFileInformationByHandle(file, &info) ||
      !GetFileInformationByHandleEx(file, FileBasicInfo, &basic, sizeof(basic))) {
    return {Code::kFileUnreadable, path + ": cannot be examined: " + error_text(GetLastError())};
  }
  if ((info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0 ||
      GetFileType(file) != FILE_TYPE_DISK) {
    return {Code::kFileUnreadable, path + ": is not a regular file"};
  }
  return FileIdentity{.device = info.dwVolumeSerialNumber,
                      .inode = join(info.nFileIndexHigh, info.nFileIndexLow),
                      .size_bytes = join(info.nFileSizeHigh, info.nFileSizeLow),
                      .mtime_ns = to_ns(info.ftLastWriteTime),
                      .ctime_ns = basic.ChangeTime.QuadPart * 100};
}

Status write_all(HANDLE file, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const DWORD want = static_cast<DWORD>(std::min(bytes.size(), size_t{1} << 30));
    DWORD n = 0;
    if (!WriteFile(file, bytes.data(), want, &n, nullptr)) {
      return {Code::kFileWriteFailed, path + ": write failed: " + error_text(GetLastError())};
    }
    bytes = bytes.subspan(n);
  }
  return {};
}

// body(name, what) for every file of a directory that is no link.
template <class F>
void for_each_file(const std::string& directory, F&& body) {
  const auto pattern = to_wide(directory + "/*");
  WIN32_FIND_DATAW found;
  if (!pattern) return;
  const HANDLE search = FindFirstFileW(pattern->c_str(), &found);
  if (search == INVALID_HANDLE_VALUE) return;
  do {
    constexpr DWORD kOther = FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_REPARSE_POINT;
    if ((found.dwFileAttributes & kOther) == 0) body(from_wide(found.cFileName), found);
  } while (FindNextFileW(search, &found));
  FindClose(search);
}

// One that is there, and no link; others may replace and remove it meanwhile.
Handle open_file(const std::string& path, DWORD access) {
  const auto wide = to_wide(path);
  constexpr DWORD kShare = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
  return Handle(wide ? CreateFileW(wide->c_str(), access, kShare, nullptr, OPEN_EXISTING,
                                   FILE_FLAG_OPEN_REPARSE_POINT, nullptr)
                     : INVALID_HANDLE_VALUE);
}

struct JobMemory {
  uint64_t limit_bytes = 0;  // 0: none
  uint64_t used_bytes = 0;
};

JobMemory job_memory() {
  JOBOBJECT_EXTENDED_LIMIT_INFORMATION info;
  JobMemory memory;
  if (!QueryInformationJobObject(nullptr, JobObjectExtendedLimitInformation, &info, sizeof(info),
                                 nullptr)) {
    return memory;
  }
  const DWORD flags = info.BasicLimitInformation.LimitFlags;
  if ((flags & JOB_OBJECT_LIMIT_PROCESS_MEMORY) != 0) memory.limit_bytes = info.ProcessMemoryLimit;
  if ((flags & JOB_OBJECT_LIMIT_JOB_MEMORY) != 0 &&
      (memory.limit_bytes == 0 || info.JobMemoryLimit < memory.limit_bytes)) {
    memory.limit_bytes = info.JobMemoryLimit;
  }
  PROCESS_MEMORY_COUNTERS counters;
  if (GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof(counters))) {
    memory.used_bytes = counters.PagefileUsage;
  }
  return memory;
}

// Higher is faster. The byte after Flags; older headers do not name it.
BYTE efficiency_class(const PROCESSOR_RELATIONSHIP& core) {
  return reinterpret_cast<const BYTE*>(&core)[1];
}

DWORD_PTR affinity_mask() {
  DWORD_PTR process = 0, system = 0;
  GetProcessAffinityMask(GetCurrentProcess(), &process, &system);
  return process;
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::string& path) {
  const auto wide = to_wide(path);
  if (!wide) return {Code::kFileNotFound, path + ": is not a valid path"};
  // Sharing deletion keeps others free to rename the file; to replace it, they must wait until it
  // is no longer mapped.
  Handle handle(CreateFileW(wide->c_str(), GENERIC_READ,
                            FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr,
                            OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr));
  if (!handle.is_valid()) {
    const DWORD error = GetLastError();
    const bool is_missing = error == ERROR_FILE_NOT_FOUND || error == ERROR_PATH_NOT_FOUND;
    return {is_missing ? Code::kFileNotFound : Code::kFileUnreadable,
            path + ": cannot be opened: " + error_text(error)};
  }
  MappedFile file;
  EDGE_ASSIGN_OR_RETURN(file.identity_, identity_of(handle.get(), path));
  if (file.identity_.size_bytes == 0) return file;
  if (file.identity_.size_bytes > SIZE_MAX) {
    return {Code::kFileUnreadable, path + ": is larger than the address space"};
  }
  Handle mapping(CreateFileMappingW(handle.get(), nullptr, PAGE_READONLY, 0, 0, nullptr));
  const void* data =
      mapping.is_valid() ? MapViewOfFile(mapping.get(), FILE_MAP_READ, 0, 0, 0) : nullptr;
  if (data == nullptr) {
    return {Code::kFileUnreadable, path + ": cannot be mapped: " + error_text(GetLastError())};
  }
  file.data_ = static_cast<const std::byte*>(data);
  file.size_bytes_ = static_cast<size_t>(file.identity_.size_bytes);
  file.handle_ = mapping.release();
  return file;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) UnmapViewOfFile(data_);
  if (handle_ != nullptr) CloseHandle(handle_);
}

void MappedFile::will_need(size_t offset, size_t n_bytes) const {
  if (offset >= size_bytes_) return;
  WIN32_MEMORY_RANGE_ENTRY range{const_cast<std::byte*>(data_) + offset,
                                 std::min(n_bytes, size_bytes_ - offset)};
  PrefetchVirtualMemory(GetCurrentProcess(), 1, &range, 0);
}

Result<PageBuffer> PageBuffer::allocate(size_t n_bytes) {
  PageBuffer buffer;
  if (n_bytes == 0) return buffer;
  void* data = VirtualAlloc(nullptr, n_bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
  if (data == nullptr) {
    return {Code::kOutOfMemory,
            "cannot allocate " + std::to_string(n_bytes) + " bytes: " + error_text(GetLastError())};
  }
  buffer.data_ = static_cast<std::byte*>(data);
  buffer.size_bytes_ = n_bytes;
  return buffer;
}

PageBuffer::~PageBuffer() {
  if (data_ == nullptr) return;
  if (release_ != nullptr) {
    release_(data_, size_bytes_);
  } else {
    VirtualFree(data_, 0, MEM_RELEASE);
  }
}

Status atomic_write_file(const std::string& path, std::span<const std::byte> bytes) {
  return atomic_write_parts(path, std::span(&bytes, 1));
}

Status atomic_write_parts(const std::string& path, ByteParts parts, Durability durability) {
  const std::string temp = temporary_name(path);
  const auto wide_path = to_wide(path);
  const auto wide_temp = to_wide(temp);
  if (!wide_path || !wide_temp) return {Code::kFileWriteFailed, path + ": is not a valid path"};
  Handle file(CreateFileW(wide_temp->c_str(), GENERIC_WRITE, 0, nullptr, CREATE_NEW,
                          FILE_ATTRIBUTE_NORMAL, nullptr));
  if (!file.is_valid()) {
    return {Code::kFileWriteFailed, path + ": cannot write here: " + error_text(GetLastError())};
  }
  Status status;
  for (size_t i = 0; i < parts.size() && status.is_ok(); ++i) {
    status = write_all(file.get(), parts[i], path);
  }
  const bool syncs = durability == Durability::kPowerFailure;
  if (syncs && status.is_ok() && !FlushFileBuffers(file.get())) {
    status = {Code::kFileWriteFailed, path + ": cannot sync: " + error_text(GetLastError())};
  }
  if (!file.close() && status.is_ok()) {
    status = {Code::kFileWriteFailed, path + ": cannot close: " + error_text(GetLastError())};
  }
  // Stands for the sync of the directory.
  const DWORD through = syncs ? MOVEFILE_WRITE_THROUGH : 0;
  if (status.is_ok() &&
      !MoveFileExW(wide_temp->c_str(), wide_path->c_str(), MOVEFILE_REPLACE_EXISTING | through)) {
    status = {Code::kFileWriteFailed, path + ": cannot replace: " + error_text(GetLastError())};
  }
  if (!status.is_ok()) DeleteFileW(wide_temp->c_str());
  return status;
}

void remove_stale_temporaries(const std::string& path) {
  const size_t slash = path.find_last_of("/\\");
  const std::string directory = slash == std::string::npos ? "./" : path.substr(0, slash + 1);
  for_each_file(directory, [&](std::string name, const WIN32_FIND_DATAW&) {
    if (!is_temporary_of(name, path.substr(slash + 1))) return;
    if (const auto wide = to_wide(directory + name)) DeleteFileW(wide->c_str());
  });
}

// What is made below the user's own directories is private there by inheritance.
Result<PrivateDirectory> PrivateDirectory::open(const std::string& path) {
  std::error_code error;
  const std::filesystem::path given(std::u8string(path.begin(), path.end()));
  const std::filesystem::path whole = std::filesystem::absolute(given, error);
  std::filesystem::create_directories(whole, error);
  const DWORD attributes = GetFileAttributesW(whole.c_str());
  if (attributes == INVALID_FILE_ATTRIBUTES || (attributes & FILE_ATTRIBUTE_DIRECTORY) == 0 ||
      (attributes & FILE_ATTRIBUTE_REPARSE_POINT) != 0) {
    return {Code::kFileWriteFailed, path +
                                        ": is no directory and cannot be made one; give "
                                        "a directory of your own, or the name of a new one"};
  }
  return PrivateDirectory(from_wide(whole.c_str()));
}

std::vector<PrivateDirectory::File> PrivateDirectory::files() const {
  std::vector<File> files;
  for_each_file(path_, [&](std::string name, const WIN32_FIND_DATAW& found) {
    files.push_back({std::move(name), join(found.nFileSizeHigh, found.nFileSizeLow),
                     to_ns(found.ftLastWriteTime)});
  });
  return files;
}

bool PrivateDirectory::has(const std::string& name) const {
  const auto wide = to_wide(place(name));
  return wide && GetFileAttributesW(wide->c_str()) != INVALID_FILE_ATTRIBUTES;
}

PrivateDirectory::Found PrivateDirectory::read(const std::string& name,
                                               std::span<const std::span<std::byte>> parts) const {
  const Handle file = open_file(place(name), GENERIC_READ);
  if (!file.is_valid()) return Found::kNothing;
  uint64_t n_bytes = 0;
  for (const auto& part : parts) n_bytes += part.size();
  const auto identity = identity_of(file.get(), name);
  if (!identity.is_ok() || identity.value().size_bytes != n_bytes) return Found::kOther;
  for (std::span<std::byte> left : parts) {
    while (!left.empty()) {
      const DWORD want = static_cast<DWORD>(std::min(left.size(), size_t{1} << 30));
      DWORD n = 0;
      if (!ReadFile(file.get(), left.data(), want, &n, nullptr) || n == 0) return Found::kOther;
      left = left.subspan(n);
    }
  }
  return Found::kFile;
}

Status PrivateDirectory::write(const std::string& name, ByteParts parts) const {
  return atomic_write_parts(place(name), parts, Durability::kProcess);
}

bool PrivateDirectory::touch(const std::string& name) const {
  const Handle file = open_file(place(name), FILE_WRITE_ATTRIBUTES);
  FILETIME now;
  GetSystemTimePreciseAsFileTime(&now);
  return file.is_valid() && SetFileTime(file.get(), nullptr, nullptr, &now) != 0;
}

void PrivateDirectory::remove(const std::string& name) const {
  if (const auto wide = to_wide(place(name))) DeleteFileW(wide->c_str());
}

// One that is being written is not shared, and stays.
void PrivateDirectory::remove_stale(const std::string& name) const { remove(name); }

void lower_thread_priority() {
  SetThreadPriority(GetCurrentThread(), THREAD_MODE_BACKGROUND_BEGIN);
}

int n_usable_cpus() { return std::max(1, std::popcount(affinity_mask())); }

int n_quota_cpus() {
  JOBOBJECT_CPU_RATE_CONTROL_INFORMATION rate;
  if (!QueryInformationJobObject(nullptr, JobObjectCpuRateControlInformation, &rate, sizeof(rate),
                                 nullptr)) {
    return 0;
  }
  constexpr DWORD kHardCap =
      JOB_OBJECT_CPU_RATE_CONTROL_ENABLE | JOB_OBJECT_CPU_RATE_CONTROL_HARD_CAP;
  if ((rate.ControlFlags & kHardCap) != kHardCap) return 0;
  SYSTEM_INFO system;
  GetSystemInfo(&system);
  const uint64_t n = uint64_t{rate.CpuRate} * system.dwNumberOfProcessors;  // of 10,000
  return static_cast<int>(std::max<uint64_t>(1, (n + 9999) / 10000));
}

std::vector<int> physical_core_cpus() {
  struct Core {
    int cpu;
    BYTE speed;
  };
  std::vector<Core> cores;
  DWORD n_bytes = 0;
  GetLogicalProcessorInformationEx(RelationProcessorCore, nullptr, &n_bytes);
  std::vector<std::byte> buffer(n_bytes);
  auto* first = reinterpret_cast<SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX*>(buffer.data());
  if (n_bytes > 0 && GetLogicalProcessorInformationEx(RelationProcessorCore, first, &n_bytes)) {
    for (DWORD at = 0; at < n_bytes;) {
      const auto* row =
          reinterpret_cast<const SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX*>(buffer.data() + at);
      const KAFFINITY usable = row->Processor.GroupMask[0].Mask & affinity_mask();
      if (row->Processor.GroupMask[0].Group == 0 && usable != 0) {
        cores.push_back({std::countr_zero(usable), efficiency_class(row->Processor)});
      }
      at += row->Size;
    }
  }
  if (cores.empty()) cores.push_back({0, 0});
  std::stable_sort(cores.begin(), cores.end(),
                   [](const Core& a, const Core& b) { return a.speed > b.speed; });
  std::vector<int> cpus;
  for (const Core& core : cores) cpus.push_back(core.cpu);
  return cpus;
}

MemoryFigures memory_figures() {
  MemoryFigures figures;
  MEMORYSTATUSEX machine{};
  machine.dwLength = sizeof(machine);
  if (GlobalMemoryStatusEx(&machine)) {
    figures.total_bytes = machine.ullTotalPhys;
    figures.available_bytes = machine.ullAvailPhys;
  }
  if (const JobMemory job = job_memory(); job.limit_bytes != 0) {
    figures.total_bytes = std::min(figures.total_bytes, job.limit_bytes);
    figures.available_bytes = std::min(figures.available_bytes,
                                       job.limit_bytes - std::min(job.used_bytes, job.limit_bytes));
  }
  PROCESS_MEMORY_COUNTERS process;
  if (GetProcessMemoryInfo(GetCurrentProcess(), &process, sizeof(process))) {
    figures.rss_bytes = process.WorkingSetSize;
    figures.peak_rss_bytes = process.PeakWorkingSetSize;
  }
  return figures;
}

std::string user_cache_dir() {
  const wchar_t* xdg = _wgetenv(L"XDG_CACHE_HOME");
  if (xdg != nullptr && std::filesystem::path(xdg).is_absolute()) {
    return from_wide(xdg) + "/edgellm";
  }
  const wchar_t* local = _wgetenv(L"LOCALAPPDATA");
  if (local == nullptr || local[0] == L'\0') return "";
  return from_wide(local) + "/edgellm/cache";
}

int64_t process_id() { return static_cast<int64_t>(GetCurrentProcessId()); }

int64_t monotonic_ns() {
  LARGE_INTEGER frequency, count;
  QueryPerformanceFrequency(&frequency);
  QueryPerformanceCounter(&count);
  const int64_t seconds = count.QuadPart / frequency.QuadPart;
  const int64_t rest = count.QuadPart % frequency.QuadPart;
  return seconds * 1'000'000'000 + rest * 1'000'000'000 / frequency.QuadPart;
}

}  // namespace edge
