// load(backend = "cuda" and "metal") through the public interface, the libraries opened while the
// program runs. They are the emulated ones here, so all of it is exercised but the device:
// sessions, batches, drafts.
#include <cstdlib>
#include <filesystem>
#include <set>
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

void name_libraries() {
  setenv("EDGELLM_CUDA_LIBRARY", EDGE_EMULATED_CUDA, 1);
  setenv("EDGELLM_METAL_LIBRARY", EDGE_EMULATED_METAL, 1);
}
constexpr const char* kDevices[] = {"cuda", "metal"};

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

// The memory of the emulated device, while it lives.
struct DeviceBytes {
  explicit DeviceBytes(size_t n_bytes) {
    setenv("EDGELLM_EMULATED_DEVICE_BYTES", std::to_string(n_bytes).c_str(), 1);
  }
  ~DeviceBytes() { unsetenv("EDGELLM_EMULATED_DEVICE_BYTES"); }
};

std::string error_of(const TinyFile& file, const char* backend) {
  try {
    load(file, backend);
  } catch (const edgellm::Error& error) {
    return error.code() + ": " + error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a model on a device says so and generates the CPU's tokens") {
  name_libraries();
  const TinyFile file;
  for (const char* device : kDevices) {
    CAPTURE(std::string(device));
    for (const char* kv : {"K8V8", "K8V4"}) {
      const Model cpu = load(file, "cpu", kv), other = load(file, device, kv);
      CHECK(other.info().backend == device);
      Session on_cpu(cpu), on_device(other);
      on_cpu.append(some_ids(40));
      on_device.append(some_ids(40));
      CHECK(greedy(on_device, 12) == greedy(on_cpu, 12));
      // The pages of the first session are read again.
      Session again_cpu(cpu), again_device(other);
      again_cpu.append(some_ids(45));
      again_device.append(some_ids(45));
      CHECK(greedy(again_device, 6) == greedy(again_cpu, 6));
    }
  }
}

TEST_CASE("a model whose first layers run on the host generates the CPU's tokens") {
  name_libraries();
  const TinyFile file;
  const Model cpu = load(file, "cpu");
  Session on_cpu(cpu);
  on_cpu.append(some_ids(40));
  const std::vector<int32_t> wanted = greedy(on_cpu, 8);
  // Less and less memory for weights beside what steps and the KV take, until no head fits.
  const size_t besides = (size_t{384} << 20) + cpu.kv_bytes();
  std::set<int> n_host_layers;
  std::string error;
  for (size_t part = 20; part > 0 && error.empty(); --part) {
    const size_t n_weights = cpu.info().file_bytes * part / 16;
    const DeviceBytes limit(besides + n_weights);
    try {
      const Model split = load(file, "cuda");
      CAPTURE(split.info().n_host_layers);
      CHECK((n_host_layers.empty() || split.info().n_host_layers >= *n_host_layers.rbegin()));
      n_host_layers.insert(split.info().n_host_layers);
      Session on_both(split);
      on_both.append(some_ids(40));
      CHECK(greedy(on_both, 8) == wanted);
    } catch (const edgellm::Error& caught) {
      error = caught.code() + ": " + caught.what();
    }
  }
  CHECK(n_host_layers.contains(0));
  CHECK(n_host_layers.size() > 1);
  CHECK(error.starts_with("memory_budget: "));
  CHECK(error.find("the head alone takes") != std::string::npos);
}

TEST_CASE("a session saved on one backend goes on at the other") {
  name_libraries();
  const TinyFile file;
  const Model cpu = load(file, "cpu");
  for (const char* device : kDevices) {
    CAPTURE(std::string(device));
    const Model other = load(file, device);
    const std::string path =
        (std::filesystem::temp_directory_path() / ("edge_device_" + std::to_string(getpid())))
            .string();
    Session on_device(other);
    on_device.append(some_ids(40));
    on_device.run(1e9);
    on_device.save(path);
    Session on_cpu(cpu);
    on_cpu.restore(edgellm::SessionFile::open(path));
    std::filesystem::remove(path);
    const int32_t id = 7;
    on_cpu.append({&id, 1});
    on_device.append({&id, 1});
    CHECK(greedy(on_cpu, 8) == greedy(on_device, 8));
  }
}

TEST_CASE("what was read with 8-bit floats is not the CPU's, and is kept apart") {
  name_libraries();
  const TinyFile file;
  const Model cpu = load(file, "cpu"), fp8 = load(file, "cuda-fp8");
  CHECK(fp8.info().backend == "cuda-fp8");
  const std::string path =
      (std::filesystem::temp_directory_path() / ("edge_fp8_" + std::to_string(getpid()))).string();
  Session on_fp8(fp8);
  on_fp8.append(some_ids(40));
  on_fp8.run(1e9);
  on_fp8.save(path);
  Session again(fp8), on_cpu(cpu);
  again.restore(edgellm::SessionFile::open(path));
  CHECK(greedy(again, 6) == greedy(on_fp8, 6));
  std::string refusal;
  try {
    on_cpu.restore(edgellm::SessionFile::open(path));
  } catch (const edgellm::Error& error) {
    refusal = error.code() + ": " + error.what();
  }
  std::filesystem::remove(path);
  CAPTURE(refusal);
  CHECK(refusal.starts_with("session_mismatch: "));
  CHECK(refusal.find("another KV format ('K8V8 of cuda-fp8', here 'K8V8')") != std::string::npos);
  setenv("EDGELLM_EMULATED_CAPABILITY", "86", 1);
  const std::string too_old = error_of(file, "cuda-fp8");
  unsetenv("EDGELLM_EMULATED_CAPABILITY");
  CAPTURE(too_old);
  CHECK(too_old.starts_with("device_unavailable: "));
  CHECK(too_old.find("8.9 is the least with 8-bit floats; load with backend 'cuda'") !=
        std::string::npos);
}

TEST_CASE("a backend that is not there is a clear error") {
  const TinyFile file;
  setenv("EDGELLM_CUDA_LIBRARY", "/nowhere/libedgellm_cuda.so", 1);
  setenv("EDGELLM_METAL_LIBRARY", "/nowhere/libedgellm_metal.dylib", 1);
  for (const char* device : kDevices) {
    const std::string missing = error_of(file, device);
    CAPTURE(missing);
    CHECK(missing.starts_with("device_unavailable: "));
    CHECK(missing.find("/nowhere/libedgellm_" + std::string(device)) != std::string::npos);
    CHECK(missing.find("load with backend 'cpu'") != std::string::npos);
  }
  CHECK(error_of(file, "abacus").starts_with("backend_unsupported: "));
}
