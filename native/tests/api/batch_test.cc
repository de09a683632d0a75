// Sessions that share steps on a real model: the bits, the errors and the ends of one alone.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "doctest/doctest.h"
#include "edgellm/engine.h"
#include "tiny_model.h"

#ifndef _WIN32
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace {

using edge::test::TinyFile;
using edgellm::Keep;
using edgellm::Model;
using edgellm::Session;
using edgellm::SessionRun;

constexpr double kNoBudgetMs = 1e12;

Model load(const TinyFile& file, int n_threads) {
  return Model::load(file.path(), {.n_threads = n_threads, .verify = edgellm::Verify::kNever});
}

std::vector<int32_t> ids_of(int n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> ids;
  for (int i = 0; i < n; ++i) {
    ids.push_back(static_cast<int32_t>(random() % edge::test::kTinyVocab));
  }
  return ids;
}

// One that neither finds nor leaves KV: what it gives it has computed.
Session apart(const Model& model) {
  return Session(model, 0, std::nullopt, {.is_on = false, .name_space = ""});
}

std::vector<float> logits_alone(const Model& model, std::span<const int32_t> ids) {
  Session session = apart(model);
  session.append(ids);
  while (!session.run(kNoBudgetMs)) {
  }
  return session.logits();
}

void run_all(std::vector<Session>& sessions) {
  for (;;) {
    std::vector<SessionRun> runs;
    for (Session& session : sessions) {
      if (session.n_pending() > 0) runs.push_back({.session = &session});
    }
    if (runs.empty()) return;
    Session::run_together(runs, 0);
    for (const SessionRun& run : runs) REQUIRE_FALSE(run.error.has_value());
  }
}

std::string code_of(const std::optional<edgellm::Error>& error) {
  return error ? error->code() : "";
}

template <class F>
std::string thrown_by(F&& body) {
  try {
    body();
  } catch (const edgellm::Error& error) {
    return error.code();
  }
  return "";
}

}  // namespace

TEST_CASE("eight sessions together have the bits of each alone") {
  for (const std::array<int, 2> windows : {std::array{0, 0}, std::array{40, 0}}) {
    const TinyFile file(edge::test::tiny_spec(edge::test::kTinyContext, windows));
    for (const int n_threads : {1, 2}) {
      const Model model = load(file, n_threads);
      std::vector<Session> sessions;
      std::vector<std::vector<int32_t>> ids;
      for (const int n : {1, 7, 64, 200, 33, 2, 90, 150}) {
        ids.push_back(ids_of(n, static_cast<uint32_t>(n)));
        sessions.push_back(apart(model));
        sessions.back().append(ids.back());
      }
      for (int round = 0; round < 3; ++round) {  // prompts, then one token each
        run_all(sessions);
        for (size_t i = 0; i < sessions.size(); ++i) {
          REQUIRE(sessions[i].logits() == logits_alone(model, ids[i]));
          ids[i].push_back(static_cast<int32_t>(i) + round);
          sessions[i].append(std::span(ids[i]).last(1));
        }
      }
    }
  }
}

TEST_CASE("sampling together is sampling one by one") {
  const TinyFile file;
  const Model model = load(file, 2);
  std::vector<Session> sessions;
  std::vector<edgellm::SamplerParams> params;
  for (uint32_t i = 0; i < 5; ++i) {
    sessions.emplace_back(model).append(ids_of(5, i));
    params.push_back({.temperature = 1.5, .seed = i});
  }
  for (size_t i = 0; i < 4; ++i) sessions[i].run(kNoBudgetMs);  // the last has no logits
  std::vector<const Session*> of;
  std::vector<const edgellm::SamplerParams*> with;
  for (size_t i = 0; i < 5; ++i) of.push_back(&sessions[i]), with.push_back(&params[i]);
  const std::vector<int64_t> n_prompts(5, 5);
  const auto tokens = Session::sample_together(of, with, n_prompts);
  REQUIRE(tokens.size() == 5);
  for (size_t i = 0; i < 4; ++i) {
    const edgellm::SampledToken one = sessions[i].sample(params[i], -1, 5);
    REQUIRE(tokens[i].has_value());
    CHECK(tokens[i]->id == one.id);
    CHECK(tokens[i]->logprob == one.logprob);
  }
  CHECK_FALSE(tokens[4].has_value());
  CHECK(thrown_by([&] { Session::sample_together(of, with, {}); }) == "invalid_argument");
  CHECK(Session::sample_together({}, {}, {}).empty());
}

TEST_CASE("sessions that cannot run together are refused, and errors are each one's own") {
  const TinyFile file;
  const Model model = load(file, 1), other = load(file, 1);
  Session a(model), b(model), foreign(other);
  for (Session* session : {&a, &b, &foreign}) session->append(ids_of(40, 1));
  std::vector<SessionRun> twice = {{.session = &a}, {.session = &b}, {.session = &a}};
  CHECK(thrown_by([&] { Session::run_together(twice); }) == "invalid_argument");
  std::vector<SessionRun> mixed = {{.session = &a}, {.session = &foreign}};
  CHECK(thrown_by([&] { Session::run_together(mixed); }) == "invalid_argument");
  Session closed(model), cancelled(model);
  cancelled.append(ids_of(3, 1));
  closed.close();
  cancelled.cancel();
  std::vector<SessionRun> runs = {{.session = &closed},
                                  {.session = &a, .keep = Keep::kLogits},
                                  {.session = &cancelled},
                                  {.session = &b, .keep = Keep::kHidden}};
  Session::run_together(runs, kNoBudgetMs);
  CHECK(code_of(runs[0].error) == "invalid_argument");
  CHECK(code_of(runs[1].error) == "");
  CHECK(code_of(runs[2].error) == "cancelled");
  CHECK(runs[1].is_done);
  CHECK(runs[1].rows.size() == 40u * edge::test::kTinyVocab);
  CHECK(runs[3].rows.size() == 40u * static_cast<size_t>(model.info().d_model));
  std::vector<SessionRun> none;
  Session::run_together(none);
}

