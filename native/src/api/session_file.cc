// Sessions on disk: what the KV of a session depends on, and the handle of a file.
#include <string>

#include "api/guard.h"
#include "api/impl.h"
#include "base/sha256.h"
#include "base/xxh64.h"

namespace edgellm {
namespace {

using edge::api::check;
using edge::api::entry;
using edge::api::take_or_throw;

std::string sha256_text(std::string_view text) {
  return edge::to_hex(edge::sha256(std::as_bytes(std::span(text))));
}

// Where the keys and values of a token stand in the pages of the groups.
std::string layout_text(const edge::KvLayout& layout) {
  std::string text;
  for (const edge::KvLayerLayout& layer : layout.layers) {
    text += std::to_string(layer.group) + ' ' + std::to_string(layer.offset_bytes) + ' ' +
            std::to_string(layer.n_kv_heads) + ' ' + std::to_string(layer.head_dim);
    if (layer.state_cols > 0) text += " state " + std::to_string(layer.state_cols);
    text += ';';
  }
  for (const edge::KvGroup& group : layout.groups) {
    text += std::to_string(group.window) + ' ' + std::to_string(group.page_bytes) + ' ' +
            std::to_string(group.bytes_of(0)) + ';';
  }
  return text;
}

// The root stands for the tokenizer, too; this says whether it is what differs.
std::string tokenizer_digest(const edge::EdgeFile& file) {
  const edge::TensorEntry* entry = file.find("tokenizer");
  if (entry == nullptr) return "";
  uint64_t sum = edge::xxh64(blob_bytes(entry->tensor));
  return edge::to_hex(std::as_bytes(std::span(&sum, 1)));
}

std::string rope_choice(const Model::Impl& model) {
  if (model.spec.n_ctx_original == 0) return "only";
  return model.n_ctx_planned > model.spec.n_ctx_original ? "long" : "short";
}

// What is kept of a prompt is not the same where it was read with 8-bit floats.
std::string kv_choice(const Model::Impl& model) {
  const bool is_fp8 = model.info.backend == "cuda-fp8";
  return is_fp8 ? model.info.kv_format + " of cuda-fp8" : model.info.kv_format;
}

}  // namespace

edge::SessionIdentity Model::Impl::identity_with(const Adapter::Impl* adapter) {
  const std::lock_guard lock(step_turn);
  check_open();
  if (!identity) {
    identity =
        edge::SessionIdentity{.model = info.root,
                              .spec = sha256_text(info.spec_json),
                              .tokenizer = tokenizer_digest(*file),
                              .kv_format = kv_choice(*this),
                              .kv_layout = sha256_text(layout_text(spec.kv_layout(kv_format))),
                              .rope = rope_choice(*this),
                              .adapter = ""};
  }
  edge::SessionIdentity with = *identity;
  if (adapter != nullptr) with.adapter = adapter->info.root;
  return with;
}

// Bits may change from one version of the code to the next, and a cache need not outlive one. What
// damaged weights give stays off the disk, or, where nobody looks for damage, apart.
edge::Status Model::Impl::open_disk(const LoadOptions& options) {
  if (options.kv_cache_dir.empty()) return {};
  const bool is_unchecked = options.verify == Verify::kNever;
  std::string depends_on = is_unchecked ? "unverified " EDGELLM_VERSION : EDGELLM_VERSION;
  for (const auto& [name, text] : identity_with(nullptr).items()) {
    depends_on += '\n' + name + ' ' + text;
  }
  const auto may_write = [this, is_unchecked] {
    return is_unchecked || (verifier->status().is_ok() && verifier->verified_fraction() == 1);
  };
  auto opened = edge::KvDisk::open({.directory = options.kv_cache_dir,
                                    .budget_bytes = options.kv_cache_disk_bytes,
                                    .identity = std::move(depends_on),
                                    .may_write = may_write},
                                   cache->groups());
  EDGE_RETURN_IF_ERROR(opened.status());
  disk = opened.take();
  return {};
}

SessionFile SessionFile::open(const std::string& path) {
  return entry([&] {
    const auto impl = std::make_shared<Impl>();
    impl->file = take_or_throw(edge::SessionFile::open(path));
    impl->note = impl->file->note();
    SessionFile file;
    file.impl_ = impl;
    return file;
  });
}

const std::string& SessionFile::note() const { return impl_->note; }

std::vector<int32_t> SessionFile::token_ids() const {
  const std::span<const int32_t> ids = impl_->file->ids();
  return {ids.begin(), ids.end()};
}

int SessionFile::n_kv_tokens() const { return impl_->file->n_kv_tokens(); }

Metadata SessionFile::identity() const { return impl_->file->identity().items(); }

}  // namespace edgellm
