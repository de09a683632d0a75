// What the handles of engine.h point to. Lifetimes: a Session holds its Model, a Model and its
// Tokenizers hold the mapped file.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "api/fork_guard.h"
#include "backends/step_graphs.h"
#include "base/turn.h"
#include "edgellm/engine.h"
#include "format/edge_file.h"
#include "format/verifier.h"
#include "model/adapter.h"
#include "model/decoder.h"
#include "model/draft_head.h"
#include "model/spec.h"
#include "model/weights.h"
#include "runtime/batcher.h"
#include "runtime/kv_cache.h"
#include "runtime/kv_disk.h"
#include "runtime/model_drafts.h"
#include "runtime/prefix_tree.h"
#include "runtime/session.h"
#include "runtime/session_file.h"
#include "runtime/step_model.h"
#include "tokenizer/tokenizer.h"

namespace edgellm {

// The logical bytes of an opaque blob; what is stored may be padded.
inline std::span<const std::byte> blob_bytes(const edge::Tensor& tensor) {
  const size_t n_logical = static_cast<size_t>(tensor.n_rows) * static_cast<size_t>(tensor.n_cols);
  return {tensor.data, std::min(n_logical, tensor.n_bytes)};
}

struct EdgeFile::Impl {
  std::shared_ptr<const edge::EdgeFile> file;
};

struct SessionFile::Impl {
  std::shared_ptr<const edge::SessionFile> file;
  std::string note;
};

struct Tokenizer::Impl {
  std::shared_ptr<const edge::EdgeFile> file;  // owner of the blob, or
  std::string bytes;                           // the blob itself
  std::unique_ptr<edge::Tokenizer> tokenizer;
};

struct StreamDecoder::Impl {
  std::shared_ptr<const Tokenizer::Impl> tokenizer;
  edge::StreamDecoder decoder;
};

struct SmallModel;  // api/draft_model.cc

// The parts of an open model; close() drops all but info, spec and cache.
struct Model::Impl final : edge::StepModel, edge::api::ForkAware {
  ModelInfo info;
  std::shared_ptr<const Tokenizer::Impl> tokenizer;  // null: the file has none
  std::shared_ptr<const edge::EdgeFile> file;
  edge::ModelSpec spec;
  edge::Weights weights;
  edge::KvLayout kv_layout;
  std::unique_ptr<edge::Verifier> verifier;
  bool gives_top = false;  // as Decoder::has_top()
  int n_ctx_most = 0;      // of a session
  int n_ctx_planned = 0;   // of the decoder
  uint64_t kv_budget_bytes = 0;
  std::unique_ptr<edge::Stepper> decoder;        // null once closed
  std::optional<edge::GraphFacts> graph_facts;   // of layers that run as graphs
  std::unique_ptr<edge::StepGraphs> graphs;      // opened, until the decoder has them
  std::unique_ptr<edge::DraftHead> draft_head;   // null: the file has none; outlives close()
  std::unique_ptr<edge::Decoder> draft_decoder;  // once it is asked for
  std::optional<edge::KvCache> cache;    // outlives close(): sessions give their pages back to it
  std::unique_ptr<edge::KvDisk> disk;    // below the tree; null: none
  std::optional<edge::PrefixTree> tree;  // of the cache; as it
  std::optional<edge::Batcher> batcher;  // as does this, which they leave

  mutable edge::Turn step_turn;  // held by a step, and while the parts above go away
  bool was_step_torn = false;    // by a fork(); guarded by step_turn
  std::atomic<bool> is_closing{false};
  std::mutex sessions_mutex;
  std::vector<std::weak_ptr<Session::Impl>> sessions;  // for close(): their KV pages go, too
  uint64_t adapter_scratch_bytes = 0;                  // claimed so far; under step_turn
  Speculate speculate = LoadOptions{}.speculate;
  double latency_budget_ms = 0;
  std::unique_ptr<edge::StepModel> head_model;  // of the sessions' heads, once one drafts
  std::optional<edge::KvCache> head_cache;      // their keys and values
  std::mutex drafts_mutex;                      // of the pointers
  std::shared_ptr<Impl> draft_model;            // that guesses; null: none
  edge::ModelSpec exit_spec;                    // of the layers that guess; none: they do not
  edge::Weights exit_weights;                   // theirs
  std::unique_ptr<edge::Decoder> exit_decoder;  // once it is asked for; under step_turn
  // What has models of its own to draft with, once a session drafts.
  std::vector<std::shared_ptr<SmallModel>> small_models;
  std::unique_ptr<edge::ModelDrafts> drafts;      // null: no session has drafted yet
  std::optional<edge::SessionIdentity> identity;  // once asked for; under step_turn

