// Linux first, macOS where it is cheap to say. Limits of containers are honoured: affinity, cgroup
// v1 and v2 quotas and memory limits, each taken at its tightest between our cgroup and the root.
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <map>
#include <optional>

#include "base/posix_file.h"
#ifdef __APPLE__
#include <mach/mach.h>
#include <pthread.h>
#include <sys/sysctl.h>
#endif

namespace edge {

namespace {

// The first `max_bytes` of a small text file (procfs, sysfs); "" if it cannot be read.
std::string read_text(const std::string& path, size_t max_bytes = 65536) {
  FileDescriptor fd(open_retrying(path.c_str(), O_RDONLY));
  std::string text;
  if (fd.get() < 0) return text;
  char buffer[4096];
  while (text.size() < max_bytes) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    text.append(buffer, static_cast<size_t>(n));
  }
  return text;
}

// The decimal number at the start of `text`, after blanks.
std::optional<uint64_t> leading_number(std::string_view text) {
  const size_t start = text.find_first_not_of(" \t");
  if (start == std::string_view::npos) return std::nullopt;
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data() + start, text.data() + text.size(), value);
  return error == std::errc() ? std::optional(value) : std::nullopt;
}

// The number after "key" at the start of a line: "VmRSS:   123 kB", "inactive_file 4096".
std::optional<uint64_t> number_after(std::string_view text, std::string_view key) {
  for (size_t line = 0; line < text.size();) {
    if (text.substr(line, key.size()) == key) return leading_number(text.substr(line + key.size()));
    const size_t end = text.find('\n', line);
    line = end == std::string_view::npos ? text.size() : end + 1;
  }
  return std::nullopt;
}

}  // namespace

Result<PageBuffer> PageBuffer::allocate(size_t n_bytes) {
  PageBuffer buffer;
  if (n_bytes == 0) return buffer;
  void* data = ::mmap(nullptr, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    return {Code::kOutOfMemory,
            "cannot allocate " + std::to_string(n_bytes) + " bytes: " + errno_text(errno)};
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
    ::munmap(data_, size_bytes_);
  }
}

void lower_thread_priority() {
#ifdef __linux__
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), 19);
#elif defined(__APPLE__)
  pthread_set_qos_class_self_np(QOS_CLASS_BACKGROUND, 0);
#endif
}

#ifdef __APPLE__

namespace {

uint64_t sysctl_number(const char* name) {
  uint64_t value = 0;
  size_t size = sizeof(value);
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 ? value : 0;
}

}  // namespace

int n_usable_cpus() { return std::max(1, static_cast<int>(sysctl_number("hw.logicalcpu"))); }

int n_quota_cpus() { return 0; }

std::vector<int> physical_core_cpus() {
  uint64_t n_cores = sysctl_number("hw.perflevel0.physicalcpu");
  if (n_cores == 0) n_cores = sysctl_number("hw.physicalcpu");
  std::vector<int> cpus;
  for (int i = 0; i < std::max(1, static_cast<int>(n_cores)); ++i) cpus.push_back(i);
  return cpus;
}

MemoryFigures memory_figures() {
  MemoryFigures figures{.total_bytes = sysctl_number("hw.memsize")};
  vm_statistics64_data_t vm;
  mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
  if (host_statistics64(mach_host_self(), HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&vm),
                        &count) == KERN_SUCCESS) {
    figures.available_bytes =
        (uint64_t{vm.free_count} + vm.inactive_count + vm.purgeable_count) * vm_page_size;
  }
  mach_task_basic_info_data_t task;
  count = MACH_TASK_BASIC_INFO_COUNT;
  if (task_info(mach_task_self(), MACH_TASK_BASIC_INFO, reinterpret_cast<task_info_t>(&task),
                &count) == KERN_SUCCESS) {
    figures.rss_bytes = task.resident_size;
    figures.peak_rss_bytes = task.resident_size_max;
  }
  return figures;
}

#else

