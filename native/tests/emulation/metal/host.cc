// The emulator's half of backends/gpu/shared_host.h. Device addresses are a second mapping of the
// same memory, and while kernels run the host's mapping is poisoned for AddressSanitizer: an
// address that was not translated, or a byte beyond a buffer, ends the test. Nothing runs before
// finish(), as on a device that is slow to begin.
#include <sys/mman.h>
#include <unistd.h>

#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "../lockstep.h"
#include "backends/gpu/shared_host.h"
#include "kernel_table.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, n) (static_cast<void>(at), static_cast<void>(n))
#define ASAN_UNPOISON_MEMORY_REGION(at, n) (static_cast<void>(at), static_cast<void>(n))
#endif

namespace edge::gpu::shared {
namespace {

std::mutex mutex;
std::set<std::pair<std::byte*, size_t>> shared;  // of the host

size_t round_to_pages(size_t n) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return (n + page - 1) / page * page;
}

std::byte* map_file(int file, size_t n, int protection) {
  void* at = mmap(nullptr, n, protection, MAP_SHARED, file, 0);
  return at == MAP_FAILED ? nullptr : static_cast<std::byte*>(at);
}

// n bytes, zero, twice: for the host and for the device.
struct Twice {
  std::byte *host = nullptr, *device = nullptr;
};
Result<Twice> map_twice(size_t n) {
  const int file = memfd_create("emulated", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, static_cast<off_t>(n)) != 0) {
    return {Code::kOutOfMemory, "emulated Metal: no memory"};
  }
  const Twice both = {map_file(file, n, PROT_READ | PROT_WRITE),
                      map_file(file, n, PROT_READ | PROT_WRITE)};
  close(file);
  if (both.host == nullptr || both.device == nullptr) {
    return {Code::kOutOfMemory, "emulated Metal: no memory"};
  }
  return both;
}

Buffer buffer_of(std::byte* host, std::byte* device, size_t n_bytes) {
  ASAN_POISON_MEMORY_REGION(device + n_bytes, round_to_pages(n_bytes + 1) - n_bytes);
  return {host, reinterpret_cast<uint64_t>(device), n_bytes, device};
}

class EmulatedQueue final : public Queue {
 public:
  Status launch(const char* kernel, const Buffer& args, size_t offset, gpu::Grid grid,
                int n_threads) override {
    const metal_on_cpu::Kernel* found = metal_on_cpu::find_kernel(kernel);
    if (found == nullptr) {
      return {Code::kFeatureUnsupported, std::string("Metal: no kernel ") + kernel};
    }
    queued_.push_back({found, reinterpret_cast<const void*>(args.address + offset), grid,
                       static_cast<unsigned>(n_threads)});
    return {};
  }

  Status finish() override {
    if (queued_.empty()) return {};
    hide(true);
    for (const Launch& launch : queued_) run(launch);
    hide(false);
    queued_.clear();
    return {};
  }

 private:
  struct Launch {
    const metal_on_cpu::Kernel* kernel;
    const void* args;
    gpu::Grid grid;
    unsigned n_threads;
  };
  static void run(const Launch& launch) {
    const lockstep::Dim grid = {static_cast<unsigned>(launch.grid.x),
                                static_cast<unsigned>(launch.grid.y),
                                static_cast<unsigned>(launch.grid.z)};
    lockstep::launch(grid, {launch.n_threads, 1, 1}, [&] {
      const lockstep::Dim at = lockstep::block_index();
      (*launch.kernel)(launch.args, {at.x, at.y, at.z}, lockstep::thread_number());
    });
  }
  static void hide(bool is_hidden) {
    const std::lock_guard lock(mutex);
    for (const auto& [host, n_bytes] : shared) {
      if (is_hidden) {
        ASAN_POISON_MEMORY_REGION(host, n_bytes);
      } else {
        ASAN_UNPOISON_MEMORY_REGION(host, n_bytes);
      }
    }
  }
  std::vector<Launch> queued_;
};

// Of whole pages, which may hold more than the sanitizer knows of.
__attribute__((no_sanitize_address)) void copy_pages(std::span<const std::byte> pages,
                                                     volatile std::byte* to) {
  for (size_t i = 0; i < pages.size(); ++i) to[i] = pages[i];
}

}  // namespace

Status open_host() { return {}; }

Result<Buffer> create_buffer(size_t n_bytes) {
  // One byte more, so that there is one to poison.
  EDGE_ASSIGN_OR_RETURN(const Twice both, map_twice(round_to_pages(n_bytes + 1)));
  const std::lock_guard lock(mutex);
  shared.insert({both.host, n_bytes});
  return buffer_of(both.host, both.device, n_bytes);
}

Result<size_t> weight_room() { return SIZE_MAX; }

// A copy that cannot be written, which is the same to kernels that read.
Result<Buffer> share_weights(std::span<const std::byte> weights) {
  const auto pages = pages_around(weights, static_cast<size_t>(sysconf(_SC_PAGESIZE)));
  const size_t n = round_to_pages(pages.size() + 1);
  EDGE_ASSIGN_OR_RETURN(const Twice both, map_twice(n));
  copy_pages(pages, both.host);
  munmap(both.host, n);
  mprotect(both.device, n, PROT_READ);
  return buffer_of(const_cast<std::byte*>(pages.data()), both.device, pages.size());
}

void release_buffer(const Buffer& buffer) {
  const size_t n = round_to_pages(buffer.n_bytes + 1);
  auto* device = static_cast<std::byte*>(buffer.handle);
  ASAN_UNPOISON_MEMORY_REGION(device, n);
  munmap(device, n);
  const std::lock_guard lock(mutex);
  if (shared.erase({buffer.host, buffer.n_bytes}) > 0) munmap(buffer.host, n);
}

Result<std::unique_ptr<Queue>> Queue::create() {
  return std::unique_ptr<Queue>(std::make_unique<EmulatedQueue>());
}

}  // namespace edge::gpu::shared
