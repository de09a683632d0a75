// The emulated Metal device: memory has an address of its own there, nothing runs before something
// waits, and what a real device would read or write wrongly ends the program.
#include <algorithm>
#include <cstring>
#include <vector>

#include "backends/metal/metal_device.h"
#include "doctest/doctest.h"
#include "emulation/metal/mutants.h"
#include "outcome.h"

using namespace edge;

namespace {

constexpr int kBytes = 5000;

// sum_bytes over a buffer that `change` may give wrongly.
template <class Change>
bool sum_is_right(const Change& change) {
  auto device = metal::open_device().take();
  const PageBuffer bytes = device->allocator()(kBytes).take();
  const PageBuffer sum = device->allocator()(sizeof(int32_t)).take();
  for (int i = 0; i < kBytes; ++i) bytes.data()[i] = std::byte{3};
  metal::SumArgs args = {};
  args.bytes = reinterpret_cast<const uint8_t*>(device->address(bytes.data()));
  args.sum = reinterpret_cast<int32_t*>(device->address(sum.data()));
  args.n = kBytes;
  change(args, bytes);
  if (!device->begin().is_ok()) return false;
  if (!device->launch("sum_bytes", std::as_bytes(std::span(&args, 1)), {}, 32).is_ok())
    return false;
  const auto* found = reinterpret_cast<const int32_t*>(sum.data());
  if (*found != 0) return false;  // nothing has run
  float copied = 0;
  static_cast<void>(device->fetch(sum.data(), sizeof copied, &copied));
  const bool is_finite = device->end().value();
  return is_finite && *found == 3 * kBytes && std::memcmp(&copied, found, sizeof copied) == 0;
}

using Change = void (*)(metal::SumArgs&, const PageBuffer&);
void no_change(metal::SumArgs&, const PageBuffer&) {}

}  // namespace

TEST_CASE("a kernel of the emulated Metal device reads and writes shared memory") {
  CHECK(sum_is_right(no_change));
}

TEST_CASE("the emulated Metal device tells what a real one would do wrongly") {
  struct Planted {
    const char* text;
    Change change;
  };
  const Planted planted[] = {
#if defined(__SANITIZE_ADDRESS__)
      {"use-after-poison", [](metal::SumArgs& args, const PageBuffer&) { ++args.n; }},
      {"use-after-poison",
       [](metal::SumArgs& args, const PageBuffer& bytes) {
         args.bytes = reinterpret_cast<const uint8_t*>(bytes.data());
       }},
#endif
      {"a barrier not for all memory",
       [](metal::SumArgs& args, const PageBuffer&) { args.has_half_barrier = 1; }},
  };
  for (const Planted& bug : planted) {
    const test::Outcome outcome = test::outcome_of([&] { return sum_is_right(bug.change); });
    CHECK(outcome.status != 0);
    CAPTURE(outcome.text);
    CHECK(outcome.text.find(bug.text) != std::string::npos);
  }
}

TEST_CASE("what is fetched is what was there before later kernels") {
  auto device = metal::open_device().take();
  const PageBuffer bytes = device->allocator()(kBytes).take();
  const PageBuffer sum = device->allocator()(sizeof(int32_t)).take();
  std::fill_n(bytes.data(), kBytes, std::byte{3});
  metal::SumArgs args = {};
  args.bytes = reinterpret_cast<const uint8_t*>(device->address(bytes.data()));
  args.sum = reinterpret_cast<int32_t*>(device->address(sum.data()));
  int32_t sums[2];
  REQUIRE(device->begin().is_ok());
  for (const int n : {100, 200}) {
    args.n = n;
    REQUIRE(device->launch("sum_bytes", std::as_bytes(std::span(&args, 1)), {}, 32).is_ok());
    REQUIRE(device->fetch(sum.data(), sizeof sums[0], &sums[n / 200]).is_ok());
  }
  CHECK(device->end().value());
  CHECK(sums[0] == 300);
  CHECK(sums[1] == 600);
}

TEST_CASE("weights are where they are given, and nothing else is an address") {
  auto device = metal::open_device().take();
  const std::vector<std::byte> weights(70000, std::byte{7});
  REQUIRE(device->load(weights).is_ok());
  const std::byte* at = device->loaded(weights.data() + 100, 69900);
  REQUIRE(at != nullptr);
  CHECK(at != weights.data() + 100);
  CHECK(at[69899] == std::byte{7});
  const std::byte* elsewhere = reinterpret_cast<const std::byte*>(&device);
  CHECK(device->loaded(elsewhere, 1) == nullptr);
  CHECK(device->address(elsewhere) == nullptr);
  const PageBuffer page = device->allocator()(100).take();
  CHECK(device->address(page.data()) != page.data());
  CHECK(device->address(page.data() + 99) == device->address(page.data()) + 99);
  CHECK(device->address(page.data() + 100) == nullptr);
}

TEST_CASE("a kernel that is not there is an error") {
  auto device = metal::open_device().take();
  const Status status = device->launch("sing", {}, {}, 32);
  CHECK(status.code() == Code::kFeatureUnsupported);
  CHECK(status.message() == "Metal: no kernel sing");
}
