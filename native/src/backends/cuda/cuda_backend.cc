#include "backends/cuda/cuda_backend.h"

#include <algorithm>
#include <string>
#include <vector>

#include "backends/cuda/device_memory.h"
#include "backends/cuda/launch.h"

namespace edge {
namespace {

using cuda::status_of;

constexpr int kLeastMajor = 8;                        // compute capability: what our PTX is for
constexpr int64_t kPartialFloats = int64_t{1} << 24;  // of segments at a time: 64 MiB

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

cuda::Panels panels_of(const Int8Rows& rows) {
  return {rows.q, rows.d, rows.bias, rows.n_blocks, rows.n_rows};
}

// What `needs` of the rows asks for.
cuda::Act act_of(const ActRows& rows, ActNeeds needs) {
  cuda::Act act;
  if (needs.a8) act.a8 = panels_of(rows.a8);
  if (needs.a8x2) act.a8x2 = panels_of(rows.a8x2);
  if (needs.f32) act.f = rows.f;
  act.n_cols_padded = rows.n_cols_padded;
  return act;
}

cuda::FloatMatrix matrix_of(const FloatRows& x) { return {x.data, x.n_cols, x.stride}; }

cuda::PagesArgs pages_of(const KvLayerLayout& kv) {
  cuda::PagesArgs pages;
  pages.has_first = kv.has_own_first_pages();
  for (int i = 0; i < 2; ++i) {
    pages.first[i] = kv.head(0, i);
    pages.other[i] = kv.head(kFirstPages, i);
  }
  return pages;
}

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(std::unique_ptr<Backend> host) : host_(std::move(host)) {}
  ~CudaBackend() override {
    wait();
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
    cudaFree(flag_);
    cudaFreeHost(seen_flag_);
  }

  Status open() {
    EDGE_RETURN_IF_ERROR(status_of(cudaStreamCreate(&stream_), "a stream"));
    void *flag = nullptr, *seen = nullptr;
    EDGE_RETURN_IF_ERROR(status_of(cudaMalloc(&flag, sizeof(int)), "a flag"));
    flag_ = static_cast<int*>(flag);
    EDGE_RETURN_IF_ERROR(status_of(cudaMallocHost(&seen, sizeof(int)), "a flag"));
    seen_flag_ = static_cast<int*>(seen);
    return {};
  }

  const char* name() const override { return "cuda"; }
  bool shares_memory() const override { return false; }
  bool has_experts() const override { return false; }
  bool has_adapters() const override { return false; }
  PageBuffer::Allocate page_allocator() const override { return cuda::allocate_managed; }
  void wait() override { keep(status_of(cudaStreamSynchronize(stream_), "a kernel")); }
  void fetch(const float* from, int64_t n, float* to) override {
    const auto n_bytes = static_cast<size_t>(n) * sizeof(float);
    keep(status_of(cudaMemcpyAsync(to, from, n_bytes, cudaMemcpyDefault, stream_), "a copy"));
  }
  Status load(std::span<const std::byte> weights) override {
    return loaded_.load(weights, stream_);
  }

  Result<std::byte*> alloc(size_t n_bytes) override {
    EDGE_ASSIGN_OR_RETURN(PageBuffer buffer, cuda::allocate_managed(n_bytes));
    buffers_.push_back(std::move(buffer));
    return buffers_.back().data();
  }

  void begin_step(std::span<const RowInput> rows) override {
    wait();  // a step that was cancelled may have left kernels
    host_->begin_step(rows);
    status_ = {};
    keep(status_of(cudaMemsetAsync(flag_, 0, sizeof(int), stream_), "a flag"));
    mailbox_.reset();
    rows_ = rows;
    send_rows();
  }

  Status end_step() override {
    keep(status_of(cudaGetLastError(), "a launch"));
    keep(status_of(cudaMemcpyAsync(seen_flag_, flag_, sizeof(int), cudaMemcpyDeviceToHost, stream_),
                   "a flag"));
    wait();
    if (!status_.is_ok()) return status_;
    if (*seen_flag_ == 0) return {};
    return {
        Code::kNumeric,
        "an activation became infinite or NaN; the weights are broken or the format too narrow"};
  }

