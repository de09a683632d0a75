#include "format/verifier.h"

#ifndef _WIN32
#include <sys/wait.h>
#include <unistd.h>
#endif

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "../base/environment.h"
#include "attack_files.h"

using namespace edge;
using namespace edge::testing;

namespace {

constexpr size_t kBlobBytes = (5u << 20) + 1000;  // six leaves
constexpr size_t kLeaf = 1u << 20;

// A scratch directory that is also the user cache while it lives.
class Scratch {
 public:
  Scratch() {
    dir_ =
        std::filesystem::temp_directory_path() / ("edge_verifier_" + std::to_string(process_id()));
    std::filesystem::create_directories(dir_);
    test::set_environment("XDG_CACHE_HOME", (dir_ / "cache").string());
  }
  ~Scratch() {
    test::set_environment("XDG_CACHE_HOME", "");
    std::filesystem::remove_all(dir_);
  }
  std::string path(const char* name) const { return (dir_ / name).string(); }
  size_t n_remembered() const {
    std::error_code none;
    size_t n = 0;
    for (const auto& entry :
         std::filesystem::directory_iterator(dir_ / "cache/edgellm/verified", none)) {
      n += entry.is_regular_file();
    }
    return n;
  }
  std::filesystem::path memory() const {
    return *std::filesystem::directory_iterator(dir_ / "cache/edgellm/verified");
  }

 private:
  std::filesystem::path dir_;
};

std::shared_ptr<const EdgeFile> open(const std::string& path) {
  auto file = EdgeFile::open(path);
  REQUIRE_MESSAGE(file.is_ok(), file.status().message());
  return file.value();
}

}  // namespace

TEST_CASE("verify always passes a good file at any thread count") {
  const AlignedBytes bytes(build_blob_file(kBlobBytes));
  auto file = EdgeFile::from_bytes(bytes.bytes(), "good.edge");
  REQUIRE_MESSAGE(file.is_ok(), file.status().message());
  for (const int n_threads : {0, 1, 2, 16}) {
    auto verifier = Verifier::start(file.value(), VerifyMode::kAlways, n_threads);
    REQUIRE(verifier.is_ok());
    CHECK(verifier.value()->verified_fraction() == 1.0);
    CHECK(verifier.value()->wait().is_ok());
  }
}

TEST_CASE("verify always names the first damaged bytes at any thread count") {
  std::string file = build_blob_file(kBlobBytes);
  file[kAttackDataStart + 2 * kLeaf + 5] ^= 1;
  file[kAttackDataStart + 4 * kLeaf] ^= 1;
  const AlignedBytes bytes(file);
  auto opened = EdgeFile::from_bytes(bytes.bytes(), "bad.edge");
  REQUIRE(opened.is_ok());
  for (const int n_threads : {1, 2, 8}) {
    const Status status = Verifier::start(opened.value(), VerifyMode::kAlways, n_threads).status();
    CHECK(status.code() == Code::kLeafHash);
    CHECK(status.message() == "bad.edge: damaged in tensor 'blob', in the 1048576 bytes at " +
                                  std::to_string(kAttackDataStart + 2 * kLeaf) +
                                  "; get the file again");
  }
}

TEST_CASE("padding that is hashed but not zero is refused") {
  std::string file = build_blob_file(100);
  const std::string good = file;
  file[kAttackDataStart + 127] = 1;  // then make every hash agree with it
  std::string hashes(64, '\0');
  sha256_leaves(std::as_bytes(std::span<const char>(file).subspan(kAttackDataStart, 128)), kLeaf,
                std::as_writable_bytes(std::span<char>(hashes)));
  file.replace(kAttackDataStart + 128, 64, hashes);
  const auto root_of = [](const std::string& stored) {
    const std::string rooted = stored + length_prefix(128);
    return to_hex(sha256(std::as_bytes(std::span<const char>(rooted))));
  };
  std::string header = file.substr(8, kAttackDataStart - 8);
  const std::string old_root = root_of(good.substr(kAttackDataStart + 128, 64));
  REQUIRE(header.find(old_root) != std::string::npos);
  header.replace(header.find(old_root), 64, root_of(hashes));
  const AlignedBytes bytes(seal(header, kAttackDataStart) + file.substr(kAttackDataStart));
  auto opened = EdgeFile::from_bytes(bytes.bytes(), "pad.edge");
  REQUIRE_MESSAGE(opened.is_ok(), opened.status().message());
  CHECK(Verifier::start(opened.value(), VerifyMode::kAlways, 1).status().code() ==
        Code::kTensorPadding);
}

