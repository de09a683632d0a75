// Texts whose pages left memory for a directory: they give what they would give alone, whatever
// becomes of the files.
#include "runtime/kv_disk.h"

#ifndef _WIN32
#include <sys/stat.h>
#endif

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "doctest/doctest.h"
#include "hash_text.h"

namespace edge {
namespace {

namespace fs = std::filesystem;
using test::HashModel;
using test::joined;
using test::random_ids;
using test::Text;

// Of this process, and gone at the end of the scope.
struct TempDirectory {
  fs::path path = fs::temp_directory_path() / ("edge_kv_" + std::to_string(process_id()));
  TempDirectory() { fs::remove_all(path); }
  ~TempDirectory() { fs::remove_all(path); }

  std::vector<fs::path> files() const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(path)) files.push_back(entry.path());
    std::ranges::sort(files);
    return files;
  }
  uint64_t n_bytes() const {
    uint64_t n = 0;
    for (const fs::path& file : files()) n += fs::file_size(file);
    return n;
  }
};

constexpr int kLongContext = 1300;
constexpr uint64_t kAmple = uint64_t{1} << 30;

// A process, as it were: memory of its own over a directory that others may use, too.
struct Process {
  explicit Process(const TempDirectory& directory, std::vector<int> windows = {0},
                   uint64_t disk_bytes = kAmple, uint64_t idle = UINT64_MAX,
                   const std::string& identity = "a model")
      : model(std::move(windows)),
        cache(model.groups(), UINT64_MAX),
        disk(KvDisk::open({directory.path.string(), disk_bytes, identity, [this] { return may; }},
                          cache.groups())
                 .take()),
        tree(cache, idle, disk.get()) {}

  Text text(std::vector<int32_t> ids, std::string_view key = "") {
    return {std::move(ids), KvSequence::create(cache, kLongContext, &tree, key).take(), 0};
  }
  // What is known of the text beforehand, after it gave what it must give.
  int n_known(const std::vector<int32_t>& ids, std::string_view key = "") {
    Text one = text(ids, key);
    REQUIRE(one.run(model) == model.expected(ids));
    one.end();
    return one.n_adopted;
  }
  void forget() { tree.trim(UINT64_MAX); }

  bool may = true;
  HashModel model;
  KvCache cache;
  std::unique_ptr<KvDisk> disk;
  PrefixTree tree;
};

std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void put(const fs::path& path, const std::string& bytes) {
  fs::remove(path);
  std::ofstream(path, std::ios::binary) << bytes;
}

}  // namespace

TEST_CASE("pages that leave memory are found on disk, in this process and the next") {
  const TempDirectory directory;
  const std::vector<int32_t> ids = random_ids(300, 1);
  {
    Process first(directory);
    CHECK(first.n_known(ids) == 0);
    CHECK(directory.files().empty());
    first.forget();
    CHECK(first.cache.figures().used_bytes == 0);
    CHECK(directory.files().size() == 18);
    CHECK(first.disk->figures().n_written_tokens == 288);
    CHECK(first.disk->figures().n_bytes == directory.n_bytes());
    CHECK(first.n_known(ids) == 288);
    CHECK(first.disk->figures().n_read_tokens == 288);
    CHECK(first.n_known(ids) == 299);  // from memory
    CHECK(first.disk->figures().n_read_tokens == 288);
  }
  Process second(directory);
  CHECK(second.n_known(joined({ids.begin(), ids.begin() + 100}, random_ids(50, 2))) == 96);
  CHECK(second.n_known(ids) == 288);  // six of 18 pages from memory
  CHECK(second.disk->figures().n_read_tokens == 288);
  CHECK(second.disk->figures().n_written_tokens == 0);
}

