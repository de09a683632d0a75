// What ops are made of on a device: addresses of what the host names, launches, and the first
// thing that went wrong in a step.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "backends/backend.h"
#include "backends/gpu/args.h"
#include "backends/gpu/device.h"
#include "backends/gpu/matmul_plan.h"

namespace edge::gpu {

constexpr int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
constexpr int64_t groups_of(int64_t n, int64_t per_group) {
  return (n + per_group - 1) / per_group;
}

class Launcher {
 public:
  explicit Launcher(std::unique_ptr<Device> device) : device_(std::move(device)) {}

  Device& device() const { return *device_; }
  const MatmulChoice& choice() const { return choice_; }
  int32_t* flag() const { return device_->flag(); }

  // ---- the step's status: the first failure stays, and after it nothing more is queued.
  const Status& status() const { return status_; }
  void begin() { status_ = device_->begin(); }
  void keep(const Status& status) {
    if (status_.is_ok()) status_ = status;
  }
  void fail(Code code, const std::string& what) {
    keep({code, std::string(device_->title()) + ": " + what});
  }
  template <class T>
  T kept(Result<T> result) {
    keep(result.status());
    return result.is_ok() ? result.take() : T{};
  }
  void wait() { keep(device_->wait()); }
  // Whether the host may go on with what kernels have made.
  bool waits_for_host() {
    wait();
    return status_.is_ok();
  }

  template <class Args>
  void launch(const std::string& kernel, const Args& args, Grid grid, int n_threads) {
    if (!status_.is_ok()) return;
    keep(device_->launch(kernel.c_str(), std::as_bytes(std::span(&args, 1)), grid, n_threads));
  }
  // The kernel of this name for the weight's format.
  static std::string kernel_of(const std::string& prefix, const Tensor& weight) {
    return prefix + std::string(format_name(weight.format));
  }
  // A warp a block of 32 columns, of every row.
  static Grid block_grid(const ActRows& out) {
    return {groups_of(out.n_cols_padded / kTileK, kRowThreads / kWarp), out.n_rows};
  }

  // ---- addresses of the device
  template <class T = float>
  T* take(Room room, int64_t n) {
    const auto n_bytes = static_cast<size_t>(n) * sizeof(T);
    return reinterpret_cast<T*>(kept(device_->room(room, n_bytes)));
  }
  template <class T>
  const T* send(std::span<const T> items) {
    return reinterpret_cast<const T*>(kept(device_->send(std::as_bytes(items))));
  }
  // Of what alloc() gave.
  template <class T>
  T* at(T* allocated) {
    if (allocated == nullptr) return nullptr;
    std::byte* found = device_->address(allocated);
    if (found == nullptr) fail(Code::kInvalidArgument, "memory that is not the backend's");
    return reinterpret_cast<T*>(found);
  }
  template <class T>
  const T* loaded(const T* from, int64_t n) {
    const std::byte* found = device_->loaded(from, static_cast<size_t>(n) * sizeof(T));
    if (found == nullptr) fail(Code::kInvalidArgument, "weights that were not given to load()");
    return reinterpret_cast<const T*>(found);
  }
  const float* loaded(const Tensor* vector) {
    return vector == nullptr ? nullptr : loaded(vector->as_f32(), vector->n_cols);
  }

  // ---- what kernels are given
  Matrix matrix_of(const Tensor& weight);
  FloatMatrix matrix_of(const FloatRows& x) { return {at(x.data), x.n_cols, x.stride}; }
  Panels panels_of(const Int8Rows& rows) {
    return {at(rows.q), at(rows.d), at(rows.bias), rows.n_blocks, rows.n_rows};
  }
  // What `needs` of the rows asks for.
  Act act_of(const ActRows& rows, ActNeeds needs);
  NormArgs norm_of(const Norm& norm) {
    return {loaded(norm.weight), loaded(norm.bias), norm.eps, norm.kind};
  }
  ResidualArgs residual_of(const Residual& more) {
    return {at(more.delta), loaded(more.bias), norm_of(more.norm)};
  }

  // y = act weight^T, of all strips' rows; y: an address of the device (products.cc).
  void multiply(const Tensor& weight, const ActRows& act, float* y, int64_t stride);

 private:
  void multiply_a8(const Tensor& weight, MatmulArgs args);
  Panels fp8_of(const Panels& act, int halves);

  std::unique_ptr<Device> device_;
  const MatmulChoice choice_ = matmul_choice();
  Status status_;
};

}  // namespace edge::gpu
