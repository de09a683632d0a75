#include "base/os.h"

#ifndef _WIN32
#include <sys/resource.h>
#include <sys/stat.h>
#endif

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "doctest/doctest.h"
#include "environment.h"

using namespace edge;

namespace {

class Directory {
 public:
  Directory() {
    path_ = std::filesystem::temp_directory_path() / ("edge_os_" + std::to_string(process_id()));
    std::filesystem::create_directories(path_);
  }
  ~Directory() { std::filesystem::remove_all(path_); }
  std::string file(const char* name) const { return (path_ / name).string(); }
  size_t n_files() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(path_),
                                             std::filesystem::directory_iterator()));
  }

 private:
  std::filesystem::path path_;
};

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span<const char>(text.data(), text.size()));
}

std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

TEST_CASE("an atomic write creates, replaces and leaves nothing else behind") {
  const Directory dir;
  const std::string path = dir.file("value");
  REQUIRE(atomic_write_file(path, bytes_of("one")).is_ok());
  CHECK(content(path) == "one");
  REQUIRE(atomic_write_file(path, bytes_of("two, longer")).is_ok());
  CHECK(content(path) == "two, longer");
  REQUIRE(atomic_write_file(path, {}).is_ok());
  CHECK(content(path).empty());
  CHECK(dir.n_files() == 1);
}

TEST_CASE("an atomic write of parts joins them, synced or not") {
  const Directory dir;
  const std::string path = dir.file("value");
  const std::vector<std::span<const std::byte>> parts{bytes_of("a"), {}, bytes_of("bc")};
  for (const Durability durability : {Durability::kProcess, Durability::kPowerFailure}) {
    REQUIRE(atomic_write_file(path, bytes_of("old")).is_ok());
    REQUIRE(atomic_write_parts(path, parts, durability).is_ok());
    CHECK(content(path) == "abc");
    CHECK(dir.n_files() == 1);
  }
}

#ifndef _WIN32
TEST_CASE("an atomic write that runs out of space keeps the old file and no other") {
  const Directory dir;
  const std::string path = dir.file("value");
  REQUIRE(atomic_write_file(path, bytes_of("old")).is_ok());
  struct rlimit saved;
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &saved) == 0);
  struct rlimit small = saved;
  small.rlim_cur = 4096;
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const Status status = atomic_write_file(path, bytes_of(std::string(100000, 'x')));
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &saved) == 0);
  std::signal(SIGXFSZ, old_handler);
  CHECK(status.code() == Code::kFileWriteFailed);
  CHECK(content(path) == "old");
  CHECK(dir.n_files() == 1);
}
#endif

TEST_CASE("an atomic write into nowhere fails with the path") {
  const Status status = atomic_write_file("no/such/dir/value", bytes_of("x"));
  CHECK(status.code() == Code::kFileWriteFailed);
  CHECK(status.message().starts_with("no/such/dir/value: "));
}

TEST_CASE("a mapping shows the file and its identity changes with a rewrite") {
  const Directory dir;
  const std::string path = dir.file("mapped");
  REQUIRE(atomic_write_file(path, bytes_of("hello")).is_ok());
  auto first = MappedFile::open(path);
  REQUIRE(first.is_ok());
  MappedFile file = first.take();
  CHECK(std::memcmp(file.bytes().data(), "hello", 5) == 0);
  CHECK(file.identity().size_bytes == 5);
  file.will_need(0, 5);
  file.will_need(3, SIZE_MAX);  // the part past the end is ignored
  file.will_need(SIZE_MAX, SIZE_MAX);
  const FileIdentity old = file.identity();
#ifdef _WIN32
  // There a mapped file cannot be replaced: the writer is told, the reader keeps what it has.
  CHECK(atomic_write_file(path, bytes_of("HELLO")).code() == Code::kFileWriteFailed);
  CHECK(dir.n_files() == 1);
  CHECK(std::memcmp(file.bytes().data(), "hello", 5) == 0);
  file = MappedFile();
  REQUIRE(atomic_write_file(path, bytes_of("HELLO")).is_ok());
#else
  REQUIRE(atomic_write_file(path, bytes_of("HELLO")).is_ok());
  CHECK(std::memcmp(file.bytes().data(), "hello", 5) == 0);  // still the old file
#endif
  auto second = MappedFile::open(path);
  REQUIRE(second.is_ok());
  CHECK_FALSE(second.value().identity() == old);
  file = second.take();
  CHECK(std::memcmp(file.bytes().data(), "HELLO", 5) == 0);
}

