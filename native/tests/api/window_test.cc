// A model with windows through the public interface: the bits of a run whose pages are all kept, in
// the memory that was promised.
#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "doctest/doctest.h"
#include "edgellm/engine.h"
#include "format/edge_file.h"
#include "kernels/kernels.h"
#include "model/decoder.h"
#include "tiny_model.h"

namespace {

using edge::test::kTinyVocab;
using edge::test::tiny_spec;
using edge::test::TinyFile;
using edgellm::Model;
using edgellm::Session;

constexpr int kTokens = 560;
constexpr int kContext = 600;
const std::array<std::array<int, 2>, 3> kWindows = {{{40, 0}, {33, 150}, {1, 256}}};

std::vector<int32_t> some_ids() {
  std::vector<int32_t> ids;
  for (int i = 0; i < kTokens; ++i) ids.push_back((i * 37 + i / 5) % kTinyVocab);
  return ids;
}

// [n][n_vocab], by a decoder alone, from pages of which none is ever let go.
std::vector<float> logits_with_all_pages(const TinyFile& tiny, const std::vector<int32_t>& ids) {
  const auto file = edge::EdgeFile::open(tiny.path()).take();
  const edge::ModelSpec spec = edge::ModelSpec::from_json(file->metadata("edgellm.spec")).take();
  const edge::Weights weights = edge::Weights::bind(*file, spec).take();
  const auto decoder =
      edge::Decoder::create(spec, weights, edge::create_cpu_backend(edge::active_kernels(), 1),
                            kContext, edge::KvFormat::kF16)
          .take();
  const edge::KvLayout layout = spec.kv_layout(edge::KvFormat::kF16);
  constexpr size_t kPages = kTokens / edge::kPageTokens + 1;
  std::vector<std::vector<std::byte>> memory;
  std::vector<std::vector<std::byte*>> pages(layout.groups.size());
  std::vector<edge::KvTable> tables;
  for (size_t group = 0; group < layout.groups.size(); ++group) {
    for (size_t i = 0; i < kPages; ++i) {
      memory.emplace_back(layout.groups[group].page_bytes);
      pages[group].push_back(memory.back().data());
    }
    tables.push_back({pages[group].data(), static_cast<int>(kPages)});
  }
  std::vector<float> logits(ids.size() * kTinyVocab);
  for (size_t first = 0; first < ids.size(); first += edge::Decoder::kMaxRows) {
    const size_t n = std::min<size_t>(edge::Decoder::kMaxRows, ids.size() - first);
    std::vector<edge::RowInput> rows;
    std::vector<int32_t> wanted;
    std::vector<float*> to;
    for (size_t i = 0; i < n; ++i) {
      edge::RowInput& row = rows.emplace_back();
      row.token = ids[first + i];
      row.position = row.slot = static_cast<int32_t>(first + i);
      row.kv = {tables.data()};
      wanted.push_back(static_cast<int32_t>(i));
      to.push_back(logits.data() + (first + i) * kTinyVocab);
    }
    const edge::StepOutputs outputs{.rows = wanted, .logits = to};
    REQUIRE(decoder->step(rows, outputs, {}).is_ok());
  }
  return logits;
}

std::vector<float> row_of(const std::vector<float>& logits, int row) {
  const auto begin = logits.begin() + row * kTinyVocab;
  return {begin, begin + kTinyVocab};
}

template <class F>
std::string error_of(F&& body) {
  try {
    body();
  } catch (const edgellm::Error& error) {
    return error.code() + ": " + error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("windows have the bits of a run that keeps every page, prompt or token by token") {
  const std::vector<int32_t> ids = some_ids();
  for (const std::array<int, 2>& windows : kWindows) {
    CAPTURE(windows[0]);
    const TinyFile file(tiny_spec(kContext, windows));
    const std::vector<float> wanted = logits_with_all_pages(file, ids);
    const Model model = Model::load(file.path(), {.n_threads = 2, .kv_format = "F16"});
    Session whole(model), single(model);
    whole.append(ids);
    std::vector<float> all;
    while (whole.n_pending() > 0) {
      const std::vector<float> more = whole.run_with_logits(0);
      all.insert(all.end(), more.begin(), more.end());
    }
    CHECK(all == wanted);
    for (int i = 0; i < kTokens; ++i) {
      single.append(std::span(ids).subspan(static_cast<size_t>(i), 1));
      single.run();
      REQUIRE(single.logits() == row_of(wanted, i));
    }
  }
}

TEST_CASE("whatever is rewound, the same tokens have the same bits again") {
  const std::vector<int32_t> ids = some_ids();
  for (const std::array<int, 2>& windows : kWindows) {
    CAPTURE(windows[0]);
    const TinyFile file(tiny_spec(kContext, windows));
    const std::vector<float> wanted = logits_with_all_pages(file, ids);
    const Model model = Model::load(file.path(), {.n_threads = 2, .kv_format = "F16"});
    const bool reuses = windows[0] == kWindows[0][0];  // then it finds what it had to let go
    Session session(model, 0, std::nullopt, {.is_on = reuses, .name_space = {}});
    std::mt19937 random(static_cast<uint32_t>(windows[0]));
    int64_t n_recomputed = 0;
    for (int walk = 0; walk < 25; ++walk) {
      const int n_held = session.n_tokens();
      const int back = static_cast<int>(random() % (walk % 2 == 0 ? 64u : 600u));
      session.rewind(std::max(0, n_held - back));
      n_recomputed += session.n_recompute();
      const int first = session.n_tokens();
      const int n = std::min(kTokens - first, 1 + static_cast<int>(random() % 300u));
      if (n == 0) continue;
      session.append(std::span(ids).subspan(static_cast<size_t>(first), static_cast<size_t>(n)));
      while (!session.run(0)) {
      }
      REQUIRE(session.logits() == row_of(wanted, first + n - 1));
    }
    CHECK(session.stats().n_recomputed_tokens == (reuses ? 0 : n_recomputed));
    CHECK(n_recomputed > 0);
  }
}

TEST_CASE("memory of a model with windows is what was said, to the byte") {
  const TinyFile file(tiny_spec(kContext, {40, 0}));
  edgellm::ModelInfo info;
  uint64_t kv_bytes = 0;
  {
    const Model model = Model::load(file.path(), {.kv_format = "F16"});
    info = model.info();
    kv_bytes = model.kv_bytes(500);
    REQUIRE(info.kv_groups.size() == 2);
    CHECK(info.kv_groups[0].window == 0);
    CHECK(info.kv_groups[1].window == 40);
    CHECK(info.kv_groups[1].bytes_per_token == 128);  // 2 kv heads x 16 x k and v x 2 bytes
    CHECK(info.kv_bytes_per_token == 256);
    CHECK(kv_bytes == (32 + 12) * 16 * 128);  // 40 + 127 positions, from the last one of a page on
    CHECK(model.kv_bytes() == model.kv_bytes(kContext));
    CHECK(error_of([&] { model.kv_bytes(kContext + 1); }).starts_with("invalid_argument"));
  }
  const uint64_t cap = info.file_bytes + info.scratch_bytes + info.session_bytes + kv_bytes;
  const auto load = [&](uint64_t max_memory_bytes, int n_ctx) {
    return Model::load(file.path(),
                       {.max_memory_bytes = max_memory_bytes, .n_ctx = n_ctx, .kv_format = "F16"});
  };
  const std::string refused = error_of([&] { load(cap - 1, 500); });
  CHECK(refused.starts_with("memory_budget"));
  CHECK(refused.find("the largest n_ctx that fits is 496;") != std::string::npos);
  const Model model = load(cap, 500);
  CHECK(error_of([&] { Session(model, 513); }).find("n_ctx of at most 512 ") != std::string::npos);
  Session session(model, 500);
  uint64_t most = 0;
  for (const int32_t id : some_ids()) {
    if (session.n_tokens() == 500) break;
    session.append(std::span(&id, 1));
    session.run();
    most = std::max(most, session.stats().kv_bytes);
  }
  CHECK(most == kv_bytes);
}
