// c_api.h: adapters.
#include <optional>

#include "api/c_support.h"

using edge::capi::guarded;
using edge::capi::path_input;
using edge::capi::required;

edgellm_status edgellm_adapter_load(const edgellm_model* model, const char* path,
                                    size_t n_path_bytes, edgellm_adapter** adapter) {
  return guarded([&] {
    required(adapter, "adapter");
    *adapter = new edgellm_adapter{
        edgellm::Adapter::load(required(model, "model").model, path_input(path, n_path_bytes))};
  });
}

void edgellm_adapter_free(edgellm_adapter* adapter) { delete adapter; }

edgellm_status edgellm_session_set_adapter(edgellm_session* session,
                                           const edgellm_adapter* adapter) {
  return guarded([&] {
    edgellm_session& to = required(session, "session");
    const std::lock_guard lock(to.append_mutex);
    std::optional<edgellm::Adapter> next;
    if (adapter != nullptr) next = adapter->adapter;
    to.session.set_adapter(next);
  });
}