  void expect(std::initializer_list<const Tensor*>) override {}

  void embed(const Tensor& table, float scale, const Tensor* positions,
             const FloatRows& x) override {
    check_format(cuda::embed(step_rows(), on_device(table), scale, matrix_of(x), stream_), table);
    if (positions == nullptr) return;
    check_format(cuda::add_positions(step_rows(), on_device(*positions), matrix_of(x), stream_),
                 *positions);
  }

  void rope_table(const float* inv_freq, float factor, RopeTable& out) override {
    const int half = out.n_rope / 2;
    const float* from = on_device(inv_freq, half);
    if (!is_ok()) return;
    cuda::rope_table(step_rows(), from, half, factor, const_cast<float*>(out.cos),
                     const_cast<float*>(out.sin), stream_);
  }

  void norm_quant(const Residual& more, const FloatRows& x, std::span<const int32_t> pick,
                  const Norm& norm, ActNeeds needs, ActRows& out) override {
    const int n_rows = pick.empty() ? n_step_rows() : static_cast<int>(pick.size());
    out.set_rows(n_rows);
    const cuda::ResidualArgs residual = residual_of(more);
    const cuda::NormArgs args = norm_of(norm);
    const int32_t* rows = pick.empty() ? nullptr : send(pick);
    if (!is_ok()) return;
    cuda::norm_rows(residual, matrix_of(x), rows, n_rows, args, act_of(out, needs), flag_, stream_);
  }

  void add_residual(const Residual& more, const FloatRows& x) override {
    const cuda::ResidualArgs residual = residual_of(more);
    if (is_ok()) cuda::add_residual(residual, matrix_of(x), n_step_rows(), stream_);
  }

  void qkv_rope_store(const ActRows& act, const QkvWeights& w, const AttentionShape& shape,
                      const RopeTable& rope, const KvLayerLayout& kv, float* q) override {
    const int64_t q_stride = round_up(w.q->n_rows, kTileRows);
    const int64_t kv_stride = round_up(w.k->n_rows, kTileRows);
    float* queries = room(queries_, n_step_rows() * q_stride);
    float* keys = room(keys_, n_step_rows() * kv_stride);
    float* values = room(values_, n_step_rows() * kv_stride);
    multiply(*w.q, act, queries, q_stride);
    multiply(*w.k, act, keys, kv_stride);
    multiply(*w.v, act, values, kv_stride);
    cuda::HeadsArgs q_args = heads_of(queries, q_stride, shape.n_heads, shape.head_dim, w.q_bias);
    cuda::HeadsArgs k_args = heads_of(keys, kv_stride, shape.n_kv_heads, kv.head_dim, w.k_bias);
    const cuda::HeadsArgs v_args =
        heads_of(values, kv_stride, shape.n_kv_heads, kv.head_dim, w.v_bias);
    for (cuda::HeadsArgs* args : {&q_args, &k_args}) {
      args->n_rope = rope.n_rope;
      args->cos = rope.cos;
      args->sin = rope.sin;
      args->mixes = kv.mixes_keys;
      if (kv.balances_keys) balance(w.balance, *args);
    }
    q_args.divides = true;
    q_args.heads_per_scale = shape.n_heads / shape.n_kv_heads;
    norm_heads(w.q_norm, w.norm_eps, q_args);
    norm_heads(w.k_norm, w.norm_eps, k_args);
    const cuda::Rows rows = rows_with_pages(kv.group);
    if (!is_ok()) return;
    cuda::finish_queries(q_args, n_step_rows(), q, stream_);
    cuda::store_keys(k_args, rows, pages_of(kv), flag_, stream_);
    cuda::store_values(v_args, rows, pages_of(kv), flag_, stream_);
  }