namespace {

std::vector<int> affinity_cpus() {
  std::vector<int> cpus;
  for (int n_cpus = 1024; n_cpus <= 1 << 20; n_cpus *= 2) {  // EINVAL: the kernel's mask is longer
    cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(n_cpus));
    if (set == nullptr) break;
    const size_t n_bytes = CPU_ALLOC_SIZE(static_cast<size_t>(n_cpus));
    const bool done = ::sched_getaffinity(0, n_bytes, set) == 0;
    const bool retry = !done && errno == EINVAL;
    for (int cpu = 0; done && cpu < n_cpus; ++cpu) {
      if (CPU_ISSET_S(static_cast<size_t>(cpu), n_bytes, set)) cpus.push_back(cpu);
    }
    CPU_FREE(set);
    if (!retry) break;
  }
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

// "0-3,8" as a set test.
bool list_contains(std::string_view list, int cpu) {
  while (!list.empty()) {
    const size_t comma = list.find(',');
    const std::string_view range = list.substr(0, comma);
    const size_t dash = range.find('-');
    const auto first = leading_number(range.substr(0, dash));
    const auto last =
        dash == std::string_view::npos ? first : leading_number(range.substr(dash + 1));
    const uint64_t want = static_cast<uint64_t>(cpu);
    if (first && last && *first <= want && want <= *last) return true;
    list = comma == std::string_view::npos ? "" : list.substr(comma + 1);
  }
  return false;
}

// Whether the comma-separated `names` have `name` among them.
bool names_contain(std::string_view names, std::string_view name) {
  while (!names.empty()) {
    const size_t comma = std::min(names.find(','), names.size());
    if (names.substr(0, comma) == name) return true;
    names.remove_prefix(std::min(comma + 1, names.size()));
  }
  return false;
}

// Our cgroup directory for a v1 controller, or the unified v2 one for "", then its ancestors.
std::vector<std::string> cgroup_dirs(std::string_view controller) {
  const std::string root =
      controller.empty() ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + std::string(controller);
  std::string path;
  const std::string text = read_text("/proc/self/cgroup");  // lines "id:controllers:/path"
  for (size_t line = 0; line < text.size();) {
    const size_t end = std::min(text.find('\n', line), text.size());
    const std::string_view row(text.data() + line, end - line);
    const size_t first = row.find(':');
    const size_t second = first == row.npos ? row.npos : row.find(':', first + 1);
    if (second != row.npos) {
      const std::string_view names = row.substr(first + 1, second - first - 1);
      if (controller.empty() ? names.empty() : names_contain(names, controller)) {
        path = row.substr(second + 1);
      }
    }
    line = end + 1;
  }
  std::vector<std::string> dirs;
  while (path.size() > 1) {
    dirs.push_back(root + path);
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
  dirs.push_back(root);
  return dirs;
}

// The least free memory and the least limit of the cgroups we are in; page cache counts as free.
void apply_cgroup_memory(std::string_view controller, const char* limit_name,
                         const char* usage_name, const std::string& prefix,
                         MemoryFigures& figures) {
  for (const std::string& dir : cgroup_dirs(controller)) {
    const auto limit = leading_number(read_text(dir + limit_name));
    const auto usage = leading_number(read_text(dir + usage_name));
    if (!limit || !usage) continue;  // "max", or not a cgroup of ours
    // Where a file was read twice its pages are active; the kernel takes those back, too.
    const std::string stat = read_text(dir + "/memory.stat");
    uint64_t cache = 0;
    for (const char* kind : {"inactive_file ", "active_file "}) {
      cache += number_after(stat, prefix + kind).value_or(0);
    }
    const uint64_t used = *usage - std::min(cache, *usage);
    figures.total_bytes = std::min(figures.total_bytes, *limit);
    figures.available_bytes = std::min(figures.available_bytes, *limit - std::min(used, *limit));
  }
}

}  // namespace

int n_usable_cpus() { return static_cast<int>(affinity_cpus().size()); }

int n_quota_cpus() {
  uint64_t n_cpus = 0;
  const auto tighten = [&](std::optional<uint64_t> quota, std::optional<uint64_t> period) {
    if (!quota || !period || *quota == 0 || *period == 0 || *quota > INT64_MAX) return;
    const uint64_t n = std::min<uint64_t>((*quota - 1) / *period + 1, 1 << 20);
    n_cpus = n_cpus == 0 ? n : std::min(n_cpus, n);
  };
  for (const std::string& dir : cgroup_dirs("")) {
    const std::string max = read_text(dir + "/cpu.max");  // "150000 100000" or "max 100000"
    const size_t blank = max.find(' ');
    if (blank != std::string::npos) {
      tighten(leading_number(max), leading_number(std::string_view(max).substr(blank)));
    }
  }
  for (const std::string& dir : cgroup_dirs("cpu")) {  // -1 (no quota) is no number here
    tighten(leading_number(read_text(dir + "/cpu.cfs_quota_us")),
            leading_number(read_text(dir + "/cpu.cfs_period_us")));
  }
  return static_cast<int>(n_cpus);
}

std::vector<int> physical_core_cpus() {
  struct Core {
    int cpu;
    uint64_t speed;  // relative; equal on machines with one kind of core
  };
  const std::string fast_cpus = read_text("/sys/devices/cpu_core/cpus");  // Intel hybrid
  std::map<std::string, Core> cores;  // by the list of logical CPUs that share a core
  for (const int cpu : affinity_cpus()) {
    const std::string dir = "/sys/devices/system/cpu/cpu" + std::to_string(cpu);
    std::string siblings = read_text(dir + "/topology/thread_siblings_list");
    if (siblings.empty()) siblings = "cpu " + std::to_string(cpu);
    uint64_t speed = leading_number(read_text(dir + "/cpu_capacity")).value_or(0);  // Arm
    if (speed == 0 && list_contains(fast_cpus, cpu)) speed = 1;
    cores.emplace(siblings, Core{cpu, speed});
  }
  std::vector<Core> sorted;
  for (const auto& [siblings, core] : cores) sorted.push_back(core);
  std::sort(sorted.begin(), sorted.end(), [](const Core& a, const Core& b) {
    return a.speed != b.speed ? a.speed > b.speed : a.cpu < b.cpu;
  });
  std::vector<int> cpus;
  for (const Core& core : sorted) cpus.push_back(core.cpu);
  return cpus;
}

MemoryFigures memory_figures() {
  constexpr uint64_t kKiB = 1024;
  MemoryFigures figures;
  const std::string machine = read_text("/proc/meminfo");
  figures.total_bytes = kKiB * number_after(machine, "MemTotal:").value_or(0);
  figures.available_bytes = kKiB * number_after(machine, "MemAvailable:").value_or(0);
  apply_cgroup_memory("", "/memory.max", "/memory.current", "", figures);
  apply_cgroup_memory("memory", "/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_",
                      figures);
  const std::string process = read_text("/proc/self/status");
  figures.rss_bytes = kKiB * number_after(process, "VmRSS:").value_or(0);
  figures.peak_rss_bytes = kKiB * number_after(process, "VmHWM:").value_or(0);
  return figures;
}

#endif

std::string user_cache_dir() {
  const char* xdg = std::getenv("XDG_CACHE_HOME");
  if (xdg != nullptr && xdg[0] == '/') return std::string(xdg) + "/edgellm";
  const char* home = std::getenv("HOME");
  if (home == nullptr || home[0] != '/') return "";
#ifdef __APPLE__
  return std::string(home) + "/Library/Caches/edgellm";
#else
  return std::string(home) + "/.cache/edgellm";
#endif
}

int64_t process_id() { return ::getpid(); }

int64_t monotonic_ns() {
  struct timespec t;
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return to_ns(t);
}

}  // namespace edge
