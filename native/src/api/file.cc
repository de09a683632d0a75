#include <string>

#include "api/guard.h"
#include "api/impl.h"
#include "base/os.h"
#include "base/thread_pool.h"

namespace edgellm {

using edge::api::check;
using edge::api::entry;
using edge::api::take_or_throw;

EdgeFile::EdgeFile(const std::string& path) {
  entry([&] {
    const auto impl = std::make_shared<Impl>();
    impl->file = take_or_throw(edge::EdgeFile::open(path));
    impl_ = impl;
  });
}

const Metadata& EdgeFile::metadata() const { return impl_->file->all_metadata(); }

std::vector<TensorInfo> EdgeFile::tensors() const {
  return entry([&] {
    std::vector<TensorInfo> infos;
    for (const edge::TensorEntry& entry : impl_->file->tensors()) {
      TensorInfo info;
      info.name = entry.name;
      info.role = entry.role;
      info.format = edge::format_name(entry.tensor.format);
      info.act = edge::act_name(entry.tensor.act);
      info.n_rows = entry.tensor.n_rows;
      info.n_cols = entry.tensor.n_cols;
      info.offset = entry.offset;
      info.n_bytes = entry.tensor.n_bytes;
      infos.push_back(std::move(info));
    }
    return infos;
  });
}

std::string_view EdgeFile::root() const { return impl_->file->root_hex(); }
uint64_t EdgeFile::file_bytes() const { return impl_->file->file_bytes(); }
uint64_t EdgeFile::data_start() const { return impl_->file->data_start(); }

std::optional<std::span<const std::byte>> EdgeFile::find(std::string_view name) const {
  const edge::TensorEntry* entry = impl_->file->find(name);
  if (entry == nullptr) return std::nullopt;
  if (entry->tensor.format == edge::Format::kU8) return blob_bytes(entry->tensor);
  return std::span(entry->tensor.data, entry->tensor.n_bytes);
}

VerifyResult verify_file(const std::string& path, int n_threads) {
  return entry([&] {
    const int64_t start_ns = edge::monotonic_ns();
    const auto file = take_or_throw(edge::EdgeFile::open(path));
    take_or_throw(edge::Verifier::start(file, edge::VerifyMode::kAlways,
                                        n_threads > 0 ? n_threads : edge::default_n_threads()));
    VerifyResult result;
    result.root = file->root_hex();
    result.file_bytes = file->file_bytes();
    result.n_leaves = file->leaf_hashes().size() / 32;
    result.verify_ms = static_cast<double>(edge::monotonic_ns() - start_ns) * 1e-6;
    return result;
  });
}

}  // namespace edgellm
