#include "c_api_engine.h"

#include "edgellm/c_api.h"
#include "edgellm/engine.h"

static_assert(EDGELLM_ABI_VERSION == EDGE_CMAKE_ABI_VERSION, "cmake/c_library.cmake has another");

int engine_greedy_ids(const char* path, const int32_t* prompt, size_t n_prompt, int32_t* ids,
                      size_t n_ids) {
  try {
    const edgellm::Model model = edgellm::Model::load(path, {.n_threads = 1});
    edgellm::Session session(model);
    session.append({prompt, n_prompt});
    for (size_t i = 0; i < n_ids; ++i) {
      while (!session.run()) {
      }
      ids[i] = session.sample({}).id;
      session.append({&ids[i], 1});
    }
    return 0;
  } catch (const edgellm::Error&) {
    return 1;
  }
}
