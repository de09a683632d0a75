// Small models that draft for the sessions of another: one of a file of its own, or the first
// layers of the model itself with its head (early exit; LayerSkip, arXiv:2404.16710).
#include <algorithm>
#include <mutex>
#include <string>

#include "api/guard.h"
#include "api/impl.h"
#include "backends/cpu/cpu_backend.h"
#include "kernels/kernels.h"
#include "runtime/draft_rows.h"
#include "runtime/model_drafter.h"

namespace edgellm {

using edge::Code;
using edge::DrafterKind;
using edge::Result;
using edge::Status;
using edge::api::raise;

namespace {

constexpr int kMostTokens = 1024;  // that a small model goes back in a text
constexpr int kFewestTokens = 64;  // of a context that is worth drafting with

// The first layers of a model as something that takes steps, in turn with those of the whole.
class ExitModel final : public edge::StepModel {
 public:
  explicit ExitModel(Model::Impl& owner) : owner_(owner) {}
  int n_vocab() const override { return owner_.spec.n_vocab; }
  int d_model() const override { return owner_.spec.d_model; }
  int max_rows() const override { return edge::Decoder::kMaxRows; }
  Status step(std::span<const edge::RowInput> rows, const edge::StepOutputs& outputs,
              const edge::StopCheck& should_stop) override {
    return owner_.exit_step(rows, outputs, should_stop);
  }

 private:
  Model::Impl& owner_;
};

[[noreturn]] void refuse_tokens(const std::string& what) {
  raise(Code::kDraftMismatch, "the draft model's tokens are not this model's: " + what +
                                  "; use a draft model with the same tokenizer");
}

std::string of_token(const edge::Tokenizer& tokenizer, int32_t id) {
  const Result<std::string> text = tokenizer.token_text(id);
  return "'" + (text.is_ok() ? sanitize(text.value()) : "") + "'" +
         (tokenizer.is_special(id) ? " (special)" : "");
}

// What a model says of an id is of no use where the other means another text by it. How texts are
// cut into tokens does not matter: only one of them does that.
void check_same_tokens(const edge::Tokenizer& own, const edge::Tokenizer& draft) {
  if (own.n_vocab() != draft.n_vocab()) {
    refuse_tokens("it has " + std::to_string(draft.n_vocab()) + " of them, and this model " +
                  std::to_string(own.n_vocab()));
  }
  for (int32_t id = 0; id < own.n_vocab(); ++id) {
    const Result<std::string> a = own.token_text(id), b = draft.token_text(id);
    const bool is_same = a.is_ok() == b.is_ok() && own.is_special(id) == draft.is_special(id) &&
                         (!a.is_ok() || a.value() == b.value());
    if (is_same) continue;
    refuse_tokens("token " + std::to_string(id) + " is " + of_token(draft, id) + " there and " +
                  of_token(own, id) + " here");
  }
}

bool is_same_blob(const edge::EdgeFile& a, const edge::EdgeFile& b) {
  const auto of = [](const edge::EdgeFile& file) {
    return blob_bytes(file.find("tokenizer")->tensor);
  };
  return std::ranges::equal(of(a), of(b));
}

}  // namespace

struct SmallModel {
  DrafterKind kind;
  std::shared_ptr<edge::StepModel> model;
  int n_ids;
  int n_ctx;
  edge::KvCache cache;

