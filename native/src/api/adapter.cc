// Adapters: opened, bound to their model's spec, hashed, and counted against its memory cap.
#include <string>

#include "api/guard.h"
#include "api/impl.h"

namespace edgellm {
namespace {

using edge::Code;
using edge::api::check;
using edge::api::entry;
using edge::api::raise;
using edge::api::take_or_throw;

void fill_info(Adapter::Impl& impl) {
  AdapterInfo& info = impl.info;
  info.metadata = impl.file->all_metadata();
  info.root = impl.file->root_hex();
  info.rank = impl.adapter.rank;
  info.file_bytes = impl.file->file_bytes();
  for (const edge::TensorEntry& entry : impl.file->tensors()) {
    if (entry.tensor.format == edge::Format::kU8) continue;
    info.n_parameters += static_cast<uint64_t>(entry.tensor.n_rows * entry.tensor.n_cols);
  }
}

// Between two steps: the file's bytes are the adapter's, those of scratch the model's for good.
void claim_memory(Model::Impl& model, Adapter::Impl& impl) {
  const std::lock_guard lock(model.step_turn);
  model.check_open();
  const uint64_t scratch_bytes = take_or_throw(
      edge::Decoder::adapter_scratch_bytes_of(model.spec, model.weights, impl.adapter.rank));
  impl.info.scratch_bytes = scratch_bytes;
  const uint64_t before = model.adapter_scratch_bytes;
  const uint64_t more = scratch_bytes > before ? scratch_bytes - before : 0;
  check(model.tree->with_room(
      [&] { return model.cache->claim(impl.info.file_bytes + more, "the adapter"); }));
  impl.claimed_bytes = impl.info.file_bytes;
  model.adapter_scratch_bytes += more;
  check(model.decoder->prepare_adapters());
}

void load_into(const std::shared_ptr<Model::Impl>& model, Adapter::Impl& impl,
               const std::string& path) {
  model->check_open();
  impl.file = take_or_throw(edge::EdgeFile::open(path));
  impl.adapter = take_or_throw(edge::Adapter::bind(*impl.file, model->spec));
  check(
      edge::Verifier::start(impl.file, edge::VerifyMode::kAlways, model->info.n_threads).status());
  fill_info(impl);
  impl.model = model;
  claim_memory(*model, impl);
}

}  // namespace

Adapter::Impl::~Impl() {
  if (claimed_bytes > 0) model->cache->unclaim(claimed_bytes);
}

Adapter Adapter::load(const Model& model, const std::string& path) {
  return entry([&] {
    auto impl = std::make_shared<Impl>();
    try {
      load_into(model.impl(), *impl, path);
    } catch (const Error& error) {
      const std::string message = error.what();
      if (message.find(path) != std::string::npos) throw;
      throw Error(error.code(), error.category(), path + ": " + message);
    }
    return Adapter(std::move(impl));
  });
}

const AdapterInfo& Adapter::info() const { return impl_->info; }

std::shared_ptr<const Adapter::Impl> checked_adapter(const std::optional<Adapter>& adapter,
                                                     const std::shared_ptr<Model::Impl>& owner) {
  if (!adapter) return nullptr;
  if (adapter->impl()->model != owner) {
    raise(Code::kInvalidArgument,
          "the adapter was loaded with another model; load it with the one that shall use it");
  }
  return adapter->impl();
}

}  // namespace edgellm
