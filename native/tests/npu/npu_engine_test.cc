// load(backend = "npu") through the public interface: the library opened as a real one is, with a
// stand-in for onnxruntime whose graphs compute in whole numbers, so that everything that can be
// done in two ways is compared bit for bit.
#include <filesystem>
#include <string>
#include <vector>

#include "npu/graph_sessions.h"

namespace {

using edge::test::answers;
using edge::test::BundleFolder;
using edge::test::check_starts;
using edge::test::error_of;
using edge::test::greedy;
using edge::test::kAlone;
using edge::test::options_for;
using edge::test::some_ids;
using edge::test::text_of;
using edge::test::tiny_spec;
using edge::test::TinyFile;
using edgellm::LoadOptions;
using edgellm::Metadata;
using edgellm::Model;
using edgellm::Session;
using edgellm::Speculate;

// What loading says of a bundle.
std::string refusal(const BundleFolder& bundle, const TinyFile& file) {
  return error_of([&] { Model::load(file.path(), options_for(bundle)); });
}

}  // namespace

TEST_CASE("a text does not depend on how graphs cut it") {
  const TinyFile file;
  const BundleFolder plain({.rows = {1}, .slots = {128}});
  const auto wanted = text_of(Model::load(file.path(), options_for(plain)), 50, 40);
  for (const bool is_split : {false, true}) {
    const BundleFolder bundle({.is_split = is_split});
    const Model model = Model::load(file.path(), options_for(bundle));
    CHECK(model.info().backend == "npu");
    CHECK(model.info().n_ctx_train == 128);
    CHECK(text_of(model, 50, 40) == wanted);
    CHECK(text_of(model, 50, 40) == wanted);
  }
  const BundleFolder floats({.is_half = false});
  CHECK(text_of(Model::load(file.path(), options_for(floats)), 50, 40) == wanted);
}

TEST_CASE("a text does not depend on what else there is") {
  const TinyFile file;
  const BundleFolder bundle;
  const Model model = Model::load(file.path(), options_for(bundle));
  const auto wanted = text_of(model, 40, 30);
  // More sequences than buffers, in turn, each of which comes back to pages.
  std::vector<Session> sessions;
  for (int seed = 0; seed < 4; ++seed) {
    Session& session = sessions.emplace_back(model, 0);
    session.append(some_ids(40, seed));
    session.run(1e9);
  }
  std::vector<std::vector<int32_t>> texts(4);
  for (int i = 0; i < 30; ++i) {
    for (size_t s = 0; s < sessions.size(); ++s) {
      texts[s].push_back(greedy(sessions[s], 1).front());
    }
  }
  CHECK(texts[0] == wanted);
  for (int seed = 1; seed < 4; ++seed) {
    CHECK(texts[static_cast<size_t>(seed)] == text_of(model, 40, 30, seed));
  }
}

TEST_CASE("sequences may share a step") {
  const TinyFile file;
  const BundleFolder bundle;
  const Model model = Model::load(file.path(), options_for(bundle));
  std::vector<Session> sessions;
  for (int seed = 0; seed < 3; ++seed) {
    sessions.emplace_back(model, 0).append(some_ids(5 + 9 * seed, seed));
  }
  std::vector<edgellm::SessionRun> runs;
  for (Session& session : sessions) runs.push_back({.session = &session});
  for (bool is_over = false; !is_over;) {
    Session::run_together(runs, 1e9);
    is_over = true;
    for (const auto& run : runs) {
      CHECK(!run.error.has_value());
      is_over = is_over && run.session->n_pending() == 0;
    }
  }
  for (int seed = 0; seed < 3; ++seed) {
    Session alone(model, 0, std::nullopt, kAlone);
    alone.append(some_ids(5 + 9 * seed, seed));
    alone.run(1e9);
    CHECK(sessions[static_cast<size_t>(seed)].logits() == alone.logits());
  }
}

