// load(backend = "cuda") through the public interface, the library opened while the program runs.
// It is the emulated one here, so all of it is exercised but the device: sessions, batches, drafts.
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "api/tiny_model.h"
#include "doctest/doctest.h"
#include "edgellm/engine.h"

namespace {

using edge::test::kTinyVocab;
using edge::test::TinyFile;
using edgellm::LoadOptions;
using edgellm::Model;
using edgellm::Session;

void name_library(const char* path) { setenv("EDGELLM_CUDA_LIBRARY", path, 1); }

Model load(const TinyFile& file, const char* backend, const char* kv = "K8V8") {
  LoadOptions options;
  options.n_threads = 1;
  options.kv_format = kv;
  options.backend = backend;
  return Model::load(file.path(), options);
}

std::vector<int32_t> some_ids(int n) {
  std::vector<int32_t> ids;
  for (int i = 0; i < n; ++i) ids.push_back((i * 29 + i / 3) % kTinyVocab);
  return ids;
}

std::vector<int32_t> greedy(Session& session, int n) {
  std::vector<int32_t> ids;
  for (int i = 0; i < n; ++i) {
    session.run(1e9);
    ids.push_back(session.sample({}).id);
    session.append({&ids.back(), 1});
  }
  return ids;
}

std::string error_of(const TinyFile& file, const char* backend) {
  try {
    load(file, backend);
  } catch (const edgellm::Error& error) {
    return error.code() + ": " + error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a model on the CUDA backend says so and generates the CPU's tokens") {
  name_library(EDGE_EMULATED_LIBRARY);
  const TinyFile file;
  for (const char* kv : {"K8V8", "K8V4"}) {
    const Model cpu = load(file, "cpu", kv), cuda = load(file, "cuda", kv);
    CHECK(cuda.info().backend == "cuda");
    Session on_cpu(cpu), on_cuda(cuda);
    on_cpu.append(some_ids(40));
    on_cuda.append(some_ids(40));
    CHECK(greedy(on_cuda, 12) == greedy(on_cpu, 12));
    // The pages of the first session are read again.
    Session again_cpu(cpu), again_cuda(cuda);
    again_cpu.append(some_ids(45));
    again_cuda.append(some_ids(45));
    CHECK(greedy(again_cuda, 6) == greedy(again_cpu, 6));
  }
}

TEST_CASE("a session saved on one backend goes on at the other") {
  name_library(EDGE_EMULATED_LIBRARY);
  const TinyFile file;
  const Model cpu = load(file, "cpu"), cuda = load(file, "cuda");
  const std::string path =
      (std::filesystem::temp_directory_path() / ("edge_cuda_" + std::to_string(getpid()))).string();
  Session on_cuda(cuda);
  on_cuda.append(some_ids(40));
  on_cuda.run(1e9);
  on_cuda.save(path);
  Session on_cpu(cpu);
  on_cpu.restore(edgellm::SessionFile::open(path));
  std::filesystem::remove(path);
  const int32_t id = 7;
  on_cpu.append({&id, 1});
  on_cuda.append({&id, 1});
  CHECK(greedy(on_cpu, 8) == greedy(on_cuda, 8));
}

TEST_CASE("a backend that is not there is a clear error") {
  const TinyFile file;
  name_library("/nowhere/libedgellm_cuda.so");
  const std::string missing = error_of(file, "cuda");
  CHECK(missing.starts_with("device_unavailable: "));
  CHECK(missing.find("/nowhere/libedgellm_cuda.so") != std::string::npos);
  CHECK(missing.find("load with backend 'cpu'") != std::string::npos);
  CHECK(error_of(file, "metal").starts_with("backend_unsupported: "));
}
