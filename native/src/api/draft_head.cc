#include "edgellm/draft_head.h"

#include <atomic>
#include <mutex>
#include <string>

#include "api/guard.h"
#include "api/impl.h"
#include "backends/cpu/cpu_backend.h"
#include "kernels/kernels.h"
#include "runtime/draft_rows.h"

namespace edgellm {
namespace {

using edge::Code;
using edge::Status;
using edge::api::check;
using edge::api::entry;
using edge::api::raise;
using edge::api::take_or_throw;

// The head as something that takes steps, in turn with those of its model.
class HeadModel final : public edge::StepModel {
 public:
  HeadModel(Model::Impl& owner, int n_vocab) : owner_(owner), n_vocab_(n_vocab) {}
  int n_vocab() const override { return n_vocab_; }
  int d_model() const override { return owner_.spec.d_model; }
  int max_rows() const override { return edge::Decoder::kMaxRows; }
  Status step(std::span<const edge::RowInput> rows, const edge::StepOutputs& outputs,
              const edge::StopCheck& should_stop) override {
    return owner_.draft_step(rows, outputs, should_stop);
  }

 private:
  Model::Impl& owner_;
  int n_vocab_;
};

// While it lives one call is in the head; a second one is refused, not made to wait.
class OneCall {
 public:
  explicit OneCall(std::atomic_flag& flag) : flag_(flag) {
    if (flag_.test_and_set()) {
      raise(Code::kInvalidArgument, "another thread uses this draft head; make one for each");
    }
  }
  ~OneCall() { flag_.clear(); }
  OneCall(const OneCall&) = delete;
  OneCall& operator=(const OneCall&) = delete;

 private:
  std::atomic_flag& flag_;
};

}  // namespace

struct DraftHead::Impl {
  std::shared_ptr<Model::Impl> model;
  std::vector<int32_t> ids;
  std::optional<HeadModel> head;
  std::optional<edge::KvCache> cache;
  std::unique_ptr<edge::DraftRows> rows;
  uint64_t claimed_bytes = 0;
  std::atomic_flag is_in_use;

  ~Impl() {
    if (claimed_bytes > 0) model->cache->unclaim(claimed_bytes);
  }
};

Status Model::Impl::make_draft_decoder() {
  auto made =
      edge::Decoder::create(draft_head->spec(), draft_head->weights(),
                            edge::create_cpu_backend(edge::active_kernels(), info.n_threads),
                            n_ctx_planned, edge::kDraftKvFormat);
  EDGE_RETURN_IF_ERROR(made.status());
  draft_decoder = made.take();
  return {};
}

Status Model::Impl::draft_step(std::span<const edge::RowInput> rows,
                               const edge::StepOutputs& outputs,
                               const edge::StopCheck& should_stop) {
  const std::lock_guard lock(step_turn);
  EDGE_RETURN_IF_ERROR(check_step());
  if (!draft_decoder) EDGE_RETURN_IF_ERROR(make_draft_decoder());
  return draft_decoder->step(rows, outputs,
                             [&] { return is_closing || (should_stop && should_stop()); });
}

DraftHead::DraftHead(const Model& model, int n_ctx) {
  entry([&] {
    auto impl = std::make_shared<Impl>();
    impl->model = model.impl();
    Model::Impl& owner = *impl->model;
    const std::lock_guard lock(owner.step_turn);
    owner.check_open();
    if (!owner.draft_head) {
      raise(Code::kFeatureUnsupported,
            "the file has no draft head; make one with edgellm.converters.draft_head");
    }
    if (n_ctx < 0 || n_ctx > owner.n_ctx_most) {
      raise(Code::kInvalidArgument, "n_ctx is " + std::to_string(n_ctx) +
                                        "; it must be from 0 (the most) to " +
                                        std::to_string(owner.n_ctx_most));
    }
    const edge::DraftHead& head = *owner.draft_head;
    const int n_most = n_ctx == 0 ? owner.n_ctx_most : n_ctx;
    const edge::KvLayout kv = head.spec().kv_layout(edge::kDraftKvFormat);
    const uint64_t kv_bytes = edge::kv_bytes_for(kv.groups, n_most);
    const uint64_t n_bytes =
        kv_bytes + take_or_throw(edge::Decoder::scratch_bytes_of(head.spec(), head.weights()));
    check(owner.tree->with_room([&] { return owner.cache->claim(n_bytes, "the draft head"); }));
    impl->claimed_bytes = n_bytes;
    impl->ids.assign(head.ids().begin(), head.ids().end());
    impl->head.emplace(owner, head.spec().n_vocab);
    impl->cache.emplace(kv.groups, kv_bytes);
    impl->rows = take_or_throw(edge::DraftRows::create(*impl->head, *impl->cache, n_most));
    impl_ = std::move(impl);
  });
}

const std::vector<int32_t>& DraftHead::ids() const { return impl_->ids; }

int DraftHead::n_rows() const { return impl_->rows->n_rows(); }

DraftHead::Rows DraftHead::add(std::span<const int32_t> tokens, std::span<const float> hidden) {
  return entry([&] {
    const OneCall call(impl_->is_in_use);
    const edge::ModelSpec& spec = impl_->model->spec;
    for (const int32_t token : tokens) {
      if (token >= 0 && token < spec.n_vocab) continue;
      raise(Code::kTokenOutOfRange, "token " + std::to_string(token) + " is not one of 0 to " +
                                        std::to_string(spec.n_vocab - 1));
    }
    Rows rows;
    rows.logits.resize(tokens.size() * impl_->ids.size());
    rows.hidden.resize(tokens.size() * static_cast<size_t>(spec.d_model));
    check(impl_->rows->add(tokens, hidden, rows.logits, rows.hidden));
    return rows;
  });
}

void DraftHead::rewind(int n_rows) {
  entry([&] {
    const OneCall call(impl_->is_in_use);
    if (n_rows < 0 || n_rows > impl_->rows->n_rows()) {
      raise(Code::kInvalidArgument, "n_rows is " + std::to_string(n_rows) + " and there are " +
                                        std::to_string(impl_->rows->n_rows()));
    }
    impl_->rows->rewind(n_rows);
  });
}

}  // namespace edgellm