TEST_CASE("closing the model ends sessions that run together and in threads") {
  const TinyFile file;
  Model model = load(file, 2);
  std::atomic<int> n_under_way{0}, n_ended{0};
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      std::vector<Session> own;
      try {
        for (uint32_t j = 0; j < 3; ++j) own.push_back(apart(model));
        for (;; ++n_under_way) {
          for (Session& session : own) {
            session.rewind(0);
            session.append(ids_of(30, i));
          }
          if (i % 2 == 0) {
            own[0].run(kNoBudgetMs);
            continue;
          }
          std::vector<SessionRun> runs;
          for (Session& session : own) runs.push_back({.session = &session});
          Session::run_together(runs, kNoBudgetMs);
          for (const SessionRun& run : runs) {
            if (run.error) throw edgellm::Error(*run.error);
          }
        }
      } catch (const edgellm::Error& error) {
        if (error.code() == "cancelled" || error.code() == "invalid_argument") ++n_ended;
      }
    });
  }
  while (n_under_way < 20) std::this_thread::yield();
  model.close();
  for (std::thread& thread : threads) thread.join();
  CHECK(n_ended == 4);
}

#ifndef _WIN32
TEST_CASE("a child of fork() runs sessions while the parent's threads share steps") {
  const TinyFile file;
  const Model model = load(file, 2);
  const std::vector<int32_t> ids = ids_of(60, 1);
  const std::vector<float> expected = logits_alone(model, ids);
  std::atomic<bool> is_over{false};
  std::atomic<int> n_runs{0};
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      for (Session session = apart(model); !is_over; ++n_runs) {
        session.rewind(0);
        session.append(ids);
        session.run(kNoBudgetMs);
      }
    });
  }
  for (int round = 0; round < 5; ++round) {
    const int n_before = n_runs;
    while (n_runs < n_before + 3) std::this_thread::yield();
    const pid_t child = fork();
    if (child == 0) {
      alarm(30);
      _exit(logits_alone(model, ids) == expected ? 0 : 9);
    }
    int status = -1;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
  }
  is_over = true;
  for (std::thread& thread : threads) thread.join();
}
#endif

// EDGELLM_TEST_CYCLES=10000 for the nightly one.
TEST_CASE("sessions that are started, cancelled anywhere and started again leave nothing behind") {
  const char* const named = std::getenv("EDGELLM_TEST_CYCLES");
  const int n_cycles = named == nullptr ? 200 : std::atoi(named);
  const TinyFile file;
  const Model model = load(file, 2);
  constexpr uint32_t kPrompts = 16;
  std::vector<std::vector<int32_t>> prompts;
  std::vector<std::vector<float>> expected;
  for (uint32_t i = 0; i < kPrompts; ++i) {
    prompts.push_back(ids_of(static_cast<int>(1 + 15 * i), i));
    expected.push_back(logits_alone(model, prompts.back()));
  }
  std::atomic<int> n_wrong{0}, n_cancelled{0};
  std::atomic<int64_t> slowest_us{0};
  const auto work = [&](uint32_t seed) {
    std::mt19937 random(seed);
    for (int cycle = 0; cycle < n_cycles / 4; ++cycle) {
      const auto& ids = prompts[random() % kPrompts];
      Session session = apart(model);
      session.append(ids);
      int64_t until_stop = static_cast<int64_t>(random() % 40);
      std::chrono::steady_clock::time_point stopped{};
      try {
        session.run(kNoBudgetMs, [&] {
          if (until_stop-- != 0) return false;
          stopped = std::chrono::steady_clock::now();
          return true;
        });
      } catch (const edgellm::Error& error) {
        if (error.code() != "cancelled") ++n_wrong;
        ++n_cancelled;
        const auto took = std::chrono::steady_clock::now() - stopped;
        const int64_t us = std::chrono::duration_cast<std::chrono::microseconds>(took).count();
        if (us > slowest_us) slowest_us = us;
      }
      if (random() % 3 == 0) continue;  // goes half-way
      if (random() % 2 == 0) {
        session.rewind(0);
        session.append(ids);
      }
      session.run(kNoBudgetMs);
      if (session.logits() != expected[static_cast<size_t>((ids.size() - 1) / 15)]) ++n_wrong;
    }
  };
  std::vector<std::thread> threads;
  for (uint32_t seed = 0; seed < 4; ++seed) threads.emplace_back(work, seed);
  for (std::thread& thread : threads) thread.join();
  CHECK(n_wrong == 0);
  CHECK(n_cancelled > n_cycles / 10);
  MESSAGE("cycles " << n_cycles << ", cancelled " << n_cancelled.load() << ", slowest cancel "
                    << slowest_us.load() << " us");
}
