// Sessions on a bundle of graphs, for tests that compare what they say.
#pragma once

#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "api/tiny_model.h"
#include "doctest/doctest.h"
#include "edgellm/engine.h"
#include "npu/bundle_fixture.h"

namespace edge::test {

using edgellm::LoadOptions;
using edgellm::Model;
using edgellm::Session;
using edgellm::Speculate;

inline const edgellm::PrefixReuse kAlone = {.is_on = false, .name_space = {}};

inline LoadOptions options_for(const BundleFolder& bundle) {
  setenv("EDGELLM_NPU_LIBRARY", EDGE_NPU_LIBRARY, 1);
  LoadOptions options;
  options.n_threads = 1;
  options.kv_format = "F16";
  options.backend = "npu";
  options.speculate = Speculate::kOff;
  options.npu = {{"bundle", bundle.path()}, {"library", EDGE_FAKE_ORT}};
  return options;
}

inline std::vector<int32_t> some_ids(int n, int seed = 0) {
  std::vector<int32_t> ids;
  for (int i = 0; i < n; ++i) ids.push_back((i * 29 + i / 3 + seed) % kTinyVocab);
  return ids;
}

inline std::vector<int32_t> greedy(Session& session, int n) {
  std::vector<int32_t> ids;
  for (int i = 0; i < n; ++i) {
    while (!session.run(1e9)) {
    }
    ids.push_back(session.sample({}).id);
    session.append({&ids.back(), 1});
  }
  return ids;
}

inline std::vector<int32_t> text_of(const Model& model, int n_prompt, int n, int seed = 0) {
  Session session(model, 0, std::nullopt, kAlone);
  session.append(some_ids(n_prompt, seed));
  return greedy(session, n);
}

// What comes after each token of a text that repeats itself, and is therefore guessed.
inline std::vector<int32_t> answers(Session& session) {
  session.append(some_ids(7));
  std::vector<int32_t> ids;
  for (int i = 0; i < 90; ++i) {
    const int32_t next = 3 + i % 6;
    session.append({&next, 1});
    while (!session.run(1e9)) {
    }
    ids.push_back(session.sample({}).id);
  }
  return ids;
}

inline std::string error_of(const std::function<void()>& does) {
  try {
    does();
  } catch (const edgellm::Error& error) {
    return error.code() + ": " + error.what();
  }
  return "";
}

inline void check_starts(const std::string& text, const std::string& start) {
  CAPTURE(text);
  CHECK(text.starts_with(start));
}

}  // namespace edge::test