TEST_CASE("a beginning is reused, rewound, forked and saved") {
  const TinyFile file;
  const BundleFolder bundle;
  const Model model = Model::load(file.path(), options_for(bundle));
  const auto wanted = text_of(model, 60, 20);
  {
    Session first(model);
    first.append(some_ids(60));
    CHECK(greedy(first, 20) == wanted);
  }
  Session again(model);
  again.append(some_ids(60));
  CHECK(greedy(again, 20) == wanted);
  CHECK(again.stats().n_reused_tokens >= 48);

  again.rewind(33);  // in the smaller bucket
  const auto ids = some_ids(60);
  again.append(std::span(ids).subspan(33));
  Session other = again.fork();
  CHECK(greedy(again, 20) == wanted);
  CHECK(greedy(other, 20) == wanted);

  again.rewind(60);
  const std::string path = bundle.path() + "/session";
  again.save(path);
  for (const char* backend : {"npu", "cpu"}) {
    LoadOptions options = options_for(bundle);
    options.backend = backend;
    Session restored(Model::load(file.path(), options));
    restored.restore(edgellm::SessionFile::open(path));
    CHECK(restored.n_tokens() == 60);
    if (std::string(backend) == "cpu") continue;  // whose weights compute something else
    Session fresh(model, 0, std::nullopt, kAlone);
    fresh.append(some_ids(60));
    fresh.append(some_ids(9, 5));
    restored.append(some_ids(9, 5));
    CHECK(greedy(restored, 8) == greedy(fresh, 8));
  }
}

TEST_CASE("windows hide what stands before them") {
  constexpr std::array<int, 2> kWindows = {20, 0};
  const TinyFile file(tiny_spec(256, kWindows));
  const BundleFolder plain({.rows = {1}, .slots = {256}, .windows = kWindows});
  const BundleFolder bundle({.slots = {32, 256}, .windows = kWindows});
  const auto wanted = text_of(Model::load(file.path(), options_for(plain)), 190, 30);
  const Model model = Model::load(file.path(), options_for(bundle));
  CHECK(text_of(model, 190, 30) == wanted);
  Session session(model);
  session.append(some_ids(190));
  session.run(1e9);
  text_of(model, 9, 3, 7);  // two others, so that pages of which some are gone are read
  text_of(model, 9, 3, 8);
  CHECK(greedy(session, 30) == wanted);
  CHECK(refusal(BundleFolder({.windows = {0, 0}}), file).find("another window") !=
        std::string::npos);
}

TEST_CASE("guesses change nothing and stand one behind the other") {
  const TinyFile file;
  for (const bool is_wide : {false, true}) {
    const BundleFolder bundle({.rows = is_wide ? std::vector{1, 16} : std::vector{1, 4, 64}});
    LoadOptions options = options_for(bundle);
    const Model plain = Model::load(file.path(), options);
    options.speculate = Speculate::kAlways;
    const Model model = Model::load(file.path(), options);
    Session wanted(plain, 0, std::nullopt, kAlone), session(model, 0, std::nullopt, kAlone);
    session.set_speculation(true);
    CHECK(answers(session) == answers(wanted));
    const auto stats = session.stats();
    int64_t n_drafted = 0, n_accepted = 0;
    for (const auto& drafter : stats.drafters) {
      n_drafted += drafter.n_drafted;
      n_accepted += drafter.n_accepted;
    }
    CHECK(n_accepted > 30);
    CHECK(stats.n_steps < wanted.stats().n_steps);
    CHECK(n_drafted <= (is_wide ? 15 : 3) * stats.n_steps);
  }
}

TEST_CASE("what does not fit the graphs is refused") {
  const TinyFile file;
  const BundleFolder bundle;
  const Model model = Model::load(file.path(), options_for(bundle));
  Session session(model);
  check_starts(error_of([&] { session.append(some_ids(129)); }), "context_overflow: ");
  session.append(some_ids(128));
  while (!session.run(1e9)) {
  }
  CHECK(session.n_tokens() == 128);
  const int32_t id = 1;
  check_starts(error_of([&] { session.append({&id, 1}); }), "context_overflow: ");
  check_starts(error_of([&] { Session(model, 129); }), "invalid_argument: ");
}

TEST_CASE("what graphs do not do is named") {
  const TinyFile file;
  const BundleFolder bundle;
  for (const char* kv : {"K8V8", "K8V4"}) {
    LoadOptions options = options_for(bundle);
    options.kv_format = kv;
    const std::string error = error_of([&] { Model::load(file.path(), options); });
    CAPTURE(error);
    CHECK(error.find("load with KV format F16") != std::string::npos);
  }
  const Model model = Model::load(file.path(), options_for(bundle));
  Session session(model);
  session.append(some_ids(100));
  check_starts(error_of([&] { session.run_with_hidden(1e9); }), "feature_unsupported: ");
  session.run(1e9);
  check_starts(error_of([&] { session.shift(32, 32); }), "feature_unsupported: ");
  check_starts(error_of([&] { session.compress(64); }), "feature_unsupported: ");
  Session plain(model, 0, std::nullopt, kAlone);
  plain.append(some_ids(100));
  CHECK(greedy(session, 5) == greedy(plain, 5));  // nothing has happened
}

