// Speculation of sessions: docs/SPECULATION.md.
#include <algorithm>
#include <array>
#include <mutex>
#include <optional>
#include <string>

#include "api/guard.h"
#include "api/impl.h"
#include "api/with_session.h"
#include "base/cpu_info.h"
#include "base/os.h"
#include "kernels/kernels.h"
#include "kernels/kv_slot.h"
#include "speculation/chosen_drafters.h"
#include "speculation/cost_file.h"

namespace edgellm {
namespace {

using edge::Code;
using edge::Result;
using edge::Status;

constexpr int kSequences = 8;  // at the same time, that have all the memory they can use
// Unasked, drafts take so little of the memory that no text is missed that would fit without.
constexpr uint64_t kMostShare = 8;

// Where step times stay from one process to the next; "": nowhere.
std::string costs_directory() {
  const std::string cache = edge::user_cache_dir();
  return cache.empty() ? "" : cache + "/steps";
}

std::string costs_key(const ModelInfo& info) {
  const std::string device = info.backend == "cpu" ? "" : info.backend + '\n';
  return device + edge::cpu_id() + '\n' + std::string(edge::isa_name(edge::active_kernels().isa)) +
         '\n' + std::to_string(info.n_threads) + '\n' + info.root;
}

}  // namespace

// Reads nothing but what stays until the sessions are gone, so it needs no turn.
Status Model::Impl::move_slot(const edge::KvView& view, int from, int to) {
  for (const edge::KvLayerLayout& layer : kv_layout.layers) {
    std::byte* const* pages = view.tables[layer.group].pages;
    if (layer.state_cols > 0) {
      std::copy_n(layer.state_row(pages[from / edge::kPageTokens], from), layer.state_cols,
                  layer.state_row(pages[to / edge::kPageTokens], to));
    }
    for (int kv_head = 0; kv_head < layer.n_kv_heads; ++kv_head) {
      edge::move_slot(layer.slot(pages[from / edge::kPageTokens], from, kv_head),
                      layer.slot(pages[to / edge::kPageTokens], to, kv_head));
    }
  }
  return {};
}

bool Model::Impl::has_own_first_pages() const {
  return std::ranges::any_of(kv_layout.layers, [](const edge::KvLayerLayout& layer) {
    return layer.has_own_first_pages();
  });
}

Result<std::unique_ptr<edge::DraftSource>> Model::Impl::draft_source() {
  const std::lock_guard lock(drafts_mutex);
  if (drafts == nullptr) {
    EDGE_RETURN_IF_ERROR(edge::chosen_drafters().status());
    EDGE_ASSIGN_OR_RETURN(const uint64_t head_bytes, prepare_head(kSequences));
    uint64_t more_bytes = 0;
    EDGE_ASSIGN_OR_RETURN(const uint64_t small_bytes, prepare_small_models(more_bytes));
    const size_t all_bytes = edge::SharedSpeculation::memory_for(info.file_bytes);
    const edge::SpeculationOptions shared{
        .memory_bytes = all_bytes - std::min<size_t>(head_bytes, all_bytes / 2),
        .n_vocab = spec.n_vocab,
        .max_sequences = kSequences};
    // The other half is the sequences', which claim it themselves.
    EDGE_RETURN_IF_ERROR(tree->with_room([&] {
      return cache->claim(shared.memory_bytes / 2 + head_bytes + small_bytes,
                          "what sessions draft from");
    }));
    edge::ModelDrafts::Options options{.shared = shared,
                                       .budget_ms = latency_budget_ms,
                                       .ignores_time = speculate == Speculate::kAlways,
                                       .more_bytes = more_bytes};
    if (draft_head || !small_models.empty()) {
      options.add_more = [this](edge::SequenceSpeculation& sequence) {
        if (draft_head) {
          if (auto drafter = head_drafter(sequence.acceptance())) sequence.add(std::move(drafter));
        }
        add_small_drafters(sequence);
      };
    }
    std::optional<edge::CostTable> costs;
    if (const std::string at = costs_directory(); !options.ignores_time && !at.empty()) {
      costs = edge::load_costs(at, costs_key(info));
    }
    drafts = std::make_unique<edge::ModelDrafts>(options, costs.value_or(edge::CostTable()));
  }
  return drafts->source();
}

bool Model::Impl::has_memory_to_spare() const {
  const uint64_t reserved = cache->figures().reserved_bytes;
  const uint64_t free = kv_budget_bytes - std::min(kv_budget_bytes, reserved);
  return free / kMostShare >= edge::SharedSpeculation::memory_for(info.file_bytes);
}

void Model::Impl::keep_costs() {
  const std::lock_guard lock(drafts_mutex);
  const std::string at = costs_directory();
  if (drafts == nullptr || speculate == Speculate::kAlways || at.empty()) return;
  edge::save_costs(at, costs_key(info), drafts->costs());
}

Status Session::Impl::set_speculation(bool is_on) {
  edge::Session& inner = open_session();
  if (is_on == inner.has_drafts()) return {};
  if (!is_on) return inner.set_drafts(nullptr);
  if (!name_space.empty()) {
    return {Code::kFeatureUnsupported,
            "a session with a name space cannot speculate: it would learn from the texts of others "
            "and they from its own, which a name space is to prevent"};
  }
  EDGE_ASSIGN_OR_RETURN(std::unique_ptr<edge::DraftSource> source, model->draft_source());
  return inner.set_drafts(std::move(source));
}

void Session::Impl::begin_speculation() {
  const bool is_apart = !name_space.empty() || !reuses_prefix;
  if (model->speculate == Speculate::kOff || is_apart || model->spec.headless) return;
  const bool may_be_without = model->speculate == Speculate::kAuto;
  if (may_be_without && !model->has_memory_to_spare()) return;
  const Status status = set_speculation(true);
  if (status.code() == Code::kMemoryBudget && may_be_without) return;
  edge::api::check(status);
}

void Session::set_speculation(bool is_on) {
  with_session(impl_, [&](edge::Session&) { edge::api::check(impl_->set_speculation(is_on)); });
}

}  // namespace edgellm
