// Texts longer than their graphs, where load() asked for such a context: the CPU computes what
// stands behind, bit for bit as it would from the same keys and values.
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
using edge::test::TinyFile;
using edgellm::LoadOptions;
using edgellm::Model;
using edgellm::Session;
using edgellm::Speculate;

}  // namespace

TEST_CASE("what stands behind the graphs is computed on the CPU") {
  const TinyFile file;
  const BundleFolder bundle({.slots = {32, 64}}), plain({.rows = {1}, .slots = {64}});
  LoadOptions options = options_for(bundle);
  CHECK(Model::load(file.path(), options).info().n_graph_tokens == 0);
  options.n_ctx = 200;
  const Model model = Model::load(file.path(), options);
  CHECK(model.info().n_ctx_train == 200);
  CHECK(model.info().n_graph_tokens == 64);
  options.npu[0].second = plain.path();
  const auto wanted = text_of(Model::load(file.path(), options), 50, 90);
  options = options_for(bundle);

  SUBCASE("and a text goes over in its middle") {
    CHECK(text_of(model, 50, 90) == wanted);
    Session session(model);
    session.append(some_ids(50));
    CHECK(greedy(session, 90) == wanted);
    CHECK(session.n_tokens() == 139);
    Session again(model);
    again.append(some_ids(50));
    again.append(wanted);
    again.run(1e9);
    CHECK(again.stats().n_reused_tokens >= 96);
    again.rewind(40);  // back into the graphs
    const auto ids = some_ids(50);
    again.append(std::span(ids).subspan(40));
    CHECK(greedy(again, 90) == wanted);
  }
  SUBCASE("and as the CPU does it from those keys and values") {
    for (const int n_read : {64, 65, 100}) {
      Session session(model, 0, std::nullopt, kAlone);
      session.append(some_ids(50));
      session.append(std::span(wanted).first(static_cast<size_t>(n_read - 50)));
      while (!session.run(1e9)) {
      }
      const std::string path = bundle.path() + "/session";
      session.save(path);
      options.backend = "cpu";
      Session restored(Model::load(file.path(), options));
      restored.restore(edgellm::SessionFile::open(path));
      session.append(some_ids(9, 5));
      restored.append(some_ids(9, 5));
      CHECK(greedy(restored, 20) == greedy(session, 20));
    }
  }
  SUBCASE("and so are steps that sequences on both sides share") {
    std::vector<Session> sessions;
    std::vector<edgellm::SessionRun> runs;
    for (int seed = 0; seed < 4; ++seed) {
      sessions.emplace_back(model, 0).append(some_ids(20 + 30 * seed, seed));
    }
    for (Session& session : sessions) runs.push_back({.session = &session});
    for (bool is_over = false; !is_over;) {
      Session::run_together(runs, 1e9);
      is_over = true;
      for (const auto& run : runs) {
        REQUIRE(!run.error.has_value());
        is_over = is_over && run.session->n_pending() == 0;
      }
    }
    for (int seed = 0; seed < 4; ++seed) {
      Session alone(model, 0, std::nullopt, kAlone);
      alone.append(some_ids(20 + 30 * seed, seed));
      while (!alone.run(1e9)) {
      }
      CHECK(sessions[static_cast<size_t>(seed)].logits() == alone.logits());
    }
  }
  SUBCASE("and guesses there change nothing") {
    options.n_ctx = 200;
    options.speculate = Speculate::kAlways;
    const Model guessing = Model::load(file.path(), options);
    Session plainly(model, 0, std::nullopt, kAlone), session(guessing, 0, std::nullopt, kAlone);
    session.set_speculation(true);
    CHECK(answers(session) == answers(plainly));
    CHECK(session.stats().n_steps < plainly.stats().n_steps);
  }
  SUBCASE("up to what was asked for") {
    Session session(model);
    check_starts(error_of([&] { session.append(some_ids(201)); }), "context_overflow: ");
    check_starts(error_of([&] { Session(model, 201); }), "invalid_argument: ");
    options.n_ctx = 1000;  // more than the model has
    CHECK(Model::load(file.path(), options).info().n_ctx_train == edge::test::kTinyContext);
  }
  SUBCASE("whose memory counts") {
    options.n_ctx = 64;
    const uint64_t in_graphs = Model::load(file.path(), options).info().scratch_bytes;
    CHECK(model.info().scratch_bytes > in_graphs);
    options.n_ctx = 200;
    options.max_memory_bytes = in_graphs;
    check_starts(error_of([&] { Model::load(file.path(), options); }), "memory_budget: ");
  }
}
