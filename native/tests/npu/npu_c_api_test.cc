// Graphs through the C interface, beside the engine: the same text, and what is wrong is named.
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "edgellm/c_api.h"
#include "npu/graph_sessions.h"

namespace {

using edge::test::BundleFolder;
using edge::test::TinyFile;

constexpr int kGraphTokens = 32;
const std::vector<int32_t> kPrompt = {1, 30, 5, 61, 7, 7, 30, 5};

// Of what outlives it.
edgellm_setting setting(std::string_view name, std::string_view value) {
  return {name.data(), name.size(), value.data(), value.size()};
}

class CModel {
 public:
  CModel(const TinyFile& file, const std::vector<edgellm_setting>& settings, int n_ctx = 0) {
    setenv("EDGELLM_NPU_LIBRARY", EDGE_NPU_LIBRARY, 1);
    edgellm_load_options options = EDGELLM_LOAD_OPTIONS_INIT;
    options.backend = EDGELLM_BACKEND_NPU;
    options.n_threads = 1;
    options.n_ctx = n_ctx;
    options.speculate = EDGELLM_SPECULATE_OFF;
    options.npu = settings.data();
    options.n_npu = settings.size();
    status = edgellm_model_load(file.path().data(), file.path().size(), &options, &model_);
  }
  ~CModel() { edgellm_model_free(model_); }
  CModel(const CModel&) = delete;
  CModel& operator=(const CModel&) = delete;

  edgellm_model_info info() const {
    edgellm_model_info info = EDGELLM_MODEL_INFO_INIT;
    CHECK(edgellm_model_get_info(model_, &info) == EDGELLM_OK);
    return info;
  }
  std::vector<int32_t> greedy(int n) const {
    edgellm_session* session = nullptr;
    REQUIRE(edgellm_session_create(model_, 0, &session) == EDGELLM_OK);
    CHECK(edgellm_session_append(session, kPrompt.data(), kPrompt.size()) == EDGELLM_OK);
    std::vector<int32_t> ids;
    const edgellm_sampler_params params = EDGELLM_SAMPLER_PARAMS_INIT;
    for (int i = 0; i < n; ++i) {
      int32_t is_done = 0, id = 0;
      while (is_done == 0) {
        REQUIRE(edgellm_session_run(session, 1e9, &is_done) == EDGELLM_OK);
      }
      CHECK(edgellm_session_sample(session, &params, 0, &id, nullptr) == EDGELLM_OK);
      CHECK(edgellm_session_append(session, &id, 1) == EDGELLM_OK);
      ids.push_back(id);
    }
    edgellm_session_free(session);
    return ids;
  }

  edgellm_status status = EDGELLM_OK;

 private:
  edgellm_model* model_ = nullptr;
};

std::vector<int32_t> engine_greedy(const TinyFile& file, const BundleFolder& bundle, int n_ctx,
                                   int n) {
  edgellm::LoadOptions options = edge::test::options_for(bundle);
  options.n_ctx = n_ctx;
  edgellm::Session session(edgellm::Model::load(file.path(), options));
  session.append(kPrompt);
  return edge::test::greedy(session, n);
}

}  // namespace

TEST_CASE("graphs run behind the C interface, and the CPU behind the graphs") {
  const TinyFile file;
  const BundleFolder bundle({.slots = {kGraphTokens}});
  const std::string folder = bundle.path();
  const std::vector settings = {setting("bundle", folder), setting("library", EDGE_FAKE_ORT)};
  for (const int n_ctx : {0, 100}) {
    const CModel model(file, settings, n_ctx);
    REQUIRE(model.status == EDGELLM_OK);
    const edgellm_model_info info = model.info();
    CHECK(std::string(info.backend) == "npu");
    CHECK(std::string(info.kv_format) == "F16");
    CHECK(info.n_ctx_train == (n_ctx == 0 ? kGraphTokens : n_ctx));
    CHECK(info.n_graph_tokens == (n_ctx == 0 ? 0 : kGraphTokens));
    const int n = info.n_ctx_train - static_cast<int>(kPrompt.size());
    CHECK(model.greedy(n) == engine_greedy(file, bundle, n_ctx, n));
  }
}

TEST_CASE("what is wrong with settings is named") {
  const TinyFile file;
  const BundleFolder bundle;
  const std::string path = bundle.path();
  const edgellm_setting folder = setting("bundle", path);
  const auto error = [&](const std::vector<edgellm_setting>& settings, edgellm_status status) {
    CHECK(CModel(file, settings).status == status);
    return std::string(edgellm_last_error(nullptr));
  };
  CHECK(error({}, EDGELLM_ERROR_INVALID_ARGUMENT).find("'bundle'") != std::string::npos);
  CHECK(error({folder, setting("abacus", "1")}, EDGELLM_ERROR_INVALID_ARGUMENT).find("'abacus'") !=
        std::string::npos);
  CHECK(error({folder, {"library", 7, nullptr, 3}}, EDGELLM_ERROR_INVALID_ARGUMENT)
            .find("options->npu: a value is NULL") != std::string::npos);
  error({folder, setting("library", "/nowhere.so")}, EDGELLM_ERROR_DEVICE_UNAVAILABLE);
  error({setting("bundle", "/nowhere")}, EDGELLM_ERROR_FILE_NOT_FOUND);
}