  ~Impl() override;
  int n_vocab() const override { return spec.n_vocab; }
  int d_model() const override { return spec.d_model; }
  bool has_head() const override { return !spec.headless; }
  bool has_top() const override { return gives_top; }
  int max_rows() const override { return edge::Decoder::kMaxRows; }
  int n_kv_heads() const override;
  int max_positions() const override { return n_ctx_most; }
  edge::Status turn_keys(const edge::KvSlotRange& slots, int n_positions) override;
  edge::Status keep_slots(const edge::KvView& view,
                          std::span<const std::vector<int32_t>> kept) override;
  bool has_own_first_pages() const override;
  int most_drafts() const override;
  bool has_draft_trees() const override { return !graph_facts; }
  edge::Status move_slot(const edge::KvView& view, int from, int to) override;
  edge::Status step(std::span<const edge::RowInput> rows, const edge::StepOutputs& outputs,
                    const edge::StopCheck& should_stop) override;
  void before_fork() override;
  void after_fork(bool is_child) override;
  edge::KvFormat kv_format = edge::KvFormat::kF16;
  edge::Status make_decoder();
  edge::Status load_weights(edge::Backend& backend);  // on a device
  edge::Status open_graphs(const LoadOptions& options);
  void plan_graph_context(int n_ctx);
  bool goes_on_behind_graphs() const;
  bool has_host_part() const;  // that steps in graphs leave to the CPU
  edge::Status make_graph_decoder();
  edge::Result<size_t> steps_bytes() const;  // scratch that make_decoder() takes
  edge::PageBuffer::Allocate page_allocator =
      edge::PageBuffer::allocate;  // of the decoder's backend
  edge::Status make_draft_decoder();
  edge::Status check_step();  // that one can run; under step_turn
  edge::Status draft_step(std::span<const edge::RowInput> rows, const edge::StepOutputs& outputs,
                          const edge::StopCheck& should_stop);
  void check_open() const;  // throws invalid_argument once closed
  // What the KV of a sequence with this adapter (null: none) depends on.
  edge::SessionIdentity identity_with(const Adapter::Impl* adapter);
  edge::Status open_disk(const LoadOptions& options);
  // For a session; memory_budget.
  edge::Result<std::unique_ptr<edge::DraftSource>> draft_source();
  bool has_memory_to_spare() const;  // for a draft_source() that nobody asked for
  void keep_costs();                 // of steps, for the next process
  // Memory of the head for so many sequences; 0 without a head.
  edge::Result<uint64_t> prepare_head(int n_sequences);
  // Before the memory is checked; throws invalid_argument.
  void take_draft_options(const LoadOptions& options);
  // That the draft model's ids mean the same; throws draft_mismatch.
  void check_draft_tokens() const;
  // As prepare_head(): what all sequences together take of small models. `each`: of each besides.
  edge::Result<uint64_t> prepare_small_models(uint64_t& each);
  void add_small_drafters(edge::SequenceSpeculation& drafts);
  edge::Status exit_step(std::span<const edge::RowInput> rows, const edge::StepOutputs& outputs,
                         const edge::StopCheck& should_stop);
  // Null where there is no memory for one more. After prepare_head().
  std::unique_ptr<edge::Drafter> head_drafter(const edge::Acceptance& acceptance);
};

struct Adapter::Impl {
  std::shared_ptr<Model::Impl> model;
  std::shared_ptr<const edge::EdgeFile> file;
  edge::Adapter adapter;
  AdapterInfo info;
  uint64_t claimed_bytes = 0;

  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl();
};

// `adapter` as a session of `owner` may use it; throws invalid_argument if it is another model's.
std::shared_ptr<const Adapter::Impl> checked_adapter(const std::optional<Adapter>& adapter,
                                                     const std::shared_ptr<Model::Impl>& owner);

struct Session::Impl {
  std::shared_ptr<Model::Impl> model;
  std::shared_ptr<const Adapter::Impl> adapter;  // null: none
  std::shared_ptr<std::atomic<bool>> cancel_flag;
  edge::Turn turn;                         // everything but the flag
  std::unique_ptr<edge::Session> session;  // null once closed
  std::string name_space;                  // of PrefixReuse, as
  bool reuses_prefix = true;               // this

  std::string prefix_key() const;
  edge::Status set_speculation(bool is_on);  // under `turn`
  void begin_speculation();                  // as the model was loaded to; of a new session
  void take_back();                          // in the child of a fork()
  edge::Session& open_session() const;       // throws invalid_argument once closed; under `turn`
};

}  // namespace edgellm