TEST_CASE("a graph that fails is an error, and what was before it stands") {
  const TinyFile file;
  check_starts(refusal(BundleFolder({.trouble = "fail_open"}), file), "device_failed: ");
  const BundleFolder broken({.trouble = "fail_run"}), nan({.trouble = "nan"});
  for (const auto& [bundle, start] :
       {std::pair(&broken, "device_failed: "), std::pair(&nan, "numeric: ")}) {
    const Model model = Model::load(file.path(), options_for(*bundle));
    Session session(model);
    session.append(some_ids(9));
    check_starts(error_of([&] { session.run(1e9); }), start);
    CHECK(session.n_tokens() == 0);
  }
}

TEST_CASE("a graph that is not what its bundle says is refused") {
  const TinyFile file;
  const auto with = [&](const std::string& line, const std::string& lie) {
    return refusal(BundleFolder({.lies = {{line, lie}}}), file);
  };
  check_starts(with("input past_k.0 10 2 32 16", "input past_k.0 10 2 31 16"), "tensor_shape: ");
  check_starts(with("input past_k.0 10 2 32 16", "input past_k.0 1 2 32 16"), "tensor_dtype: ");
  check_starts(with("output logits 1 4 96", "output logits 1 4 95"), "tensor_shape: ");
  check_starts(with("output logits 1 4 96", "output logits 10 4 96"), "tensor_dtype: ");
  check_starts(with("output new_v.1 10 2 1 16", "output other 10 2 1 16"), "tensor_missing: ");
  check_starts(with("input sin 1 1 16", "input tan 1 1 16"), "tensor_unexpected: ");
  check_starts(with("input sin 1 1 16", "layer 0 mask"), "tensor_missing: ");
  check_starts(refusal(BundleFolder({.target = "qualcomm-v75"}), file), "feature_unsupported: ");
}

TEST_CASE("a bundle that is broken is refused") {
  const TinyFile file;
  const auto with = [&](const std::string& from, const std::string& to) {
    const BundleFolder bundle;
    std::string text = bundle.description();
    const size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    bundle.write("bundle.json", text.replace(at, from.size(), to));
    return refusal(bundle, file);
  };
  check_starts(with(R"("version":1)", R"("version":2)"), "version_unsupported: ");
  check_starts(with(R"("stateful":0)", R"("stateful":1)"), "feature_unsupported: ");
  check_starts(with(R"("n_vocab":96)", R"("n_vocab":97)"), "tensor_shape: ");
  check_starts(with(R"("head_dim":16)", R"("head_dim":8)"), "tensor_shape: ");
  check_starts(with(R"("head_dim":16)", R"("head_dim":-1)"), "json_type: ");
  check_starts(with(R"("head_dim":16)", R"("head_dim":65536)"), "tensor_shape: ");
  check_starts(with(R"("masked":-10000.0)", R"("masked":0.5)"), "json_type: ");
  check_starts(with(R"("entry":"r1_s32_p0")", R"("entry":"../r1_s32_p0")"), "json_type: ");
  check_starts(with(R"("entry":"r1_s32_p0")", R"("entry":"bundle.json")"), "tensor_missing: ");
  check_starts(with(R"("part":0)", R"("part":1)"), "tensor_missing: ");
  check_starts(with(R"("part":0)", R"("part":0,"placement":"moon")"), "json_type: ");
  check_starts(with(R"("part":0)", R"("part":0,"placement":"host")"), "feature_unsupported: ");
  check_starts(with(R"("past_k.0")", R"("past_k.7")"), "tensor_unexpected: ");
  check_starts(with(R"("past_k.0")", R"("past_k.1")"), "tensor_unexpected: ");
  check_starts(with(R"("past_k.0")", R"("new_k.0")"), "tensor_unexpected: ");
  check_starts(with(R"("past_k.0",)", ""), "tensor_missing: ");
  check_starts(with(R"("ids",)", ""), "tensor_unexpected: ");
  check_starts(with(R"("sha256":")", R"("sha256":"0)"), "leaf_hash: ");
  check_starts(with(R"("n_bytes":)", R"("n_bytes":1)"), "leaf_hash: ");
  check_starts(with(R"("name":"r1_s32_p0","n_bytes")", R"("name":"nowhere","n_bytes")"),
               "file_not_found: ");
  check_starts(with("{", "["), "json_");

  const BundleFolder cut;
  cut.write("bundle.json", cut.description().substr(0, 300));
  check_starts(refusal(cut, file), "json_syntax: ");
  const BundleFolder changed;
  changed.write(changed.first_graph(), "input ids 6 1\n");
  check_starts(refusal(changed, file), "leaf_hash: ");
}