  SmallModel(DrafterKind its_kind, std::shared_ptr<edge::StepModel> its_model, int n_common,
             int n_most, std::span<const edge::KvGroup> groups,
             const edge::PageBuffer::Allocate& allocator = edge::PageBuffer::allocate)
      : kind(its_kind),
        model(std::move(its_model)),
        n_ids(n_common),
        n_ctx(std::min(n_most, kMostTokens)),
        cache(groups, UINT64_MAX / 2, allocator) {
  }  // sessions claim what they take of their model's
  uint64_t bytes() const { return edge::kv_bytes_for(cache.groups(), n_ctx); }
};

void Model::Impl::take_draft_options(const LoadOptions& options) {
  const auto n_layers = static_cast<int>(spec.layers.size());
  if (options.draft_layers < 0 || options.draft_layers >= n_layers) {
    raise(Code::kInvalidArgument, "draft_layers is " + std::to_string(options.draft_layers) +
                                      "; it must be below the " + std::to_string(n_layers) +
                                      " layers of the model, or 0 for no early exit");
  }
  const bool drafts_at_all = options.draft_layers > 0 || options.draft_model != nullptr;
  if (drafts_at_all && spec.headless) {
    raise(Code::kInvalidArgument, "this model has no head: there is nothing to draft for");
  }
  if (options.draft_layers > 0) {
    exit_spec = spec;
    exit_spec.layers.resize(static_cast<size_t>(options.draft_layers));
    exit_weights = weights;
    exit_weights.layers.resize(exit_spec.layers.size());
  }
  if (options.draft_model == nullptr) return;
  draft_model = options.draft_model->impl();
  draft_model->check_open();
  if (draft_model->spec.headless || draft_model->n_ctx_most < kFewestTokens) {
    raise(Code::kDraftMismatch,
          draft_model->spec.headless
              ? "the draft model has no head; use one that generates text"
              : "the draft model has a context of " + std::to_string(draft_model->n_ctx_most) +
                    " tokens, which are too few to draft with; use another one");
  }
}

void Model::Impl::check_draft_tokens() const {
  if (draft_model == nullptr) return;
  const std::lock_guard lock(draft_model->step_turn);
  draft_model->check_open();
  const Tokenizer::Impl* const own = tokenizer.get();
  const Tokenizer::Impl* const draft = draft_model->tokenizer.get();
  if (own == nullptr && draft == nullptr) {  // ids are all that is known of their tokens
    if (spec.n_vocab == draft_model->spec.n_vocab) return;
    refuse_tokens("it has " + std::to_string(draft_model->spec.n_vocab) +
                  " ids and no tokenizer, and this model " + std::to_string(spec.n_vocab));
  }
  if (own == nullptr || draft == nullptr) {
    refuse_tokens(own == nullptr ? "this model has no tokenizer" : "it has no tokenizer");
  }
  if (is_same_blob(*file, *draft_model->file)) return;
  check_same_tokens(*own->tokenizer, *draft->tokenizer);
}

Status Model::Impl::exit_step(std::span<const edge::RowInput> rows,
                              const edge::StepOutputs& outputs,
                              const edge::StopCheck& should_stop) {
  const std::lock_guard lock(step_turn);
  EDGE_RETURN_IF_ERROR(check_step());
  if (!exit_decoder) {
    auto made = edge::Decoder::create(
        exit_spec, exit_weights, edge::create_cpu_backend(edge::active_kernels(), info.n_threads),
        n_ctx_planned, edge::kDraftKvFormat);
    EDGE_RETURN_IF_ERROR(made.status());
    exit_decoder = made.take();
  }
  return exit_decoder->step(rows, outputs,
                            [&] { return is_closing || (should_stop && should_stop()); });
}

Result<uint64_t> Model::Impl::prepare_small_models(uint64_t& each) {
  uint64_t scratch_bytes = 0;
  small_models.clear();
  if (!exit_spec.layers.empty()) {
    EDGE_ASSIGN_OR_RETURN(scratch_bytes, edge::Decoder::scratch_bytes_of(exit_spec, exit_weights));
    small_models.push_back(std::make_shared<SmallModel>(
        DrafterKind::kExit, std::make_shared<ExitModel>(*this), spec.n_vocab, n_ctx_most,
        exit_spec.kv_layout(edge::kDraftKvFormat).groups));
  }
  if (draft_model != nullptr) {
    const int n_common = tokenizer ? tokenizer->tokenizer->n_vocab() : spec.n_vocab;
    small_models.push_back(std::make_shared<SmallModel>(
        DrafterKind::kExternal, draft_model, n_common, draft_model->n_ctx_most,
        draft_model->kv_layout.groups, draft_model->page_allocator));
  }
  each = 0;
  for (const auto& small : small_models) each += small->bytes();
  return scratch_bytes;
}

void Model::Impl::add_small_drafters(edge::SequenceSpeculation& sequence) {
  for (const auto& small : small_models) {
    auto rows = edge::DraftRows::create(*small->model, small->cache, small->n_ctx,
                                        edge::DraftRows::Of::kModel);
    if (!rows.is_ok()) continue;
    sequence.add(std::make_unique<edge::ModelDrafter>(small->kind, rows.take(), small->n_ids,
                                                      sequence.acceptance(), small->bytes()));
  }
}

}  // namespace edgellm