TEST_CASE("states are on disk every 512 tokens, and what is read ends at one") {
  const TempDirectory directory;
  const std::vector<int32_t> ids = random_ids(1100, 1);
  {
    Process first(directory, {0, -4});
    CHECK(first.n_known(ids) == 0);
    first.forget();
    CHECK(directory.files().size() == 68);
  }
  const uint64_t n_whole_bytes = directory.n_bytes();
  CHECK(n_whole_bytes > (68 + 2 * 2) * test::kPageBytes);
  CHECK(n_whole_bytes < (68 + 2 * 2) * test::kPageBytes + 68 * 256);
  Process second(directory, {0, -4});
  CHECK(second.n_known({ids.begin(), ids.begin() + 500}) == 0);
  second.forget();
  CHECK(second.n_known({ids.begin(), ids.begin() + 1000}) == 512);
  second.forget();
  CHECK(second.n_known(ids) == 1024);
  second.forget();
  // With a page damaged in the second stretch, what comes before it counts as far as a checkpoint.
  Process third(directory, {0, -4});
  for (const fs::path& path : directory.files()) {
    if (content(path).size() < 3 * test::kPageBytes) continue;  // those with states
    std::string bytes = content(path);
    bytes.back() ^= 1;
    put(path, bytes);
  }
  CHECK(third.n_known(ids) == 0);
  CHECK(third.disk->figures().n_damaged_files == 1);
}

TEST_CASE("what depends on something else is never found") {
  const TempDirectory directory;
  const std::vector<int32_t> ids = random_ids(100, 1);
  Process first(directory);
  first.n_known(ids, "a key");
  first.forget();
  CHECK(first.n_known(ids, "another key") == 0);
  CHECK(Process(directory, {0}, kAmple, UINT64_MAX, "another model").n_known(ids, "a key") == 0);
  std::vector<int32_t> other = ids;
  other[0] ^= 1;
  CHECK(first.n_known(other, "a key") == 0);
  CHECK(Process(directory).n_known(ids, "a key") == 96);
}

#ifndef _WIN32
TEST_CASE("directory and files are private, and one that is not is refused") {
  const TempDirectory directory;
  Process first(directory);
  first.n_known(random_ids(100, 1));
  first.forget();
  const auto mode = [](const fs::path& path) {
    struct stat s;
    REQUIRE(::stat(path.c_str(), &s) == 0);
    return s.st_mode & 0777;
  };
  CHECK(mode(directory.path) == 0700);
  for (const fs::path& file : directory.files()) CHECK(mode(file) == 0600);

  const auto refusal = [&](const fs::path& path, uint64_t n_bytes = kAmple) {
    return KvDisk::open({path.string(), n_bytes, "", {}}, first.cache.groups()).status();
  };
  const fs::path link = directory.path.string() + "_link";
  fs::create_directory_symlink(directory.path, link);
  CHECK(refusal(link).code() == Code::kFileWriteFailed);
  fs::remove(link);
  CHECK(refusal(directory.files().front()).code() == Code::kFileWriteFailed);
  CHECK(refusal(directory.files().front() / "below").code() == Code::kFileWriteFailed);
  CHECK(refusal(directory.path.string() + '\0' + "x").code() == Code::kFileWriteFailed);
  CHECK(refusal(directory.path, 100).code() == Code::kInvalidArgument);
  ::chmod(directory.path.c_str(), 0755);
  const Status open_to_all = refusal(directory.path);
  CHECK(open_to_all.code() == Code::kFileWriteFailed);
  CHECK(open_to_all.message().find("chmod 700") != std::string::npos);
}
#endif

TEST_CASE("nothing is written while what is computed may be wrong") {
  const TempDirectory directory;
  Process first(directory);
  first.may = false;
  first.n_known(random_ids(100, 1));
  first.forget();
  CHECK(directory.files().empty());
  CHECK(first.disk->figures().n_failed_writes == 6);
  first.may = true;
  first.disk->stop_writing();
  first.n_known(random_ids(100, 1));
  first.forget();
  CHECK(directory.files().empty());
  CHECK(first.disk->figures().n_failed_writes == 12);
}

