// What lies below the ops: arithmetic that is exact whatever the driver's is, memory in parts,
// names of kernels, and what cannot be had.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "backends/gpu/args.h"
#include "backends/gpu/shared_host.h"
#include "backends/vulkan/heaps.h"
#include "backends/vulkan/numbers.h"
#include "backends/vulkan/pipelines.h"
#include "there.h"

using namespace edge;
using namespace edge::vulkan;

namespace {

uint32_t bits_of(float x) { return std::bit_cast<uint32_t>(x); }

// Of every size that is normal, powers of two and their neighbours among them.
std::vector<Triple> triples() {
  std::mt19937 random(11);
  const auto any = [&] {
    uint32_t bits = static_cast<uint32_t>(random());
    if (random() % 8 == 0) bits &= 0xff800003u;
    if (random() % 8 == 0) bits |= 0x007ffffcu;
    const uint32_t exponent = bits >> 23 & 255;
    if (exponent == 0 || exponent == 255) bits ^= 0x40000000u;
    return std::bit_cast<float>(bits);
  };
  std::vector<Triple> made;
  for (int i = 0; i < 20000; ++i) made.push_back({any(), any(), any()});
  return made;
}

// Of the number that the memory test fills it with.
bool is_marked(const gpu::shared::Buffer& buffer) {
  const auto mark = static_cast<std::byte>(buffer.n_bytes & 255);
  return std::all_of(buffer.host, buffer.host + buffer.n_bytes,
                     [&](std::byte x) { return x == mark; });
}

std::span<const uint32_t> code_here() {
  const Shader* shader = parse_kernel("check_numbers").shader;
  return driver().rounds_fma_once ? shader->fused : shader->by_f64;
}

}  // namespace

TEST_CASE("sums of products, quotients and roots round once, however far off the driver's are") {
  if (!test::has_vulkan()) return;
  const std::vector<Triple> asked = triples();
  for (const int32_t nudge : {0, 1, 5, -1, -5}) {
    CAPTURE(nudge);
    const auto found = compute_numbers(code_here(), nudge, asked);
    REQUIRE(found.status().message() == "");
    int n_fma = 0, n_quotient = 0, n_root = 0;
    for (size_t i = 0; i < asked.size(); ++i) {
      const Numbers wanted = numbers_of(asked[i]), &here = found.value()[i];
      // What a device makes of numbers below 2^-126 is its own.
      if (std::fpclassify(wanted.fma) != FP_SUBNORMAL) {
        n_fma += bits_of(wanted.fma) != bits_of(here.fma);
      }
      n_quotient += bits_of(wanted.quotient) != bits_of(here.quotient);
      n_root += bits_of(wanted.root) != bits_of(here.root);
    }
    CHECK(n_fma == 0);
    CHECK(n_quotient == 0);
    CHECK(n_root == 0);
  }
}

TEST_CASE("a kernel's name says its constants") {
  const KernelName product = parse_kernel("matmul_a8_4_E4_16");
  REQUIRE(product.shader != nullptr);
  CHECK(std::string(product.shader->name) == "matmul_a8");
  CHECK(product.constants.n_at_once == 4);
  CHECK(product.constants.format == 2);
  const KernelName floats = parse_kernel("matmul_f32_F16");
  REQUIRE(floats.shader != nullptr);
  CHECK(floats.constants.format == 9);
  const KernelName attention = parse_kernel("attend_segment_8");
  REQUIRE(attention.shader != nullptr);
  CHECK(attention.constants.n_at_once == 8);
  CHECK(attention.constants.most_head_dim == 128);
  CHECK(parse_kernel("norm_rows").shader != nullptr);
  for (const char* wrong : {"", "_", "sing", "sing_4", "matmul_a8_x_E4_16", "E4_16", "_4_"}) {
    CAPTURE(std::string(wrong));
    CHECK(parse_kernel(wrong).shader == nullptr);
  }
}

TEST_CASE("a kernel that is not there and a launch that is too large are errors") {
  if (!test::has_vulkan()) return;
  const auto queue = gpu::shared::Queue::create().take();
  const gpu::shared::Buffer args = gpu::shared::create_buffer(256).take();
  const Status none = queue->launch("sing", args, 0, {}, 32);
  CHECK(none.code() == Code::kFeatureUnsupported);
  CHECK(none.message() == "Vulkan: no kernel sing");
  const Status large = queue->launch("add_pairs", args, 0, {int64_t{1} << 40, 1, 1}, 256);
  CHECK(large.code() == Code::kFeatureUnsupported);
  CHECK(large.message().find("too many groups of add_pairs") != std::string::npos);
  CHECK(queue->launch("add_pairs", args, 0, {0, 1, 1}, 256).is_ok());
  CHECK(queue->finish().is_ok());
  gpu::shared::release_buffer(args);
}

// For `make vulkan-validation`, which must find it.
TEST_CASE("planted: a kernel that writes beyond its memory" * doctest::skip()) {
  REQUIRE(test::has_vulkan());
  const auto queue = gpu::shared::Queue::create().take();
  const gpu::shared::Buffer from = gpu::shared::create_buffer(8192).take();
  const gpu::shared::Buffer to = gpu::shared::create_buffer(256).take();
  const gpu::shared::Buffer at = gpu::shared::create_buffer(256).take();
  gpu::AddPairsArgs args = {};
  args.parts = reinterpret_cast<const float*>(from.address);
  args.y = reinterpret_cast<float*>(to.address);
  args.n = 65;
  std::memcpy(at.host, &args, sizeof args);
  CHECK(queue->launch("add_pairs", at, 0, {1, 1, 1}, 256).is_ok());
  CHECK(queue->finish().is_ok());
}

TEST_CASE("memory is zero, apart from other memory, and used again") {
  if (!test::has_vulkan()) return;
  Heaps heaps;
  std::mt19937 random(3);
  std::vector<gpu::shared::Buffer> taken;
  for (int i = 0; i < 2000; ++i) {
    if (taken.size() > 40 || (!taken.empty() && random() % 3 == 0)) {
      const size_t which = random() % taken.size();
      REQUIRE(is_marked(taken[which]));
      CHECK(heaps.release(taken[which]));
      taken[which] = taken.back();
      taken.pop_back();
      continue;
    }
    const size_t n_bytes = random() % (i % 200 == 0 ? size_t{20} << 20 : 5000);
    const gpu::shared::Buffer made = heaps.allocate(n_bytes).take();
    CHECK(made.address % 256 == 0);
    CHECK(made.n_bytes == n_bytes);
    std::memset(made.host, static_cast<int>(n_bytes & 255), n_bytes);
    taken.push_back(made);
  }
  for (const gpu::shared::Buffer& buffer : taken) CHECK(heaps.release(buffer));
  CHECK(!heaps.release(gpu::shared::Buffer{}));
  const gpu::shared::Buffer shared = gpu::shared::create_buffer(1000).take();
  CHECK(
      std::all_of(shared.host, shared.host + 1000, [](std::byte x) { return x == std::byte{0}; }));
  gpu::shared::release_buffer(shared);
}

TEST_CASE("more than a device has, and a child of the process, get an error") {
  if (!test::has_vulkan()) return;
  const auto large = allocate_block(std::numeric_limits<VkDeviceSize>::max() / 2, Place::kShared);
  CHECK(large.status().code() == Code::kOutOfMemory);
  CHECK(large.status().message().find("load with backend 'cpu'") != std::string::npos);
  const pid_t child = fork();
  if (child == 0) _exit(open_driver().code() == Code::kDeviceFailed ? 7 : 1);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 7);
}
