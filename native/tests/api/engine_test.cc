#include "edgellm/engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "doctest/doctest.h"
#include "tiny_model.h"

#ifndef _WIN32
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace {

using edge::test::TinyFile;
using edgellm::Model;
using edgellm::Session;

constexpr double kNoBudgetMs = 1e12;

// The code of the Error that `body` throws; "" if it throws none.
template <class F>
std::string code_of(F&& body) {
  try {
    body();
  } catch (const edgellm::Error& error) {
    CHECK(!error.category().empty());
    CHECK(std::string(error.what()).size() > 5);
    return error.code();
  }
  return "";
}

std::vector<int32_t> ids_of(int n) {
  std::vector<int32_t> ids;
  for (int i = 0; i < n; ++i) ids.push_back((i * 31 + i / 7) % edge::test::kTinyVocab);
  return ids;
}

Model load(const TinyFile& file, int n_threads = 1) {
  return Model::load(file.path(), {.n_threads = n_threads, .verify = edgellm::Verify::kAlways});
}

std::vector<float> logits_after(const Model& model, std::span<const int32_t> ids,
                                double budget_ms = kNoBudgetMs) {
  Session session(model);
  session.append(ids);
  while (!session.run(budget_ms)) {
  }
  return session.logits();
}

}  // namespace

TEST_CASE("a loaded model says what it is") {
  const TinyFile file;
  const Model model = load(file);
  CHECK(model.info().n_vocab == 96);
  CHECK(model.info().n_ctx_train == 256);
  CHECK(model.info().bos_id == 1);
  CHECK(model.info().eos_ids == std::vector<int32_t>{2});
  // Two layers x two kv heads x keys and values x 16 dimensions of a byte and a scale of 2.
  CHECK(model.info().kv_bytes_per_token == 144);
  CHECK(model.info().root.size() == 64);
  CHECK(model.verified_fraction() == 1);
  CHECK(!model.tokenizer().has_value());
  CHECK(!model.blob("chat_template").has_value());
}

TEST_CASE("logits are the same bits for any cut, any number of threads and row by row") {
  const TinyFile file;
  const Model model = load(file);
  const std::vector<int32_t> ids = ids_of(200);
  const std::vector<float> expected = logits_after(model, ids);
  CHECK(expected.size() == 96);
  CHECK(*std::max_element(expected.begin(), expected.end()) >
        *std::min_element(expected.begin(), expected.end()));
  CHECK(logits_after(model, ids, 0) == expected);
  CHECK(logits_after(load(file, 2), ids) == expected);
  Session session(model);
  for (const int32_t id : ids) {
    session.append({&id, 1});
    session.run();
  }
  CHECK(session.logits() == expected);
  session.rewind(150);
  session.append(std::span(ids).subspan(150));
  while (!session.run(0)) {
  }
  CHECK(session.logits() == expected);
}

TEST_CASE("run_with_logits gives every row and its last one is logits()") {
  const TinyFile file;
  const Model model = load(file);
  const std::vector<int32_t> ids = ids_of(70);
  Session session(model);
  session.append(ids);
  std::vector<float> all;
  while (session.n_pending() > 0) {
    const std::vector<float> rows = session.run_with_logits(0);
    all.insert(all.end(), rows.begin(), rows.end());
  }
  REQUIRE(all.size() == 70 * 96);
  CHECK(std::vector<float>(all.end() - 96, all.end()) == session.logits());
  CHECK(std::vector<float>(all.begin() + 9 * 96, all.begin() + 10 * 96) ==
        logits_after(model, std::span(ids).first(10)));
}

TEST_CASE("hidden states are the same bits for any cut and any number of threads") {
  const TinyFile file;
  const Model model = load(file);
  const std::vector<int32_t> ids = ids_of(70);
  Session whole(model);
  whole.append(ids);
  const std::vector<float> expected = whole.run_with_hidden(kNoBudgetMs);
  REQUIRE(expected.size() == 70 * 64);
  CHECK(model.info().d_model == 64);
  CHECK(code_of([&] { whole.logits(); }) == "invalid_argument");
  for (const int n_threads : {1, 2}) {
    Session session(load(file, n_threads));
    std::vector<float> all;
    for (const int32_t id : ids) {
      session.append({&id, 1});
      const std::vector<float> row = session.run_with_hidden();
      all.insert(all.end(), row.begin(), row.end());
    }
    CHECK(all == expected);
    session.append(ids_of(1));
    session.run();
    CHECK(session.logits().size() == 96);
  }
}