TEST_CASE("the budget holds, and what was used least recently goes") {
  const TempDirectory directory;
  constexpr uint64_t kFile = test::kPageBytes + 16 + 32 + 64 + 8;
  Process first(directory, {0}, 24 * kFile);
  const auto keep = [&](uint32_t seed) {
    const int n = first.n_known(random_ids(100, seed));
    first.forget();
    CHECK(directory.n_bytes() <= 24 * kFile);
    CHECK(first.disk->figures().n_bytes == directory.n_bytes());
    return n;
  };
  for (const uint32_t seed : {1u, 2u, 3u}) CHECK(keep(seed) == 0);
  CHECK(keep(1) == 96);  // and is now the one used last
  CHECK(keep(4) == 0);
  CHECK(keep(5) == 0);
  CHECK(keep(1) == 96);
  CHECK(keep(2) == 0);
  // A text loses its end first: what is left of it can be used.
  for (uint32_t seed = 10; seed < 30; ++seed) {
    keep(seed);
    Process reader(directory);
    reader.may = false;
    int n_pages = 0;
    for (uint32_t old = 1; old <= seed; ++old) n_pages += reader.n_known(random_ids(100, old)) / 16;
    CHECK(n_pages == static_cast<int>(directory.files().size()));
  }
}

TEST_CASE("10,000 files that are not as they were written are computed again, and go") {
  const TempDirectory directory;
  const std::vector<int32_t> ids = random_ids(100, 3);
  for (const std::vector<int>& windows : {std::vector<int>{0}, std::vector<int>{0, 40}}) {
    fs::remove_all(directory.path);
    Process first(directory, windows);
    first.n_known(ids);
    first.forget();
    const std::vector<fs::path> files = directory.files();
    REQUIRE(files.size() == 6);
    std::vector<std::string> whole;
    for (const fs::path& file : files) whole.push_back(content(file));
    std::mt19937 random(5);
    int64_t n_damaged = 0;
    for (int i = 0; i < 5000; ++i) {
      const size_t which = random() % files.size();
      std::string bytes = whole[which];
      const size_t n_range = i % 2 == 0 ? bytes.size() : 200;
      switch (random() % 8) {
        case 0:
          bytes.resize(random() % bytes.size());
          break;
        case 1:
          bytes += "x";
          break;
        case 2:
          bytes = whole[(which + 1) % files.size()];
          break;
        default:
          bytes[random() % n_range] ^= static_cast<char>(1 + random() % 255);
      }
      put(files[which], bytes);
      Text text = first.text(ids);
      text.kv->adopt(std::span(ids).first(99));
      n_damaged += 1;
      REQUIRE(text.kv->n_tokens() < 96);
      REQUIRE(first.disk->figures().n_damaged_files == n_damaged);
      REQUIRE_FALSE(fs::exists(files[which]));
      if (i % 50 == 0) REQUIRE(text.run(first.model) == first.model.expected(ids));
      text.kv.reset();
      first.forget();
      put(files[which], whole[which]);
    }
  }
}

#ifndef _WIN32
TEST_CASE("what is no file under a page's name does no harm and no link is followed") {
  const TempDirectory directory;
  const std::vector<int32_t> ids = random_ids(100, 3);
  Process first(directory);
  first.n_known(ids);
  first.forget();
  const std::vector<fs::path> files = directory.files();
  const fs::path target = directory.path / "target";
  fs::rename(files[0], target);
  fs::create_symlink(target, files[0]);
  fs::remove(files[1]);
  REQUIRE(::mkfifo(files[1].c_str(), 0600) == 0);
  fs::remove(files[2]);
  fs::create_directory(files[2]);
  CHECK(first.n_known(ids) < 96);
  first.forget();
  CHECK(first.n_known(ids) < 96);  // the directory stays in its place
  CHECK(fs::is_directory(files[2]));
  CHECK(fs::exists(target));
  CHECK(first.disk->figures().n_damaged_files > 0);
}
#endif