  void attention(float* q, const AttentionShape& shape, const KvLayerLayout& kv, ActNeeds needs,
                 ActRows& out) override {
    const int64_t n_cols = int64_t{shape.n_heads} * shape.head_dim;
    const int64_t q_stride = round_up(n_cols, kTileRows);
    out.set_rows(n_step_rows());
    attend(q, q_stride, shape, kv);
    if (!is_ok()) return;
    cuda::quantize_rows({q, n_cols, q_stride}, n_step_rows(), act_of(out, needs), flag_, stream_);
  }

  void attention_shares(const float* q, const AttentionShape& shape, const KvLayerLayout& kv,
                        float* shares) override {
    wait();
    host_->attention_shares(q, shape, kv, shares);
  }

  bool turn_keys(const KvSlotRange& slots, const KvLayerLayout& kv, const KeyTurn& turn) override {
    wait();
    return host_->turn_keys(slots, kv, turn);
  }

  bool keep_slots(const KvView& view, const KvLayerLayout& kv, int kv_head,
                  std::span<const int32_t> kept) override {
    wait();
    return host_->keep_slots(view, kv, kv_head, kept);
  }

  void proj_residual(const ActRows& act, const Tensor& weight, LoraSpan, float* delta,
                     int64_t stride) override {
    multiply(weight, act, delta, stride);
  }

  void ffn_in(const ActRows& act, const FfnIn& ffn, ActNeeds needs, ActRows& out) override {
    const Tensor& first = ffn.gate != nullptr ? *ffn.gate : *ffn.up;
    cuda::ActivateArgs args;
    args.act = ffn.act;
    args.n_cols = first.n_strips() * kTileRows;
    const int64_t n = n_step_rows() * args.n_cols;
    float* gate = room(queries_, n);
    float* up = ffn.gate != nullptr ? room(keys_, n) : nullptr;
    multiply(first, act, gate, args.n_cols);
    if (up != nullptr) multiply(*ffn.up, act, up, args.n_cols);
    args.gate = gate;
    args.up = up;
    args.gate_bias = on_device_f32(up == nullptr ? ffn.up_bias : ffn.gate_bias);
    args.up_bias = up == nullptr ? nullptr : on_device_f32(ffn.up_bias);
    args.n_bias = first.n_rows;
    out.set_rows(n_step_rows());
    if (is_ok()) {
      cuda::activate_rows(args, n_step_rows(), act_of(out, needs), flag_, stream_);
    }
  }

  // Decoder::create() has refused models that need these.
  void moe_route(const ActRows&, const MoeTensors&, const MoeShape&, MoeRoutes&) override {
    keep({Code::kFeatureUnsupported, "CUDA: no mixtures of experts"});
  }
  void moe_ffn(const ActRows&, const MoeTensors&, const MoeShape&, const MoeRoutes&, MoeBuffers&,
               float*, int64_t) override {
    keep({Code::kFeatureUnsupported, "CUDA: no mixtures of experts"});
  }

  void head(const ActRows& act, const Tensor& weight, float softcap, float* logits,
            int64_t stride) override {
    multiply(weight, act, logits, stride);
    if (!is_ok()) return;
    cuda::finish_logits(logits, act.n_rows, weight.n_rows, stride, softcap, flag_, stream_);
  }

 private:
  int n_step_rows() const { return static_cast<int>(rows_.size()); }
  bool is_ok() const { return status_.is_ok(); }
  // The first failure of a step is what end_step() tells; after it nothing more is queued.
  void keep(const Status& status) {
    if (status_.is_ok()) status_ = status;
  }
  template <class T>
  T kept(Result<T> result) {
    keep(result.status());
    return result.is_ok() ? result.take() : T{};
  }

  float* room(cuda::DeviceRoom& of, int64_t n) { return kept(of.floats(n)); }
  template <class T>
  const T* send(std::span<const T> items) {
    return kept(mailbox_.send(items, stream_));
  }

  // ---- weights