TEST_CASE("sampling with one seed repeats and the position is the default step") {
  const TinyFile file;
  Session session(load(file));
  session.append(ids_of(20));
  session.run(kNoBudgetMs);
  const edgellm::SamplerParams params{.temperature = 1, .seed = 7};
  CHECK(session.sample(params).id == session.sample(params, 20).id);
  bool differs = false;
  for (int64_t step = 0; step < 50; ++step) {
    differs = differs || session.sample(params, step).id != session.sample(params).id;
  }
  CHECK(differs);
  CHECK(session.sample({}).logprob <= 0);
  CHECK(code_of([&] { session.sample({.top_p = 2}); }) == "invalid_argument");

  const edgellm::SampledToken best = session.sample({});
  CHECK(session.top_logprobs(1)[0].id == best.id);
  CHECK(session.top_logprobs(1)[0].logprob == best.logprob);
  const double ban = -std::numeric_limits<double>::infinity();
  const edgellm::SamplerParams without{.rules =
                                           edgellm::LogitRules({.logit_bias = {{best.id, ban}}})};
  CHECK(session.sample(without).id == session.top_logprobs(2)[1].id);
  const edgellm::SamplerParams early{
      .rules = edgellm::LogitRules({.min_tokens = 1, .end_ids = {best.id}})};
  CHECK(session.sample(early, -1, session.n_tokens()).id != best.id);
  CHECK(session.sample(early, -1, session.n_tokens() - 1).id == best.id);
  CHECK(code_of([&] { session.sample(early); }) == "invalid_argument");
  CHECK(code_of([&] { session.sample(early, -1, 1000); }) == "invalid_argument");
  CHECK(code_of([] { edgellm::LogitRules({.dry_base = 0}); }) == "invalid_argument");
}

TEST_CASE("a cap on memory is checked at load and for every session") {
  const TinyFile file;
  CHECK(code_of([&] { Model::load(file.path(), {.max_memory_bytes = 1000}); }) == "memory_budget");
  const edgellm::ModelInfo info = load(file).info();
  const uint64_t page_bytes = info.kv_bytes_per_token * 16;
  const uint64_t fixed_bytes = info.file_bytes + info.scratch_bytes;
  const uint64_t cap = fixed_bytes + 3 * page_bytes + 2 * info.session_bytes;
  CHECK(info.session_bytes == uint64_t{edge::test::kTinyVocab} * sizeof(float));
  const uint64_t alone = cap - info.session_bytes;
  CHECK(code_of([&] { Model::load(file.path(), {.max_memory_bytes = alone, .n_ctx = 49}); }) ==
        "memory_budget");
  CHECK_NOTHROW(Model::load(file.path(), {.max_memory_bytes = alone, .n_ctx = 48}));
  const Model model = Model::load(
      file.path(), {.verify = edgellm::Verify::kNever, .max_memory_bytes = cap, .n_ctx = 48});
  CHECK(code_of([&] { Session(model, 49); }) == "memory_budget");
  const Session first(model, 32);
  CHECK(code_of([&] { Session(model, 17); }) == "memory_budget");
  CHECK(model.kv_figures().session_bytes == info.session_bytes);
  CHECK_NOTHROW(Session(model, 16));
  CHECK(model.kv_figures().reserved_bytes == 2 * page_bytes + info.session_bytes);
}

TEST_CASE("arguments out of range are refused by code") {
  const TinyFile file;
  const Model model = load(file);
  CHECK(code_of([] { Model::load("/nowhere/at/all.edge"); }) == "file_not_found");
  CHECK(code_of([&] { Model::load(file.path(), {.n_threads = -1}); }) == "invalid_argument");
  CHECK(code_of([&] { Model::load(file.path(), {.n_ctx = -1}); }) == "invalid_argument");
  CHECK(code_of([&] { Session(model, 257); }) == "invalid_argument");
  CHECK(code_of([&] { Session(model, -1); }) == "invalid_argument");
  Session session(model, 8);
  CHECK(code_of([&] { session.append(std::vector<int32_t>{96}); }) == "token_out_of_range");
  CHECK(code_of([&] { session.append(ids_of(9)); }) == "context_overflow");
  CHECK(code_of([&] { session.rewind(1); }) == "invalid_argument");
  CHECK(code_of([&] { session.run(-1); }) == "invalid_argument");
  CHECK(code_of([&] { session.logits(); }) == "invalid_argument");
}