TEST_CASE("temporary files of processes that died go, nobody else's do") {
  const TempDirectory directory;
  Process first(directory);
  first.n_known(random_ids(100, 1));
  first.forget();
  const std::string page = directory.files().front().string();
  const std::vector<std::string> foreign = {"notes.1.2.3.tmp", page + ".x.2.3.tmp", page + ".tmp",
                                            "ab.kv", page + "x"};
  for (const std::string& name : foreign) put(directory.path / name, "x");
  put(page + ".1.2.3.tmp", "what was written so far");
  const size_t n_before = directory.files().size();
  Process second(directory);  // looks
  CHECK_FALSE(fs::exists(page + ".1.2.3.tmp"));
  CHECK(directory.files().size() == n_before - 1);
  CHECK(second.n_known(random_ids(100, 1)) == 96);
}

TEST_CASE("random texts of processes that share a directory give what they give alone") {
  std::mt19937 random(11);
  const auto below = [&](size_t n) { return static_cast<size_t>(random()) % n; };
  for (int round = 0; round < 16; ++round) {
    CAPTURE(round);
    const TempDirectory directory;
    const bool has_states = round >= 12;
    const std::vector<int> windows = has_states       ? std::vector{0, 33, -5}
                                     : round % 2 == 0 ? std::vector<int>{0}
                                                      : std::vector{0, 33, 70};
    const size_t n_common = has_states ? 450 : 100, n_most = has_states ? 1100 : 500;
    const uint64_t idle = round % 3 == 0 ? 0 : round % 3 == 1 ? 20'000 : UINT64_MAX;
    const uint64_t disk_bytes = round % 4 == 0 ? 30'000 : kAmple;
    std::vector<std::unique_ptr<Process>> processes;
    std::vector<Text> texts[2];
    for (int i = 0; i < 2; ++i) {
      processes.push_back(std::make_unique<Process>(directory, windows, disk_bytes, idle));
    }
    for (int i = 0; i < 60; ++i) {
      const size_t which = below(2);
      Process& process = *processes[which];
      std::vector<Text>& own = texts[which];
      const size_t what = below(8);
      if (own.empty() || (what < 3 && own.size() < 4)) {
        const std::vector<int32_t> ids =
            random_ids(n_common + below(200), static_cast<uint32_t>(below(2)));
        own.push_back(
            process.text(joined(ids, random_ids(1 + below(40), static_cast<uint32_t>(random())))));
      }
      Text& text = own[below(own.size())];
      if (what == 3) {
        text.run(process.model);
        text.end();
        std::swap(text, own.back());
        own.pop_back();
        continue;
      }
      if (what == 4) process.forget();
      if (what == 5 && text.kv->n_tokens() > 40) {
        text.kv->give_back(below(20'000), 0);
      }
      if (what == 6 && !directory.files().empty()) {
        const auto files = directory.files();
        std::string bytes = content(files[below(files.size())]);
        if (!bytes.empty()) bytes[below(bytes.size())] ^= 1;
        put(files[below(files.size())], bytes);
      }
      if (what == 7 && text.kv->n_tokens() > 1) {
        const size_t n = 1 + below(static_cast<size_t>(text.kv->n_tokens()));
        text.kv->rewind(static_cast<int>(n));
        text.ids.resize(n);
      }
      if (text.ids.size() < n_most) {
        text.ids = joined(text.ids, random_ids(1 + below(70), static_cast<uint32_t>(random())));
      }
      REQUIRE(text.run(process.model, 1 + static_cast<int>(below(48))) ==
              process.model.expected(text.ids));
      REQUIRE(process.cache.figures().idle_bytes <= idle);
    }
  }
}

TEST_CASE("threads that write, read and let go at once give what they give alone") {
  const TempDirectory directory;
  Process process(directory, {0}, 60'000, 2'000);
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      HashModel model;
      for (uint32_t i = 0; i < 60; ++i) {
        const std::vector<int32_t> ids =
            joined(random_ids(150, i % 3), random_ids(20, 100 * t + i));
        Text text = process.text(ids);
        REQUIRE(text.run(model) == model.expected(ids));
        text.end();
        if (i % 7 == 0) process.forget();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(process.disk->figures().n_read_tokens > 0);
  CHECK(process.disk->figures().n_damaged_files == 0);
  process.forget();
  CHECK(process.cache.figures().used_bytes == 0);
  CHECK(process.tree.figures().n_nodes == 0);
}

}  // namespace edge