TEST_CASE("what cannot be mapped is refused without waiting") {
  const Directory dir;
  CHECK(MappedFile::open(dir.file("none")).status().code() == Code::kFileNotFound);
  CHECK(MappedFile::open(dir.file("")).status().code() == Code::kFileUnreadable);
#ifndef _WIN32
  REQUIRE(::mkfifo(dir.file("fifo").c_str(), 0600) == 0);
  CHECK(MappedFile::open(dir.file("fifo")).status().code() == Code::kFileUnreadable);
  CHECK(MappedFile::open("/dev/zero").status().code() == Code::kFileUnreadable);
#endif
  REQUIRE(atomic_write_file(dir.file("empty"), {}).is_ok());
  auto empty = MappedFile::open(dir.file("empty"));
  REQUIRE(empty.is_ok());
  CHECK(empty.value().bytes().empty());
}

TEST_CASE("page buffers are zero, aligned, and refuse the impossible") {
  auto buffer = PageBuffer::allocate(100000);
  REQUIRE(buffer.is_ok());
  const std::byte* data = buffer.value().data();
  CHECK(reinterpret_cast<uintptr_t>(data) % 4096 == 0);
  CHECK(std::all_of(data, data + 100000, [](std::byte b) { return b == std::byte{0}; }));
  CHECK(PageBuffer::allocate(0).is_ok());
  CHECK(PageBuffer::allocate(SIZE_MAX / 2).status().code() == Code::kOutOfMemory);
}

TEST_CASE("the machine has cores, memory and a clock that moves") {
  CHECK(n_usable_cpus() >= 1);
  CHECK(n_quota_cpus() >= 0);
  const std::vector<int> cores = physical_core_cpus();
  CHECK(cores.size() >= 1);
  CHECK(cores.size() <= static_cast<size_t>(n_usable_cpus()));
  CHECK(std::set<int>(cores.begin(), cores.end()).size() == cores.size());
  const MemoryFigures memory = memory_figures();
  CHECK(memory.total_bytes > 0);
  CHECK(memory.available_bytes <= memory.total_bytes);
  CHECK(memory.rss_bytes > 0);
  CHECK(memory.peak_rss_bytes >= memory.rss_bytes);
  const int64_t start = monotonic_ns();
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  CHECK(monotonic_ns() - start >= 2000000);
}

TEST_CASE("peak memory follows what is touched") {
  const uint64_t before = memory_figures().peak_rss_bytes;
  auto buffer = PageBuffer::allocate(64u << 20);
  REQUIRE(buffer.is_ok());
  std::memset(buffer.value().data(), 1, buffer.value().size_bytes());
  CHECK(memory_figures().rss_bytes >= 64u << 20);
  CHECK(memory_figures().peak_rss_bytes >= std::max<uint64_t>(before, 64u << 20));
}

TEST_CASE("the cache directory follows XDG and ignores relative paths") {
  const char* old = std::getenv("XDG_CACHE_HOME");
  const std::string saved = old == nullptr ? "" : old;
#ifdef _WIN32
  const std::string somewhere = "C:/somewhere";
#else
  const std::string somewhere = "/somewhere";
#endif
  test::set_environment("XDG_CACHE_HOME", somewhere);
  CHECK(user_cache_dir() == somewhere + "/edgellm");
  test::set_environment("XDG_CACHE_HOME", "relative");
  CHECK(user_cache_dir() != "relative/edgellm");
  test::set_environment("XDG_CACHE_HOME", saved);
}