TEST_CASE("a damaged file fails at load, or at the first run after the background check") {
  const TinyFile file;
  const edgellm::EdgeFile good(file.path());
  file.flip_bit(good.data_start() + good.tensors().at(3).offset + 100);
  CHECK(code_of([&] { load(file); }) == "leaf_hash");
  CHECK(code_of([&] { edgellm::verify_file(file.path()); }) == "leaf_hash");
  const Model model = Model::load(file.path());
  Session session(model);
  std::string code;
  for (int i = 0; i < 200 && code.empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    session.rewind(0);
    session.append(ids_of(2));
    code = code_of([&] { session.run(); });
  }
  CHECK(code == "leaf_hash");
}

TEST_CASE("closing a model cancels a run in another thread and ends its sessions") {
  const TinyFile file;
  Model model = load(file);
  Session session(model);
  std::atomic<bool> has_started{false};
  std::string code;
  std::thread runner([&] {
    code = code_of([&] {
      while (true) {
        session.rewind(0);
        session.append(ids_of(256));
        while (!session.run()) {
        }
        has_started = true;
      }
    });
  });
  while (!has_started) std::this_thread::yield();
  model.close();
  runner.join();
  // Cancelled inside a run, or refused by the call after it.
  CHECK((code == "cancelled" || code == "invalid_argument"));
  CHECK(model.is_closed());
  CHECK(model.info().n_vocab == 96);
  CHECK(code_of([&] { session.n_tokens(); }) == "invalid_argument");
  CHECK(code_of([&] { Session again(model); }) == "invalid_argument");
  CHECK(code_of([&] { model.tokenizer(); }) == "invalid_argument");
  CHECK_NOTHROW(model.close());
}

TEST_CASE("a closed session gives its memory back and refuses use") {
  const TinyFile file;
  const edgellm::ModelInfo info = load(file).info();
  const uint64_t cap =
      info.file_bytes + info.scratch_bytes + info.session_bytes + info.kv_bytes_per_token * 32;
  const Model model =
      Model::load(file.path(), {.verify = edgellm::Verify::kNever, .max_memory_bytes = cap});
  Session session(model, 32);
  CHECK(code_of([&] { Session(model, 32); }) == "memory_budget");
  session.close();
  session.close();
  CHECK(code_of([&] { session.append(ids_of(1)); }) == "invalid_argument");
  CHECK_NOTHROW(Session(model, 32));
}

TEST_CASE("cancel ends one run and the next one finishes with the same bits") {
  const TinyFile file;
  const Model model = load(file);
  Session session(model);
  session.append(ids_of(100));
  session.cancel();
  CHECK(code_of([&] { session.run(); }) == "cancelled");
  while (!session.run()) {
  }
  CHECK(session.logits() == logits_after(model, ids_of(100)));
}

TEST_CASE("sessions in several threads take turns and get the same bits") {
  const TinyFile file;
  const Model model = load(file, 2);
  const std::vector<float> expected = logits_after(model, ids_of(150));
  std::atomic<int> n_equal{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      if (logits_after(model, ids_of(150), 0.1) == expected) ++n_equal;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(n_equal == 4);
}

#if !defined(_WIN32) && !defined(__SANITIZE_THREAD__)
constexpr unsigned kChildSeconds = 60;  // a child that hangs fails its test instead

TEST_CASE("a child of fork() uses the model while the parent goes on") {
  const TinyFile file;
  const Model model = load(file, 2);
  const std::vector<float> expected = logits_after(model, ids_of(150));
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) logits_after(model, ids_of(150));
  });
  for (int i = 0; i < 5; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(kChildSeconds);
      _exit(logits_after(model, ids_of(150)) == expected ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    CHECK(status == 0);
  }
  stop = true;
  busy.join();
}

