#include "backends/cpu/lora_driver.h"

#include <algorithm>

#include "base/thread_pool.h"

namespace edge {

namespace {

constexpr int64_t kUnitStrips = 16;  // of B: 256 columns of y

int64_t padded(int64_t n) { return (n + kTileK - 1) / kTileK * kTileK; }

}  // namespace

LoraDriver::LoraDriver(const ElementwiseKernels& ops, const MatmulDriver& matmul, int n_threads)
    : ops_(ops), matmul_(matmul), n_threads_(n_threads), scratch_(n_threads) {}

void LoraDriver::project(std::initializer_list<LoraSpan> products, const ActRows& act,
                         int64_t max_strips) {
  parts_.clear();
  size_t n_floats = 0;
  int64_t n_units = 0;
  size_t index = 0;
  for (const LoraSpan& rows : products) {
    for (const LoraRows& run : rows) {
      Part& part = parts_.emplace_back(Part{index, run, {}});
      part.hidden.set_rows(run.n_rows);
      part.hidden.set_cols(padded(run.a->n_rows));
      n_floats += static_cast<size_t>(run.n_rows * part.hidden.n_cols_padded);
      n_units += run.a->n_strips();
    }
    ++index;
  }
  // A's rows end at a strip, B's columns at a tile: what lies between must be zero.
  hidden_.assign(n_floats, 0.0f);
  float* hidden = hidden_.data();
  for (Part& part : parts_) {
    part.hidden.f = hidden;
    hidden += part.rows.n_rows * part.hidden.n_cols_padded;
    scratch_.reserve(part.rows.n_rows * max_strips * kTileRows);
  }
  parallel_for(n_threads_, n_units, [&](int64_t unit, int) {
    size_t i = 0;
    for (; unit >= parts_[i].rows.a->n_strips(); ++i) unit -= parts_[i].rows.a->n_strips();
    const Part& part = parts_[i];
    ActRows rows = act;
    rows.f = act.f + part.rows.row0 * act.n_cols_padded;
    rows.set_rows(part.rows.n_rows);
    matmul_.run_strips(*part.rows.a, rows, unit, 1, part.hidden.f + unit * kTileRows,
                       part.hidden.n_cols_padded);
  });
}

void LoraDriver::add(std::initializer_list<Product> products, const ActRows& act) {
  LoraSpan spans[3];
  bool is_any = false;
  size_t n = 0;
  for (const Product& product : products) {
    spans[n++] = product.rows;
    is_any |= !product.rows.empty();
  }
  if (!is_any) return;
  project({spans[0], spans[1], spans[2]}, act, kUnitStrips);
  const auto units_of = [](const Part& part) {
    return (part.rows.b->n_strips() + kUnitStrips - 1) / kUnitStrips;
  };
  int64_t n_units = 0;
  for (const Part& part : parts_) n_units += units_of(part);
  parallel_for(n_threads_, n_units, [&](int64_t unit, int thread) {
    size_t i = 0;
    for (; unit >= units_of(parts_[i]); ++i) unit -= units_of(parts_[i]);
    const Product& product = products.begin()[parts_[i].product];
    const int64_t strip0 = unit * kUnitStrips;
    const int64_t n_strips = std::min(kUnitStrips, parts_[i].rows.b->n_strips() - strip0);
    add_part(parts_[i], strip0, n_strips, product.y + strip0 * kTileRows, product.y_stride, thread);
  });
}

void LoraDriver::add_strips(size_t index, int64_t strip0, int64_t n_strips, float* y,
                            int64_t y_stride, int thread) {
  for (const Part& part : parts_) {
    if (part.product == index) add_part(part, strip0, n_strips, y, y_stride, thread);
  }
}

void LoraDriver::add_part(const Part& part, int64_t strip0, int64_t n_strips, float* y,
                          int64_t y_stride, int thread) {
  const int64_t width = n_strips * kTileRows;
  float* change = scratch_.get(thread);
  matmul_.run_strips(*part.rows.b, part.hidden, strip0, n_strips, change, width);
  for (int r = 0; r < part.rows.n_rows; ++r) {
    ops_.add(change + r * width, y + (part.rows.row0 + r) * y_stride, width);
  }
}

}  // namespace edge
