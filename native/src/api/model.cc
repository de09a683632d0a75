// Loading: open, bind, check the memory, then verify. No weight is read before the memory check.
#include <algorithm>
#include <optional>
#include <string>

#include "api/fork_guard.h"
#include "api/guard.h"
#include "api/impl.h"
#include "backends/cpu/cpu_backend.h"
#include "backends/device_library.h"
#include "base/checked.h"
#include "base/os.h"
#include "base/page_drop.h"
#include "base/thread_pool.h"
#include "kernels/kernels.h"
#include "model/layer_split.h"
#include "runtime/mib_text.h"

namespace edgellm {
namespace {

using edge::Code;
using edge::Status;
using edge::api::check;
using edge::api::entry;
using edge::api::raise;
using edge::api::take_or_throw;

constexpr int kMaxThreads = 256;
constexpr const char* kGraphs = "npu";
constexpr uint64_t kIdleShare = 8;  // of the KV budget, for texts that no session holds

struct MemoryNeed {
  uint64_t file_bytes = 0;
  uint64_t scratch_bytes = 0;
  uint64_t session_bytes = 0;  // besides its KV
  uint64_t draft_bytes = 0;    // of the model that drafts
  uint64_t kv_bytes = 0;       // of n_ctx tokens
  int n_ctx = 0;
  std::span<const edge::KvGroup> kv_groups;
};

uint64_t saturating_sum(uint64_t a, uint64_t b) {
  return edge::checked_add(a, b).value_or(UINT64_MAX);
}

// What is left for KV under `limit_bytes`; kMemoryBudget if the need does not fit.
edge::Result<uint64_t> kv_budget(const MemoryNeed& need, uint64_t limit_bytes) {
  const uint64_t fixed_bytes =
      saturating_sum(saturating_sum(need.file_bytes, need.scratch_bytes), need.draft_bytes);
  const uint64_t besides_bytes = saturating_sum(fixed_bytes, need.session_bytes);
  const uint64_t total_bytes = saturating_sum(besides_bytes, need.kv_bytes);
  if (total_bytes <= limit_bytes) return limit_bytes - fixed_bytes;
  const uint64_t left_bytes = limit_bytes - std::min(besides_bytes, limit_bytes);
  const int n_ctx_fit = edge::fitting_n_ctx(need.kv_groups, left_bytes, need.n_ctx);
  const std::string advice = n_ctx_fit == 0
                                 ? "no context fits; use a smaller file, or free memory"
                                 : "the largest n_ctx that fits is " + std::to_string(n_ctx_fit) +
                                       "; use that, a smaller file, or free memory";
  const std::string drafting =
      need.draft_bytes == 0 ? "" : ", the draft model " + edge::mib_text(need.draft_bytes);
  return {Code::kMemoryBudget,
          "needs " + edge::mib_text(total_bytes) + " (file " + edge::mib_text(need.file_bytes) +
              ", scratch " + edge::mib_text(need.scratch_bytes) + drafting + ", logits " +
              edge::mib_text(need.session_bytes) + ", KV cache for " + std::to_string(need.n_ctx) +
              " tokens " + edge::mib_text(need.kv_bytes) + ") and " + edge::mib_text(limit_bytes) +
              " may be used; " + advice};
}

edge::VerifyMode verify_mode(Verify verify) {
  switch (verify) {
    case Verify::kAlways:
      return edge::VerifyMode::kAlways;
    case Verify::kNever:
      return edge::VerifyMode::kNever;
    case Verify::kOnce:
      break;
  }
  return edge::VerifyMode::kOnce;
}

void check_options(const LoadOptions& options) {
  if (options.n_threads < 0 || options.n_threads > kMaxThreads) {
    raise(Code::kInvalidArgument, "n_threads is " + std::to_string(options.n_threads) +
                                      "; it must be from 0 (default) to " +
                                      std::to_string(kMaxThreads));
  }
  if (options.backend != "cpu" && options.backend != kGraphs &&
      !edge::is_device_backend(options.backend)) {
    raise(Code::kBackendUnsupported, "backend '" + options.backend +
                                         "' is not available; this version has: cpu, cuda, "
                                         "cuda-fp8, metal, vulkan, npu");
  }
  if (options.n_ctx < 0) {
    raise(Code::kInvalidArgument,
          "n_ctx is " + std::to_string(options.n_ctx) + "; it must be 0 (one page) or more");
  }
  if (!(options.latency_budget_ms >= 0)) {
    raise(Code::kInvalidArgument, "latency_budget_ms must be 0 (twice a step) or more");
  }
}

void check_identity(const edge::EdgeFile& file, const std::string& header_sha256) {
  if (header_sha256.empty() || file.metadata("edgellm.header_sha256") == header_sha256) return;
  raise(Code::kSignatureDigest,
        file.path() + ": another file than was signed; nothing of it is used");
}

edge::KvFormat kv_format_from(const std::string& name) {
  std::string known;
  for (const auto& row : edge::kKvFormats) {
    if (name == row.name) return row.format;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  raise(Code::kFeatureUnsupported,
        "KV format '" + name + "' is not available; this version has: " + known);
}

void open_tokenizer(Model::Impl& model) {
  const edge::TensorEntry* entry = model.file->find("tokenizer");
  if (entry == nullptr) return;
  const auto tokenizer = std::make_shared<Tokenizer::Impl>();
  tokenizer->file = model.file;
  tokenizer->tokenizer = take_or_throw(edge::Tokenizer::create(blob_bytes(entry->tensor)));
  if (tokenizer->tokenizer->n_vocab() > model.spec.n_vocab) {
    raise(Code::kTokenizerInvalid,
          "the tokenizer has " + std::to_string(tokenizer->tokenizer->n_vocab()) +
              " tokens and the model " + std::to_string(model.spec.n_vocab));
  }
  model.tokenizer = tokenizer;
}

void fill_info(Model::Impl& model, const edge::KvLayout& kv) {
  ModelInfo& info = model.info;
  info.spec_json = model.file->metadata("edgellm.spec");
  info.metadata = model.file->all_metadata();
  info.root = model.file->root_hex();
  info.n_vocab = model.spec.n_vocab;
  info.d_model = model.spec.d_model;
  info.n_ctx_train = model.spec.n_ctx_train;
  if (model.graph_facts) info.n_ctx_train = model.n_ctx_most;
  if (model.goes_on_behind_graphs()) info.n_graph_tokens = model.graph_facts->capacity;
  info.bos_id = model.spec.bos_id;
  info.eos_ids = model.spec.eos_ids;
  for (const edge::KvGroup& group : kv.groups) {
    info.kv_groups.push_back({group.window, group.page_bytes / edge::kPageTokens,
                              edge::kFirstPages * (group.bytes_of(0) - group.page_bytes)});
    info.kv_bytes_per_token += group.page_bytes / edge::kPageTokens;
  }
  info.session_bytes = edge::Session::bytes_besides_kv(model);
  info.scratch_bytes = model.decoder->scratch_bytes();
  info.file_bytes = model.file->file_bytes();
}

void plan_context(Model::Impl& model, int n_ctx) {
  model.n_ctx_planned = n_ctx > 0 ? n_ctx : model.spec.n_ctx_train;
  model.n_ctx_most = model.spec.n_ctx_train;
  if (model.graph_facts) model.plan_graph_context(n_ctx);
  if (model.n_ctx_planned <= model.spec.n_ctx_original) {  // the rotary table for short contexts
    model.n_ctx_most = std::min(model.n_ctx_most, model.spec.n_ctx_original);
  }
}

uint64_t draft_bytes(const Model::Impl* draft) {
  if (draft == nullptr) return 0;
  return saturating_sum(draft->info.file_bytes, draft->info.scratch_bytes);
}

void load_into(Model::Impl& model, const std::string& path, LoadOptions options) {
  check_options(options);
  check(edge::active_isa().status());
  model.kv_format = kv_format_from(options.kv_format);
  model.info.kv_format = options.kv_format;
  if (options.n_threads == 0) options.n_threads = edge::default_n_threads();
  model.file = take_or_throw(edge::EdgeFile::open(path));
  check_identity(*model.file, options.header_sha256);
  if (edge::is_adapter_spec(model.file->metadata("edgellm.spec"))) {
    raise(
        Code::kSpecInvalid,
        "this is an adapter, not a model; load the model that it was trained on, then the adapter "
        "(edgellm run MODEL PROMPT --adapter FILE)");
  }
  model.spec = take_or_throw(edge::ModelSpec::from_json(model.file->metadata("edgellm.spec")));
  model.weights = take_or_throw(edge::Weights::bind(*model.file, model.spec));
  model.draft_head = take_or_throw(edge::DraftHead::open(*model.file, model.spec, model.weights));

  if (options.backend == kGraphs) check(model.open_graphs(options));
  plan_context(model, options.n_ctx);
  model.take_draft_options(options);

  const edge::KvLayout kv = model.spec.kv_layout(model.kv_format);
  const int n_ctx = options.n_ctx > 0 ? options.n_ctx : edge::kPageTokens;
  const uint64_t available = edge::memory_figures().available_bytes;
  const uint64_t limit =
      options.max_memory_bytes > 0 ? std::min(options.max_memory_bytes, available) : available;
  const MemoryNeed need{.file_bytes = model.file->file_bytes(),
                        .scratch_bytes = take_or_throw(model.steps_bytes()),
                        .session_bytes = edge::Session::bytes_besides_kv(model),
                        .draft_bytes = draft_bytes(model.draft_model.get()),
                        .kv_bytes = edge::kv_bytes_for(kv.groups, n_ctx),
                        .n_ctx = n_ctx,
                        .kv_groups = kv.groups};
  // Before scratch is taken and any weight is read.
  const uint64_t kv_budget_bytes = take_or_throw(kv_budget(need, limit));
  model.info.n_threads = options.n_threads;
  model.info.backend = options.backend;
  check(model.make_decoder());
  model.cache.emplace(kv.groups, kv_budget_bytes, model.page_allocator);
  model.kv_budget_bytes = kv_budget_bytes;
  model.batcher.emplace(model, options.latency_budget_ms);
  model.kv_layout = kv;
  model.speculate = options.speculate;
  model.latency_budget_ms = options.latency_budget_ms;

  model.verifier = take_or_throw(
      edge::Verifier::start(model.file, verify_mode(options.verify), options.n_threads));
  open_tokenizer(model);
  model.check_draft_tokens();
  fill_info(model, kv);
  check(model.open_disk(options));
  const uint64_t idle_bytes = options.prefix_cache_bytes == UINT64_MAX
                                  ? kv_budget_bytes / kIdleShare
                                  : options.prefix_cache_bytes;
  model.tree.emplace(*model.cache, idle_bytes, model.disk.get());
}

}  // namespace

Model::Impl::~Impl() {
  edge::api::forget_forks(*this);
  if (!is_closing) keep_costs();
}

Status Model::Impl::make_decoder() {
  if (graph_facts) return make_graph_decoder();
  std::unique_ptr<edge::Backend> backend =
      edge::create_cpu_backend(edge::active_kernels(), info.n_threads);
  if (info.backend != "cpu") {
    EDGE_ASSIGN_OR_RETURN(backend, edge::open_device_backend(info.backend, std::move(backend)));
    EDGE_RETURN_IF_ERROR(load_weights(*backend));
  }
  page_allocator = backend->page_allocator();
  auto made = edge::Decoder::create(spec, weights, std::move(backend), n_ctx_planned, kv_format);
  EDGE_RETURN_IF_ERROR(made.status());
  decoder = made.take();
  gives_top = decoder->has_top();
  return adapter_scratch_bytes > 0 ? decoder->prepare_adapters() : Status{};
}

// As many layers as there is room for beside the KV of the context that was asked for.
Status Model::Impl::load_weights(edge::Backend& backend) {
  EDGE_ASSIGN_OR_RETURN(const size_t room, backend.weight_room());
  if (room == SIZE_MAX) return backend.load(file->hashed_bytes());
  const uint64_t kv_bytes = edge::kv_bytes_for(spec.kv_layout(kv_format).groups, n_ctx_planned);
  const size_t left = room - std::min<size_t>(room, kv_bytes);
  const bool has_tied_head = weights.output.data == weights.token_embd.data;
  EDGE_ASSIGN_OR_RETURN(const edge::LayerSplit split,
                        edge::split_layers(*file, spec.layers.size(), has_tied_head, left));
  for (const auto& range : split.on_device) {
    EDGE_RETURN_IF_ERROR(backend.load(range));
    edge::drop_mapped_pages(range);  // it was copied
  }
  backend.set_host_layers(split.n_host_layers);
  info.n_host_layers = static_cast<int>(split.n_host_layers);
  return {};
}

void Model::Impl::before_fork() {
  sessions_mutex.lock();
  drafts_mutex.lock();
  if (drafts) drafts->mutex().lock();
  batcher->before_fork();
  tree->mutex().lock();
  cache->mutex().lock();
  if (disk) disk->mutex().lock();
}

void Model::Impl::after_fork(bool is_child) {
  if (disk) disk->mutex().unlock();
  cache->mutex().unlock();
  tree->mutex().unlock();
  batcher->after_fork(is_child);
  if (is_child) {
    was_step_torn |= step_turn.take_back();
    for (const std::weak_ptr<Session::Impl>& weak : sessions) {
      if (const std::shared_ptr<Session::Impl> session = weak.lock()) session->take_back();
    }
  }
  if (drafts) drafts->mutex().unlock();
  drafts_mutex.unlock();
  sessions_mutex.unlock();
}

Status Model::Impl::step(std::span<const edge::RowInput> rows, const edge::StepOutputs& outputs,
                         const edge::StopCheck& should_stop) {
  const std::lock_guard lock(step_turn);
  EDGE_RETURN_IF_ERROR(check_step());
  return decoder->step(rows, outputs, [&] { return is_closing || (should_stop && should_stop()); });
}

Status Model::Impl::check_step() {
  if (is_closing) return {Code::kCancelled, "the model was closed"};
  EDGE_RETURN_IF_ERROR(verifier->status());
  if (!was_step_torn) return {};
  draft_decoder.reset();
  exit_decoder.reset();
  EDGE_RETURN_IF_ERROR(make_decoder());
  was_step_torn = false;
  return {};
}

void Model::Impl::check_open() const {
  if (is_closing) raise(Code::kInvalidArgument, "the model is closed");
}

Model Model::load(const std::string& path, const LoadOptions& options) {
  return entry([&] {
    const int64_t start_ns = edge::monotonic_ns();
    auto impl = std::make_shared<Impl>();
    try {
      load_into(*impl, path, options);
    } catch (const Error& error) {
      const std::string message = error.what();
      if (message.find(path) != std::string::npos) throw;
      throw Error(error.code(), error.category(), path + ": " + message);
    }
    edge::api::watch_forks(*impl);
    impl->info.load_ms = static_cast<double>(edge::monotonic_ns() - start_ns) * 1e-6;
    return Model(std::move(impl));
  });
}

const ModelInfo& Model::info() const { return impl_->info; }

uint64_t Model::kv_bytes(int n_ctx) const {
  return entry([&] {
    const int n_ctx_most = impl_->n_ctx_most;
    if (n_ctx < 0 || n_ctx > n_ctx_most) {
      raise(Code::kInvalidArgument, "n_ctx is " + std::to_string(n_ctx) +
                                        "; it must be from 0 (the most) to " +
                                        std::to_string(n_ctx_most));
    }
    return edge::kv_bytes_for(impl_->cache->groups(), n_ctx == 0 ? n_ctx_most : n_ctx);
  });
}

std::optional<Tokenizer> Model::tokenizer() const {
  return entry([&]() -> std::optional<Tokenizer> {
    const std::lock_guard lock(impl_->step_turn);
    impl_->check_open();
    if (!impl_->tokenizer) return std::nullopt;
    return Tokenizer(impl_->tokenizer);
  });
}

std::optional<std::string> Model::blob(std::string_view name) const {
  return entry([&]() -> std::optional<std::string> {
    const std::lock_guard lock(impl_->step_turn);
    impl_->check_open();
    const edge::TensorEntry* found = impl_->file->find(name);
    if (found == nullptr || found->tensor.format != edge::Format::kU8) return std::nullopt;
    const std::span<const std::byte> bytes = blob_bytes(found->tensor);
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  });
}

double Model::verified_fraction() const {
  return entry([&] {
    const std::lock_guard lock(impl_->step_turn);
    impl_->check_open();
    return impl_->verifier->verified_fraction();
  });
}

KvFigures Model::kv_figures() const {
  return entry([&] {
    const edge::KvCacheFigures cache = impl_->cache->figures();
    const edge::PrefixFigures tree = impl_->tree->figures();
    const edge::KvDiskFigures disk = impl_->disk ? impl_->disk->figures() : edge::KvDiskFigures{};
    return KvFigures{.budget_bytes = impl_->kv_budget_bytes,
                     .reserved_bytes = cache.reserved_bytes,
                     .session_bytes = cache.besides_bytes,
                     .kept_bytes = cache.kept_bytes,
                     .idle_bytes = cache.idle_bytes,
                     .used_bytes = cache.used_bytes,
                     .n_reused_tokens = tree.n_matched_tokens,
                     .n_evicted_tokens = tree.n_evicted_tokens,
                     .disk_bytes = disk.n_bytes,
                     .n_disk_written_tokens = disk.n_written_tokens,
                     .n_disk_read_tokens = disk.n_read_tokens,
                     .n_disk_damaged_files = disk.n_damaged_files,
                     .n_disk_failed_writes = disk.n_failed_writes};
  });
}

uint64_t Model::trim(uint64_t n_bytes) {
  return entry([&] { return impl_->tree->trim(n_bytes); });
}

std::vector<std::vector<uint64_t>> Model::expert_load() const {
  return entry([&] {
    const std::lock_guard lock(impl_->step_turn);
    impl_->check_open();
    std::vector<std::vector<uint64_t>> load;
    for (size_t l = 0; l < impl_->spec.layers.size(); ++l) {
      const std::span<const uint64_t> layer = impl_->decoder->expert_load(l);
      load.emplace_back(layer.begin(), layer.end());
    }
    return load;
  });
}

void Model::close() {
  entry([&] {
    if (impl_->is_closing.exchange(true)) return;
    std::vector<std::weak_ptr<Session::Impl>> sessions;
    {
      const std::lock_guard lock(impl_->sessions_mutex);
      sessions.swap(impl_->sessions);
    }
    for (const std::weak_ptr<Session::Impl>& weak : sessions) {
      if (const std::shared_ptr<Session::Impl> session = weak.lock()) {
        const std::lock_guard lock(session->turn);  // a run() there ends within a step
        session->session.reset();
      }
    }
    impl_->keep_costs();
    impl_->tree->trim(UINT64_MAX);
    if (impl_->disk) impl_->disk->stop_writing();  // which asks the verifier
    const std::lock_guard lock(impl_->step_turn);
    impl_->verifier.reset();
    impl_->draft_decoder.reset();
    impl_->exit_decoder.reset();
    impl_->decoder.reset();
    impl_->weights = impl_->exit_weights = {};
    impl_->tokenizer.reset();
    impl_->file.reset();
  });
}

bool Model::is_closed() const { return impl_->is_closing; }

}  // namespace edgellm
