#include "model_check.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "api/tiny_model.h"
#include "backends/cpu/cpu_backend.h"
#include "doctest/doctest.h"
#include "format/edge_file.h"
#include "kernels/kernels.h"
#include "model/decoder.h"

namespace edge::test {
namespace {

constexpr int kContext = 128;

// A model from a file on one backend, and the pages of one sequence.
class Run {
 public:
  Run(const std::string& path, std::unique_ptr<Backend> backend, KvFormat kv_format)
      : file_(EdgeFile::open(path).take()),
        spec_(ModelSpec::from_json(file_->metadata("edgellm.spec")).take()),
        weights_(Weights::bind(*file_, spec_).take()) {
    REQUIRE(backend->load(file_->hashed_bytes()).is_ok());
    const auto allocate = backend->page_allocator();
    const KvLayout layout = spec_.kv_layout(kv_format);
    pages_.resize(layout.groups.size());
    for (size_t group = 0; group < layout.groups.size(); ++group) {
      for (size_t i = 0; i < kContext / kPageTokens; ++i) {
        memory_.push_back(allocate(layout.groups[group].bytes_of(i)).take());
        pages_[group].push_back(memory_.back().data());
      }
      tables_.push_back({pages_[group].data(), static_cast<int>(pages_[group].size())});
    }
    auto made = Decoder::create(spec_, weights_, std::move(backend), kContext, kv_format);
    REQUIRE(made.status().message() == "");
    decoder_ = made.take();
  }

  // Logits of the last of these tokens, and its hidden state behind them.
  std::vector<float> step(const std::vector<int32_t>& ids) {
    std::vector<RowInput> rows;
    for (const int32_t id : ids) {
      RowInput& row = rows.emplace_back();
      row.token = id;
      row.position = row.slot = n_tokens_++;
      row.kv = {tables_.data()};
    }
    const auto n_vocab = static_cast<size_t>(spec_.n_vocab);
    std::vector<float> out(n_vocab + static_cast<size_t>(spec_.d_model));
    const auto last = static_cast<int32_t>(ids.size()) - 1;
    float *logits = out.data(), *hidden = out.data() + n_vocab;
    StepOutputs outputs;
    outputs.rows = std::span(&last, 1);
    outputs.logits = std::span(&logits, 1);
    outputs.row_hidden = std::span(&hidden, 1);
    REQUIRE(decoder_->step(rows, outputs, {}).message() == "");
    return out;
  }

  int32_t best(const std::vector<float>& logits) const {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.begin() + spec_.n_vocab) -
                                logits.begin());
  }

 private:
  std::shared_ptr<const EdgeFile> file_;
  ModelSpec spec_;
  Weights weights_;
  std::vector<PageBuffer> memory_;
  std::vector<std::vector<std::byte*>> pages_;
  std::vector<KvTable> tables_;
  std::unique_ptr<Decoder> decoder_;
  int n_tokens_ = 0;
};

// A prompt in two parts, then n greedy tokens.
void check_same(const MakeBackend& make, const std::string& path, KvFormat kv_format, int32_t n_ids,
                int n_new) {
  Run on_cpu(path, create_cpu_backend(active_kernels(), 1), kv_format);
  Run on_other(path, make(), kv_format);
  std::vector<int32_t> ids;
  for (int i = 0; i < 21; ++i) ids.push_back((i * 37 + 5) % n_ids);
  on_cpu.step({ids.begin(), ids.begin() + 17});
  on_other.step({ids.begin(), ids.begin() + 17});
  std::vector<int32_t> next(ids.begin() + 17, ids.end());
  for (int i = 0; i < n_new; ++i) {
    const std::vector<float> wanted = on_cpu.step(next), found = on_other.step(next);
    REQUIRE(std::memcmp(wanted.data(), found.data(), wanted.size() * sizeof(float)) == 0);
    next = {on_other.best(found)};
  }
}

}  // namespace

void check_tiny_models(const MakeBackend& make) {
  const TinyFile file(tiny_spec(kTinyContext, {0, 12}));
  for (const auto& row : kKvFormats) {
    CAPTURE(row.name);
    check_same(make, file.path(), row.format, kTinyVocab, 16);
  }
}

void check_model(const MakeBackend& make, const std::string& path, int n_new) {
  check_same(make, path, KvFormat::kK8V8, 1000, n_new);
}

}  // namespace edge::test
