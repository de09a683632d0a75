// Models whose layers run as graphs on an NPU: what load() does besides (backends/step_graphs.h).
#include <algorithm>
#include <string>

#include "api/impl.h"
#include "backends/cpu/cpu_backend.h"
#include "backends/step_graphs.h"
#include "base/sha256.h"
#include "kernels/kernels.h"
#include "model/graph_decoder.h"

namespace edgellm {

using edge::Code;
using edge::Status;

// Before the memory is checked, which the graphs then take in make_graph_decoder().
Status Model::Impl::open_graphs(const LoadOptions& options) {
  if (kv_format != edge::KvFormat::kF16) {
    return {Code::kFeatureUnsupported,
            "graphs keep keys and values of 16 bits, and so have sessions to, or guesses and the "
            "way a text is cut would change it; load with KV format F16"};
  }
  edge::GraphSettings settings(options.npu.begin(), options.npu.end());
  settings.emplace_back("threads", std::to_string(options.n_threads));
  EDGE_ASSIGN_OR_RETURN(graphs, edge::open_step_graphs(settings));
  graph_facts = graphs->facts();
  EDGE_RETURN_IF_ERROR(edge::GraphDecoder::check(*graph_facts, spec));
  draft_head.reset();  // it reads hidden states, which graphs do not give
  const edge::TensorEntry* entry = file->find("tokenizer");
  if (entry == nullptr || graph_facts->tokenizer_sha256.empty()) return {};
  const std::string own = edge::to_hex(edge::sha256(blob_bytes(entry->tensor)));
  if (own == graph_facts->tokenizer_sha256) return {};
  return {Code::kTensorShape,
          "the graphs are of another model: they were made with another tokenizer; convert again"};
}

// n_ctx: of load(). The rotary table is the graphs', on the CPU behind them, too.
void Model::Impl::plan_graph_context(int n_ctx) {
  n_ctx_planned = std::min(spec.n_ctx_train, graph_facts->capacity);
  n_ctx_most = std::clamp(n_ctx, n_ctx_planned, spec.n_ctx_train);
}

bool Model::Impl::goes_on_behind_graphs() const {
  return graph_facts && n_ctx_most > graph_facts->capacity;
}

bool Model::Impl::has_host_part() const {
  return !graph_facts->has_embedding || !graph_facts->has_head || goes_on_behind_graphs();
}

edge::Result<size_t> Model::Impl::steps_bytes() const {
  size_t n_bytes = 0;
  if (!graph_facts || has_host_part()) {
    EDGE_ASSIGN_OR_RETURN(n_bytes, edge::Decoder::scratch_bytes_of(spec, weights));
  }
  return n_bytes + (graph_facts ? graph_facts->n_bytes : 0);
}

Status Model::Impl::make_graph_decoder() {
  if (graphs == nullptr) {
    return {Code::kDeviceFailed,
            "graphs do not survive a fork(): load the model in the child process"};
  }
  EDGE_RETURN_IF_ERROR(graphs->start());
  std::unique_ptr<edge::Decoder> host;
  if (has_host_part()) {
    auto made = edge::Decoder::create(
        spec, weights, edge::create_cpu_backend(edge::active_kernels(), info.n_threads),
        n_ctx_planned, kv_format);
    EDGE_RETURN_IF_ERROR(made.status());
    host = made.take();
  }
  decoder = std::make_unique<edge::GraphDecoder>(spec, kv_format, edge::active_kernels(),
                                                 std::move(graphs), std::move(host));
  return {};
}

int Model::Impl::most_drafts() const {
  return graph_facts ? graph_facts->draft_rows - 1 : StepModel::most_drafts();
}

}  // namespace edgellm
