// The host's half of a step on CUDA: what is recorded, when it is queued, and graphs that are made
// once and changed where a step differs. The emulated runtime runs what is queued as late as it
// may.
#include "backends/cuda/step_graphs.h"

#include <array>
#include <vector>

#include "backends/cuda/mail.h"
#include "backends/gpu/args.h"
#include "doctest/doctest.h"
#include "emulated.h"
#include "model_check.h"

using namespace edge;
using cuda_on_cpu::Fault;

namespace {

template <class T>
T* managed(size_t n) {
  void* memory = nullptr;
  REQUIRE(cudaMallocManaged(&memory, n * sizeof(T)) == cudaSuccess);
  return static_cast<T*>(memory);
}

struct Stream {
  cudaStream_t stream = nullptr;
  Stream() { REQUIRE(cudaStreamCreate(&stream) == cudaSuccess); }
  ~Stream() { cudaStreamDestroy(stream); }
};

// b[i] = a[i] + a[n + i] for both rows of what `a` has at `shift`, copied to c.
struct Sums {
  static constexpr int64_t kCols = 5;
  float* a = managed<float>(4 * kCols);
  float* b = managed<float>(kCols);
  float* c = managed<float>(kCols);
  Sums() {
    for (int i = 0; i < 4 * kCols; ++i) a[i] = static_cast<float>(i);
    std::fill_n(b, kCols, -1.0f);
    std::fill_n(c, kCols, -1.0f);
  }
  ~Sums() {
    for (float* memory : {a, b, c}) cudaFree(memory);
  }
  void record(cuda::StepRecord& record, int64_t shift) const {
    const gpu::AddPairsArgs args = {a + shift, kCols, b, kCols};
    record.launch(*cuda::find_kernel("add_pairs"), reinterpret_cast<const std::byte*>(&args),
                  dim3(1), dim3(gpu::kElementThreads));
    record.copy(c, b, kCols * sizeof(float));
  }
  bool is_right(int64_t shift) const {
    for (int64_t i = 0; i < kCols; ++i) {
      if (c[i] != a[shift + i] + a[shift + kCols + i]) return false;
    }
    return true;
  }
};

// Whether four steps of one shape, the last two with other arguments, are right.
bool are_steps_right(Fault fault) {
  const Stream s;
  const Sums sums;
  cuda::StepGraphs graphs;
  bool is_right = true;
  cuda_on_cpu::set_fault(fault);
  for (const int64_t shift : {int64_t{0}, int64_t{0}, int64_t{3}, int64_t{Sums::kCols}}) {
    cuda::StepRecord record;
    sums.record(record, shift);
    REQUIRE(graphs.run(record, s.stream).is_ok());
    record.clear();  // what graphs need of it they have
    cudaStreamSynchronize(s.stream);
    is_right = is_right && sums.is_right(shift);
    std::fill_n(sums.b, Sums::kCols, -1.0f);
  }
  cuda_on_cpu::set_fault(Fault::kNone);
  return is_right;
}

}  // namespace

TEST_CASE("a shape's graph is made when it comes again, and changed where a step differs") {
  const cuda_on_cpu::Calls before = cuda_on_cpu::calls();
  CHECK(are_steps_right(Fault::kNone));
  const cuda_on_cpu::Calls& after = cuda_on_cpu::calls();
  CHECK(after.n_graphs - before.n_graphs == 1);
  CHECK(after.n_graph_runs - before.n_graph_runs == 3);
  CHECK(after.n_launches - before.n_launches == 1);
  CHECK(after.n_updates - before.n_updates == 2);
}

TEST_CASE("a graph that keeps old arguments, or nodes without their order, is caught") {
  CHECK_FALSE(are_steps_right(Fault::kUpdateIsIgnored));
  CHECK_FALSE(are_steps_right(Fault::kNodesHaveNoOrder));
}

TEST_CASE("the oldest of many shapes is forgotten, and comes back") {
  const Stream s;
  const Sums sums;
  cuda::StepGraphs graphs;
  for (int round = 0; round < 3; ++round) {
    for (size_t n = 1; n <= 40; ++n) {
      cuda::StepRecord record;
      for (size_t i = 0; i < n; ++i) sums.record(record, 2);
      REQUIRE(graphs.run(record, s.stream).is_ok());
      cudaStreamSynchronize(s.stream);
      CHECK(sums.is_right(2));
      std::fill_n(sums.c, Sums::kCols, -1.0f);
    }
  }
}

TEST_CASE("mail is read and delivered when the stream runs, from addresses that stay") {
  const Stream s;
  cuda::Mailbox mailbox;
  cuda::Outbox outbox;
  std::vector<int32_t> big(100000), got(big.size());
  const std::byte* first_address = nullptr;
  for (int32_t step = 1; step <= 3; ++step) {
    mailbox.clear();
    for (size_t i = 0; i < big.size(); ++i) big[i] = step * static_cast<int32_t>(i);
    const std::array<int32_t, 3> small = {step, step + 1, step + 2};
    const std::byte* to_small = mailbox.put(std::as_bytes(std::span(small))).value();
    const std::byte* to_big = mailbox.put(std::as_bytes(std::span(big))).value();
    if (first_address == nullptr) first_address = to_small;
    CHECK(to_small == first_address);
    cuda::StepRecord record;
    std::array<int32_t, 3> got_small = {};
    REQUIRE(outbox.fetch(to_small, sizeof got_small, got_small.data(), record).is_ok());
    REQUIRE(outbox.fetch(to_big, big.size() * sizeof(int32_t), got.data(), record).is_ok());
    mailbox.send(record);
    cuda::StepGraphs graphs;
    REQUIRE(graphs.run(record, s.stream).is_ok());
    CHECK(got_small[0] == 0);
    cudaStreamSynchronize(s.stream);
    outbox.deliver();
    CHECK(got_small == small);
    CHECK(got == big);
  }
}

TEST_CASE("tokens of a model are decoded by graphs, few of which are made") {
  const cuda_on_cpu::Calls before = cuda_on_cpu::calls();
  test::check_tiny_models(test::emulated_cuda);  // the CPU's bits
  const cuda_on_cpu::Calls& after = cuda_on_cpu::calls();
  const int n_formats = 4, n_tokens = 15;
  CHECK(after.n_graphs - before.n_graphs == n_formats);
  CHECK(after.n_graph_runs - before.n_graph_runs >= n_formats * (n_tokens - 1));
  CHECK(after.n_updates > before.n_updates);  // where a segment was full
}
