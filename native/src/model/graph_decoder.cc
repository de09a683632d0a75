#include "model/graph_decoder.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/os.h"
#include "kernels/attention.h"
#include "kernels/kv_slot.h"

namespace edge {
namespace {

Status lacks(const char* what) {
  return {Code::kFeatureUnsupported,
          "the backend 'npu' has no " + std::string(what) + "; load the model with backend 'cpu'"};
}

bool stands_behind(const RowInput& row, const RowInput& before) {
  return row.kv.tables == before.kv.tables && row.slot == before.slot + 1;
}

bool is_plain(const RowInput& row) {
  return row.tail.empty() && row.adapter == nullptr && row.position == row.slot;
}

}  // namespace

// Which of the rows to come are wanted, and where.
class GraphDecoder::Handout {
 public:
  explicit Handout(const StepOutputs& outputs) : outputs_(outputs) {}
  // Of the next n_rows rows of the step: their indices among them and where they go.
  StepOutputs take(int n_rows) {
    rows_.clear();
    const size_t first = n_taken_;
    while (n_taken_ < outputs_.rows.size() && outputs_.rows[n_taken_] < n_past_rows_ + n_rows) {
      rows_.push_back(outputs_.rows[n_taken_++] - n_past_rows_);
    }
    n_past_rows_ += n_rows;
    return {.rows = rows_, .logits = outputs_.logits.subspan(first, rows_.size())};
  }