  const std::byte* on_device(const void* from, size_t n_bytes) {
    const std::byte* found = loaded_.find(from, n_bytes);
    if (found == nullptr) {
      keep({Code::kInvalidArgument, "CUDA: weights that were not given to load()"});
    }
    return found;
  }
  const float* on_device(const float* from, int64_t n) {
    return reinterpret_cast<const float*>(
        on_device(static_cast<const void*>(from), static_cast<size_t>(n) * sizeof(float)));
  }
  Tensor on_device(const Tensor& tensor) {
    Tensor moved = tensor;
    moved.data = on_device(tensor.data, tensor.n_bytes);
    return moved;
  }
  const float* on_device_f32(const Tensor* tensor) {
    return tensor == nullptr ? nullptr : on_device(tensor->as_f32(), tensor->n_cols);
  }
  void check_format(bool is_known, const Tensor& tensor) {
    if (is_known) return;
    keep({Code::kFeatureUnsupported,
          "CUDA: no kernel for weights of format " + std::string(format_name(tensor.format))});
  }

  cuda::NormArgs norm_of(const Norm& norm) {
    return {norm.kind, on_device_f32(norm.weight), on_device_f32(norm.bias), norm.eps};
  }
  cuda::ResidualArgs residual_of(const Residual& more) {
    return {more.delta, on_device_f32(more.bias), norm_of(more.norm)};
  }
  cuda::HeadsArgs heads_of(const float* raw, int64_t stride, int n_heads, int head_dim,
                           const Tensor* bias) {
    cuda::HeadsArgs args;
    args.raw = raw;
    args.stride = stride;
    args.n_heads = n_heads;
    args.head_dim = head_dim;
    args.bias = on_device_f32(bias);
    return args;
  }
  void norm_heads(const Tensor* weight, float eps, cuda::HeadsArgs& args) {
    if (weight == nullptr) return;
    args.norm = on_device_f32(weight);
    args.n_norm = weight->n_cols;
    args.eps = eps;
  }
  void balance(const KeyBalance& by, cuda::HeadsArgs& args) {
    args.mean = on_device_f32(by.mean);
    args.scale = on_device_f32(by.scale);
  }

  void multiply(const Tensor& weight, const ActRows& act, float* y, int64_t stride) {
    const Tensor w = on_device(weight);
    if (!is_ok()) return;
    switch (w.act) {
      case Act::kA8:
        return check_format(cuda::matmul_a8(w, panels_of(act.a8), y, stride, stream_), w);
      case Act::kF32:
        return check_format(
            cuda::matmul_f32(w, act.f, act.n_cols_padded, act.n_rows, y, stride, stream_), w);
      case Act::kA8x2: {
        const int64_t n = w.n_strips() * kTileRows;
        float* parts = room(parts_, 2 * act.n_rows * n);
        if (!is_ok()) return;
        check_format(cuda::matmul_a8(w, panels_of(act.a8x2), parts, n, stream_), w);
        return cuda::add_pairs(parts, act.n_rows, n, y, stride, stream_);
      }
    }
  }

  // ---- rows and their pages

  void send_rows() {
    std::vector<cuda::Row> rows;
    sequences_.clear();
    for (const RowInput& row : rows_) {
      if (sequences_.empty() || sequences_.back().tables != row.kv.tables) {
        sequences_.push_back(row.kv);
      }
      cuda::Row& to = rows.emplace_back();
      to.token = row.token;
      to.position = row.position;
      to.slot = row.slot;
      to.n_seen = row.n_seen();
      to.n_tail = static_cast<int32_t>(row.tail.size());
      to.sequence = static_cast<int32_t>(sequences_.size()) - 1;
      std::copy(row.tail.begin(), row.tail.end(), to.tail);
    }
    device_rows_ = send(std::span<const cuda::Row>(rows));
    groups_.clear();
  }

  cuda::Rows step_rows() const { return {device_rows_, nullptr, n_step_rows()}; }

  // The page tables of a group go to the device when a step first needs them.
  cuda::Rows rows_with_pages(int group) {
    const auto at = static_cast<size_t>(group);
    if (groups_.size() <= at) groups_.resize(at + 1, nullptr);
    if (groups_[at] == nullptr) {
      std::vector<cuda::PageTable> tables;
      for (const KvView& view : sequences_) {
        const KvTable& table = view.tables[at];
        const auto n = static_cast<size_t>(table.n_pages);
        tables.push_back(
            reinterpret_cast<cuda::PageTable>(send(std::span<std::byte* const>(table.pages, n))));
      }
      groups_[at] = send(std::span<const cuda::PageTable>(tables));
    }
    return {device_rows_, groups_[at], n_step_rows()};
  }