TEST_CASE("of graphs for several generations those of one are opened") {
  const TinyFile file;
  const BundleFolder bundle({.generations = {"73", "75"}}), alone;
  const auto wanted = text_of(Model::load(file.path(), options_for(alone)), 50, 20);
  LoadOptions options = options_for(bundle);
  const auto load = [&] { return error_of([&] { Model::load(file.path(), options); }); };
  const std::string unnamed = load();
  check_starts(unnamed, "invalid_argument: ");
  CHECK(unnamed.find("73, 75") != std::string::npos);
  options.npu.emplace_back("generation", "79");
  check_starts(load(), "invalid_argument: ");
  options.npu.back().second = "75";
  CHECK(text_of(Model::load(file.path(), options), 50, 20) == wanted);
  std::filesystem::remove_all(bundle.path() + "/v73");  // a device needs its own only
  CHECK(text_of(Model::load(file.path(), options), 50, 20) == wanted);
  bundle.write("v75/" + bundle.first_graph(), "input ids 6 1\n");
  check_starts(load(), "leaf_hash: ");
  options.npu.back().second = "73";
  check_starts(load(), "file_not_found: ");
  check_starts(refusal(BundleFolder({.generations = {"../73"}}), file), "json_type: ");
}

TEST_CASE("a library that is not there, or too old, is named") {
  const TinyFile file;
  const BundleFolder bundle;
  LoadOptions options = options_for(bundle);
  const auto load = [&] { return error_of([&] { Model::load(file.path(), options); }); };
  options.npu[1].second = "/nowhere/libonnxruntime.so";
  CHECK(load().find("pip install 'edgellm[npu]'") != std::string::npos);
  // Under another name, since a library that was opened stays.
  options.npu[1].second = bundle.path() + "/old.so";
  std::filesystem::copy_file(EDGE_FAKE_ORT, options.npu[1].second);
  setenv("EDGE_FAKE_ORT_VERSION", "16", 1);
  CHECK(load().find("older than onnxruntime 1.17") != std::string::npos);
  setenv("EDGE_FAKE_ORT_VERSION", "21", 1);
  CHECK(load().empty());
  options.npu.emplace_back("provider", "GoodProvider");
  options.npu.emplace_back("provider_library", "/usr/lib/good.so");
  CHECK(load().find("takes onnxruntime 1.22") != std::string::npos);
  unsetenv("EDGE_FAKE_ORT_VERSION");
  options.npu = {{"library", EDGE_FAKE_ORT}};
  check_starts(load(), "invalid_argument: ");
  options.npu = {{"bundle", bundle.path()}, {"abacus", "1"}};
  check_starts(load(), "invalid_argument: ");
  setenv("EDGELLM_NPU_LIBRARY", "/nowhere/libedgellm_npu.so", 1);
  CHECK(load().find("/nowhere/libedgellm_npu.so") != std::string::npos);
}

TEST_CASE("a provider is asked for without a fallback") {
  const TinyFile file;
  const BundleFolder bundle({.target = "qualcomm-v75"});
  LoadOptions options = options_for(bundle);
  const auto load = [&] { return error_of([&] { Model::load(file.path(), options); }); };
  const Metadata plain = options.npu;
  options.npu.insert(options.npu.end(),
                     {{"provider", "NoneSuch"}, {"provider_library", "/usr/lib/good.so"}});
  check_starts(load(), "device_unavailable: ");
  options.npu = plain;
  options.npu.insert(options.npu.end(),
                     {{"provider", "Other"}, {"provider_library", "/nowhere.so"}});
  check_starts(load(), "device_unavailable: ");
  options.npu = plain;
  options.npu.insert(options.npu.end(), {{"provider", "GoodProvider"},
                                         {"provider_library", "/usr/lib/good.so"},
                                         {"provider.arch", "75"}});
  CHECK(load() == "");
  CHECK(load() == "");  // it is registered once
  options.npu.back().second = "76";
  check_starts(load(), "device_failed: ");
  options.npu = plain;
  options.npu.emplace_back("provider", "BuiltIn");
  CHECK(load() == "");
  options.npu.back().second = "Other";
  check_starts(load(), "device_unavailable: ");
}