TEST_CASE("fork() waits for no step, and the child takes over what was under way") {
  const TinyFile file;
  Model model = load(file, 2);
  const std::vector<float> expected = logits_after(model, ids_of(150));
  Session held(model);
  held.append(ids_of(150));
  std::atomic<bool> is_inside{false};
  std::atomic<bool> has_forked{false};
  std::thread runner([&] {
    held.run(kNoBudgetMs, [&] {  // as CPython's threads wait for the global lock of one that forks
      is_inside = true;
      while (!has_forked) std::this_thread::yield();
      return false;
    });
  });
  while (!is_inside) std::this_thread::yield();
  const pid_t child = fork();
  if (child == 0) {
    alarm(kChildSeconds);
    const bool same = logits_after(model, ids_of(150)) == expected;
    const bool is_lost = code_of([&] { held.n_tokens(); }) == "invalid_argument";
    model.close();
    _exit(same && is_lost && model.is_closed() ? 0 : 1);
  }
  has_forked = true;
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(status == 0);
  runner.join();
  CHECK(held.logits() == expected);
}
#endif

TEST_CASE("the tables name every format and error once") {
  const auto errors = edgellm::error_table();
  CHECK(errors.size() > 40);
  CHECK(std::find(errors.begin(), errors.end(),
                  std::pair<std::string, std::string>("leaf_hash", "IntegrityError")) !=
        errors.end());
  std::vector<std::string> names;
  for (const auto& format : edgellm::format_table()) names.push_back(format.name);
  CHECK(names == std::vector<std::string>{"E2_16", "E3_32", "E4_16", "E4_32", "E6_16", "E8_32",
                                          "K4_32", "L4_32", "L8_32", "F16"});
  CHECK(edgellm::isa_levels().back() == "scalar");
}

TEST_CASE("weights survive encode and decode, and wrong sizes are refused") {
  std::vector<float> weights(20 * 40);
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<float>(i % 100) - 50;
  const auto bytes = edgellm::encode_tensor("F16", weights, 20, 40);
  CHECK(edgellm::decode_rows("F16", bytes, 20, 40, 0, 20) == weights);
  CHECK(edgellm::decode_rows("F16", bytes, 20, 40, 17, 3) ==
        std::vector<float>(weights.begin() + 17 * 40, weights.end()));
  const auto decode = [&](int64_t n_rows, int64_t n_cols, int64_t row0, int64_t n) {
    return code_of([&] { edgellm::decode_rows("F16", bytes, n_rows, n_cols, row0, n); });
  };
  CHECK(decode(20, 40, 18, 3) == "invalid_argument");
  CHECK(decode(20, 40, -1, 1) == "invalid_argument");
  CHECK(decode(20, 40, INT64_MAX, INT64_MAX) == "invalid_argument");
  CHECK(decode(33, 40, 0, 1) == "invalid_argument");
  CHECK(decode(INT64_MAX, INT64_MAX, 0, 1) == "invalid_argument");
  CHECK(decode(0, 40, 0, 0) == "invalid_argument");
  CHECK(code_of([&] { edgellm::encode_tensor("Q4_0", weights, 20, 40); }) == "invalid_argument");
  CHECK(code_of([&] { edgellm::encode_tensor("F32", weights, 20, 40); }) == "invalid_argument");
  CHECK(code_of([&] { edgellm::encode_tensor("F16", weights, 20, 41); }) == "invalid_argument");
}

TEST_CASE("nothing that steers a terminal passes the sanitizer") {
  CHECK(edgellm::sanitize("plain\n\ttext") == "plain\n\ttext");
  CHECK(edgellm::sanitize("\x1b[31m\r\x7f") == "\xE2\x90\x9B[31m\xE2\x90\x8D\xE2\x90\xA1");
  CHECK(edgellm::sanitize("a\xE2\x80\xAE"
                          "b\xC2\x9B") ==
        "a\xEF\xBF\xBD"
        "b\xEF\xBF\xBD");
  CHECK(edgellm::sanitize("\xFF\xC3(\xED\xA0\x80") ==
        "\xEF\xBF\xBD\xEF\xBF\xBD(\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  CHECK(edgellm::sanitize("\xF0\x9F\x98\x80 \xC3\xA9") == "\xF0\x9F\x98\x80 \xC3\xA9");
}