TEST_CASE("verify never reads no data") {
  std::string file = build_blob_file(kBlobBytes);
  file[kAttackDataStart] ^= 1;
  const AlignedBytes bytes(file);
  auto opened = EdgeFile::from_bytes(bytes.bytes(), "bad.edge");
  REQUIRE(opened.is_ok());
  auto verifier = Verifier::start(opened.value(), VerifyMode::kNever, 2);
  REQUIRE(verifier.is_ok());
  CHECK(verifier.value()->wait().is_ok());
  CHECK(verifier.value()->verified_fraction() == 0.0);
}

TEST_CASE("verify once hashes in the background and remembers success") {
  const Scratch scratch;
  const std::string path = scratch.path("once.edge");
  write_file(path, build_blob_file(kBlobBytes));
  {
    auto first = Verifier::start(open(path), VerifyMode::kOnce, 2);
    REQUIRE(first.is_ok());
    CHECK(first.value()->wait().is_ok());
    CHECK(first.value()->verified_fraction() == 1.0);
  }
  CHECK(scratch.n_remembered() == 1);
  auto second = Verifier::start(open(path), VerifyMode::kOnce, 2);
  REQUIRE(second.is_ok());
  CHECK(second.value()->verified_fraction() == 1.0);  // at once: nothing was hashed
}

TEST_CASE("a memory that does not hold the whole key counts for nothing") {
  const Scratch scratch;
  const std::string path = scratch.path("forged.edge");
  std::string file = build_blob_file(kBlobBytes);
  write_file(path, file);
  REQUIRE(Verifier::start(open(path), VerifyMode::kAlways, 2).is_ok());
  REQUIRE(scratch.n_remembered() == 1);
  const std::string memory = scratch.memory().string();
  write_file(memory, read_file(memory).substr(0, 100));
  auto verifier = Verifier::start(open(path), VerifyMode::kOnce, 1);
  REQUIRE(verifier.is_ok());
  CHECK(verifier.value()->wait().is_ok());
  CHECK(read_file(memory).size() > 100);  // hashed again and remembered again
}

TEST_CASE("a file rewritten after it was verified is hashed again and found damaged") {
  const Scratch scratch;
  const std::string path = scratch.path("rewritten.edge");
  std::string file = build_blob_file(kBlobBytes);
  write_file(path, file);
  REQUIRE(Verifier::start(open(path), VerifyMode::kAlways, 2).is_ok());
  file[kAttackDataStart + 3 * kLeaf] ^= 1;
  std::this_thread::sleep_for(
      std::chrono::microseconds(20000));  // past the granularity of the file system's clock
  write_file(path, file);
  auto verifier = Verifier::start(open(path), VerifyMode::kOnce, 2);
  REQUIRE(verifier.is_ok());
  CHECK(verifier.value()->wait().code() == Code::kLeafHash);
  CHECK(verifier.value()->status().code() == Code::kLeafHash);
  CHECK(verifier.value()->status().message().find("'blob'") != std::string::npos);
  CHECK(verifier.value()->verified_fraction() < 1.0);
}

TEST_CASE("an unwritable cache costs time and nothing else") {
  const Scratch scratch;
  const std::string path = scratch.path("plain.edge");
  write_file(path, build_blob_file(kBlobBytes));
  write_file(scratch.path("cache"), "a file where the directory should be");
  auto verifier = Verifier::start(open(path), VerifyMode::kOnce, 2);
  REQUIRE(verifier.is_ok());
  CHECK(verifier.value()->wait().is_ok());
}

TEST_CASE("a verifier that is dropped at once stops its thread") {
  const Scratch scratch;
  const std::string path = scratch.path("dropped.edge");
  write_file(path, build_blob_file(kBlobBytes));
  for (int i = 0; i < 20; ++i) {
    REQUIRE(Verifier::start(open(path), VerifyMode::kOnce, 2).is_ok());
  }
}

#ifndef _WIN32
TEST_CASE("a forked child can drop and ask a verifier whose thread it does not have") {
  const Scratch scratch;
  const std::string path = scratch.path("forked.edge");
  write_file(path, build_blob_file(40u << 20));
  auto verifier = Verifier::start(open(path), VerifyMode::kOnce, 2);
  REQUIRE(verifier.is_ok());
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(10);  // a hang ends the child with a signal
    const Code code = verifier.value()->wait().code();
    verifier.take().reset();
    ::_exit(code == Code::kOk || code == Code::kOsFailure ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(verifier.value()->wait().is_ok());
}
#endif