  // softmax(q K^T) V to q, as many rows at a time as there is room for their segments.
  void attend(float* q, int64_t q_stride, const AttentionShape& shape, const KvLayerLayout& kv) {
    cuda::AttentionArgs args;
    args.n_heads = shape.n_heads;
    args.n_kv_heads = shape.n_kv_heads;
    args.head_dim = shape.head_dim;
    args.scale = shape.scale;
    args.softcap = shape.softcap;
    args.window = shape.window;
    args.q_stride = q_stride;
    const cuda::PagesArgs pages = pages_of(kv);
    set_segments(shape, pages.has_first, args);
    const int64_t row_floats = int64_t{args.n_segments} * shape.n_heads * (2 + shape.head_dim);
    const auto at_once =
        static_cast<int>(std::clamp<int64_t>(kPartialFloats / row_floats, 1, n_step_rows()));
    float* partials = room(parts_, at_once * row_floats);
    const cuda::Rows rows = rows_with_pages(kv.group);
    if (!is_ok()) return;
    for (args.row0 = 0; args.row0 < n_step_rows(); args.row0 += at_once) {
      const int n = std::min(at_once, n_step_rows() - args.row0);
      cuda::attend(args, rows, n, pages, q, partials, flag_, stream_);
      cuda::merge_segments(args, rows, n, pages, partials, q, stream_);
    }
  }

  // Those that any row sees.
  void set_segments(const AttentionShape& shape, bool has_first, cuda::AttentionArgs& args) const {
    int first = INT32_MAX, last = 0;
    for (const RowInput& row : rows_) {
      const int n_seen = row.n_seen();
      const int begin = shape.window > 0 ? std::max(0, n_seen - shape.window) : 0;
      first = std::min(first, cuda::segment_of(has_first, begin));
      last = std::max(last, cuda::segment_of(has_first, n_seen - 1));
    }
    args.first_segment = first;
    args.n_segments = last - first + 1;
  }

  std::unique_ptr<Backend> host_;
  cudaStream_t stream_ = nullptr;
  std::vector<PageBuffer> buffers_;
  cuda::LoadedRanges loaded_;
  cuda::Mailbox mailbox_;
  cuda::DeviceRoom queries_, keys_, values_, parts_;
  int* flag_ = nullptr;  // on the device: a value of the step is not finite
  int* seen_flag_ = nullptr;
  Status status_;
  // Of the step.
  std::span<const RowInput> rows_;
  std::vector<KvView> sequences_;
  const cuda::Row* device_rows_ = nullptr;
  std::vector<const cuda::PageTable*> groups_;  // by group; null: not sent yet
};

}  // namespace

Result<std::unique_ptr<Backend>> create_cuda_backend(std::unique_ptr<Backend> host) {
  int n_devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&n_devices);
  if (error != cudaSuccess || n_devices == 0) {
    const std::string why = error == cudaSuccess ? "no device" : cudaGetErrorString(error);
    return {Code::kDeviceUnavailable,
            "CUDA: " + why + "; install NVIDIA's driver, or load with backend 'cpu'"};
  }
  cudaDeviceProp device;
  EDGE_RETURN_IF_ERROR(status_of(cudaGetDeviceProperties(&device, 0), "device 0"));
  if (device.major < kLeastMajor) {
    return {Code::kDeviceUnavailable,
            "CUDA: " + std::string(device.name) + " has compute capability " +
                std::to_string(device.major) + "." + std::to_string(device.minor) +
                " and 8.0 is the least; load with backend 'cpu'"};
  }
  EDGE_RETURN_IF_ERROR(status_of(cudaSetDevice(0), "device 0"));
  auto backend = std::make_unique<CudaBackend>(std::move(host));
  EDGE_RETURN_IF_ERROR(backend->open());
  return std::unique_ptr<Backend>(std::move(backend));
}

}  // namespace edge
