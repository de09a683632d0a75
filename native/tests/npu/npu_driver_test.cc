// The NPU library's own code, compiled with AddressSanitizer: graphs run by themselves, and
// descriptions of bundles that somebody has damaged.
#include <random>
#include <string>
#include <vector>

#include "backends/npu/ort_graphs.h"
#include "doctest/doctest.h"
#include "npu/bundle_fixture.h"

namespace {

using edge::GraphRun;
using edge::GraphSettings;
using edge::StepGraphs;
using edge::npu::OrtGraphs;
using edge::test::BundleFolder;
using edge::test::BundleWish;

std::unique_ptr<StepGraphs> opened(const BundleFolder& bundle) {
  const GraphSettings settings = {{"bundle", bundle.path()}, {"library", EDGE_FAKE_ORT}};
  auto graphs = OrtGraphs::open(settings);
  REQUIRE(graphs.is_ok());
  REQUIRE(graphs.value()->start().is_ok());
  return graphs.take();
}

// Logits of each token, in runs of at most n_most.
std::vector<float> logits_of(StepGraphs& graphs, int buffer, int n, int n_most) {
  std::vector<int32_t> ids;
  for (int i = 0; i < n; ++i) ids.push_back((i * 31 + 7) % 96);
  std::vector<float> all;
  for (int done = 0; done < n;) {
    const int n_run = std::min(n_most, n - done);
    const auto at = static_cast<size_t>(done);
    const auto took = graphs.run({.buffer = buffer,
                                  .n_before = done,
                                  .ids = std::span(ids).subspan(at, static_cast<size_t>(n_run))});
    REQUIRE(took.is_ok());
    for (int row = 0; row < took.value(); ++row) {
      all.insert(all.end(), graphs.output(row), graphs.output(row) + 96);
    }
    done += took.value();
  }
  return all;
}

}  // namespace

TEST_CASE("runs of any length in either buffer give the same") {
  for (const bool is_half : {true, false}) {
    for (const bool is_split : {true, false}) {
      const BundleFolder bundle({.slots = {16, 40, 96}, .is_half = is_half, .is_split = is_split});
      const auto graphs = opened(bundle);
      CHECK(graphs->facts().capacity == 96);
      CHECK(graphs->facts().draft_rows == 16);
      CHECK(graphs->facts().n_bytes > 100'000);
      const std::vector<float> wanted = logits_of(*graphs, 0, 96, 1);
      for (const int n_most : {2, 5, 16, 96}) {
        CHECK(logits_of(*graphs, 1, 96, n_most) == wanted);
      }
      const int32_t id = 1;
      const GraphRun beyond{.buffer = 0, .n_before = 96, .ids = {&id, 1}};
      CHECK(graphs->run(beyond).status().code() == edge::Code::kContextOverflow);
    }
  }
}

TEST_CASE("what is put into the past is what was there") {
  const BundleFolder bundle({.slots = {16, 64}});
  const auto graphs = opened(bundle);
  std::vector<float> key(16), value(16);
  std::vector<std::vector<float>> kept;
  const std::vector<float> wanted = logits_of(*graphs, 0, 64, 1);
  // Once more, of each token what the other buffer is to hold.
  for (int slot = 0; slot < 63; ++slot) {
    const int32_t id = (slot * 31 + 7) % 96;
    REQUIRE(graphs->run({.buffer = 0, .n_before = slot, .ids = {&id, 1}}).is_ok());
    for (int layer = 0; layer < 2; ++layer) {
      for (int head = 0; head < 2; ++head) {
        graphs->load_new({layer, head, 0}, key.data(), value.data());
        graphs->store_past(1, {layer, head, slot}, key.data(), value.data());
      }
    }
  }
  const int32_t last = (63 * 31 + 7) % 96;
  REQUIRE(graphs->run({.buffer = 1, .n_before = 63, .ids = {&last, 1}}).is_ok());
  CHECK(std::equal(wanted.end() - 96, wanted.end(), graphs->output(0)));
}

TEST_CASE("no damage to a description does more than a refusal") {
  const BundleFolder bundle({.rows = {1, 4}, .slots = {16}});
  const std::string whole = bundle.description();
  std::mt19937 random(7);
  int n_refused = 0;
  constexpr int kTries = 1500;
  for (int i = 0; i < kTries; ++i) {
    std::string text = whole;
    for (size_t n = 1 + random() % 3; n > 0; --n) {
      const size_t at = random() % text.size();
      const std::string other = whole.substr(random() % whole.size(), random() % 24);
      if (random() % 2 == 0) {
        text[at] = "0123456789-\"{}[],:.xE"[random() % 21];
      } else {
        text.replace(at, random() % 12, other);
      }
    }
    bundle.write("bundle.json", text);
    const auto graphs = OrtGraphs::open({{"bundle", bundle.path()}, {"library", EDGE_FAKE_ORT}});
    n_refused += graphs.is_ok() ? 0 : 1;
  }
  CHECK(n_refused > kTries / 2);
  CHECK(n_refused < kTries);
}