 private:
  const StepOutputs& outputs_;
  int32_t n_past_rows_ = 0;
  size_t n_taken_ = 0;
  std::vector<int32_t> rows_;
};

Status GraphDecoder::check(const GraphFacts& facts, const ModelSpec& spec) {
  if (spec.headless) return lacks("models that were saved without their head");
  const bool is_same_size = facts.n_vocab == spec.n_vocab && facts.d_model == spec.d_model &&
                            facts.layers.size() == spec.layers.size();
  if (!is_same_size) {
    return {Code::kTensorShape,
            "the graphs are of another model: " + std::to_string(facts.layers.size()) +
                " layers of " + std::to_string(facts.d_model) + " and " +
                std::to_string(facts.n_vocab) + " tokens; convert again"};
  }
  for (size_t l = 0; l < spec.layers.size(); ++l) {
    const LayerSpec& layer = spec.layers[l];
    const GraphLayer& graph = facts.layers[l];
    if (layer.rotate_keys || layer.balance_keys) return lacks("keys that are stored mixed");
    if (layer.mixer != Mixer::kGqa) return lacks("layers without attention");
    if (graph.n_kv_heads != layer.n_kv_heads || graph.head_dim != layer.head_dim ||
        graph.window != layer.window) {
      return {Code::kTensorShape, "the graphs are of another model: layer " + std::to_string(l) +
                                      " has other heads or another window; convert again"};
    }
  }
  return {};
}

GraphDecoder::GraphDecoder(const ModelSpec& spec, KvFormat kv_format, const KernelTable& kernels,
                           std::unique_ptr<StepGraphs> graphs, std::unique_ptr<Decoder> host)
    : spec_(spec),
      kv_(spec.kv_layout(kv_format)),
      kernels_(kernels),
      graphs_(std::move(graphs)),
      host_(std::move(host)),
      process_(process_id()) {
  int widest = 0;
  for (const LayerSpec& layer : spec.layers) widest = std::max(widest, layer.head_dim);
  key_.resize(static_cast<size_t>(widest));
  value_.resize(static_cast<size_t>(widest));
}

size_t GraphDecoder::scratch_bytes() const {
  return graphs_->facts().n_bytes + (host_ != nullptr ? host_->scratch_bytes() : 0);
}

Status GraphDecoder::turn_keys(const KvSlotRange&, int) {
  return lacks("contexts that are shifted");
}

Status GraphDecoder::keep_slots(const KvView&, std::span<const std::vector<int32_t>>) {
  return lacks("contexts that are compressed");
}

Status GraphDecoder::prepare_adapters() { return lacks("adapters"); }

Status GraphDecoder::step(std::span<const RowInput> rows, const StepOutputs& outputs,
                          const StopCheck& should_stop) {
  if (process_id() != process_) {
    return {Code::kDeviceFailed,
            "graphs do not survive a fork(): load the model in the child process"};
  }
  if (!outputs.hidden_rows.empty() || !outputs.row_hidden.empty()) return lacks("hidden states");
  if (outputs.shares != nullptr) return lacks("shares of attention");
  if (!std::ranges::all_of(rows, is_plain)) return lacks("rows with adapters, trees or shifts");
  Handout handout(outputs);
  while (!rows.empty()) {
    const std::span<const RowInput> first = rows.first(n_at_once(rows));
    if (is_in_graphs(first.front())) {
      EDGE_RETURN_IF_ERROR(run_sequence(first, handout, should_stop));
    } else {
      const StepOutputs wanted = handout.take(static_cast<int>(first.size()));
      EDGE_RETURN_IF_ERROR(host_->step(first, wanted, should_stop));
    }
    rows = rows.subspan(first.size());
  }
  return {};
}

bool GraphDecoder::is_in_graphs(const RowInput& row) const {
  return row.slot < graphs_->facts().capacity;
}

// Graphs take rows of one sequence, one behind the other; the host any.
size_t GraphDecoder::n_at_once(std::span<const RowInput> rows) const {
  const bool in_graphs = is_in_graphs(rows.front());
  size_t n = 1;
  while (n < rows.size() && is_in_graphs(rows[n]) == in_graphs &&
         (!in_graphs || stands_behind(rows[n], rows[n - 1]))) {
    ++n;
  }
  return n;
}

Status GraphDecoder::run_sequence(std::span<const RowInput> rows, Handout& handout,
                                  const StopCheck& should_stop) {
  const int buffer = buffer_of(rows.front().kv, rows.front().slot);
  Past& past = pasts_[static_cast<size_t>(buffer)];
  std::vector<int32_t> ids;
  for (const RowInput& row : rows) ids.push_back(row.token);
  EDGE_ASSIGN_OR_RETURN(const std::vector<float> x, embedded(rows));
  for (size_t done = 0; done < rows.size();) {
    if (should_stop && should_stop()) {
      return {Code::kCancelled, "cancelled between two graphs of a step"};
    }
    const float* const own_x =
        x.empty() ? nullptr : x.data() + done * static_cast<size_t>(spec_.d_model);
    EDGE_ASSIGN_OR_RETURN(const int n, graphs_->run({.buffer = buffer,
                                                     .n_before = rows[done].slot,
                                                     .ids = std::span(ids).subspan(done),
                                                     .x = own_x}));
    const std::span<const RowInput> run = rows.subspan(done, static_cast<size_t>(n));
    EDGE_RETURN_IF_ERROR(store_rows(buffer, run));
    EDGE_RETURN_IF_ERROR(hand_out(run, handout));
    past.n_slots = run.back().slot + 1;
    done += run.size();
  }
  return {};
}

Result<std::vector<float>> GraphDecoder::embedded(std::span<const RowInput> rows) {
  std::vector<float> x;
  if (graphs_->facts().has_embedding) return x;
  x.resize(rows.size() * static_cast<size_t>(spec_.d_model));
  EDGE_RETURN_IF_ERROR(host_->embed(rows, x));
  return x;
}

Status GraphDecoder::hand_out(std::span<const RowInput> rows, Handout& handout) {
  const StepOutputs wanted = handout.take(static_cast<int>(rows.size()));
  if (!graphs_->facts().has_head) return host_->head(rows, graphs_->output(0), wanted);
  for (size_t i = 0; i < wanted.rows.size(); ++i) {
    std::copy_n(graphs_->output(wanted.rows[i]), spec_.n_vocab, wanted.logits[i]);
  }
  return {};
}

// The one that holds the first n_before slots of this sequence, from now on at least.
int GraphDecoder::buffer_of(const KvView& kv, int n_before) {
  auto found = std::ranges::find_if(
      pasts_, [&](const Past& past) { return kv.stamp != 0 && past.stamp == kv.stamp; });
  if (found == pasts_.end()) {
    found = std::ranges::min_element(pasts_, {}, &Past::last_use);
    *found = {.stamp = kv.stamp};
  }
  const auto buffer = static_cast<int>(found - pasts_.begin());
  if (found->n_slots < n_before) load_pages(buffer, kv, found->n_slots, n_before);
  found->n_slots = n_before;  // those behind are about to change
  found->last_use = ++n_uses_;
  return buffer;
}

// Slots [first, end); those whose pages no row sees any more are masked for graphs, too.
void GraphDecoder::load_pages(int buffer, const KvView& kv, int first, int end) {
  for (size_t l = 0; l < kv_.layers.size(); ++l) {
    const KvLayerLayout& layer = kv_.layers[l];
    std::byte* const* pages = kv.tables[layer.group].pages;
    for (int slot = first; slot < end; ++slot) {
      std::byte* const page = pages[slot / kPageTokens];
      if (page == nullptr) continue;
      for (int head = 0; head < layer.n_kv_heads; ++head) {
        const KvSlot from = layer.slot(page, slot, head);
        load_key(from, key_.data());
        load_value(from, value_.data());
        graphs_->store_past(buffer, {static_cast<int>(l), head, slot}, key_.data(), value_.data());
      }
    }
  }
}

Status GraphDecoder::store_rows(int buffer, std::span<const RowInput> rows) {
  for (size_t l = 0; l < kv_.layers.size(); ++l) {
    for (int head = 0; head < kv_.layers[l].n_kv_heads; ++head) {
      for (size_t i = 0; i < rows.size(); ++i) {
        const GraphRow at{static_cast<int>(l), head, static_cast<int>(i)};
        EDGE_RETURN_IF_ERROR(store_row(buffer, rows[i], at));
      }
    }
  }
  return {};
}

Status GraphDecoder::store_row(int buffer, const RowInput& row, GraphRow at) {
  const KvLayerLayout& layer = kv_.layers[static_cast<size_t>(at.layer)];
  const int page_number = row.slot / kPageTokens;
  std::byte* const page = row.kv.tables[layer.group].pages[page_number];
  const KvSlot to = layer.slot(page, row.slot, at.kv_head);
  graphs_->load_new(at, key_.data(), value_.data());
  const bool is_finite = kernels_.attention->store_key(to, key_.data()) &&
                         kernels_.attention->store_value(to, value_.data());
  if (!is_finite) {
    return {Code::kNumeric, "a key or value of layer " + std::to_string(at.layer) +
                                " is not finite at token " + std::to_string(row.position)};
  }
  if (graphs_->facts().is_half && layer.format_of(page_number) == KvFormat::kF16) return {};
  load_key(to, key_.data());
  load_value(to, value_.data());
  graphs_->store_past(buffer, {at.layer, at.kv_head, row.slot}, key_.data(), value_.data());
  return {};
}

}  // namespace edge
