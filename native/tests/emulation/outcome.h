// What becomes of a child of this process, which a planted bug may end.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>

#include "doctest/doctest.h"
#include "lockstep.h"

namespace edge::test {

struct Outcome {
  int status = 0;
  std::string text;  // to stderr
};

// is_right() in a child, whose status is 0 where that is true.
template <class F>
Outcome outcome_of(const F& is_right) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    signal(SIGABRT, SIG_DFL);  // doctest's handlers would tell of a failed test
    signal(SIGSEGV, SIG_DFL);
    dup2(ends[1], STDERR_FILENO);
    _exit(is_right() ? 0 : 1);
  }
  close(ends[1]);
  Outcome outcome;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) {
    outcome.text.append(buffer, static_cast<size_t>(n));
  }
  close(ends[0]);
  REQUIRE(waitpid(child, &outcome.status, 0) == child);
  return outcome;
}

inline constexpr lockstep::Order kOrders[] = {lockstep::Order::kForward, lockstep::Order::kReverse,
                                              lockstep::Order::kShuffled};

// Whether is_right(order) fails in one of the orders, and says `by` where that is not empty.
template <class F>
bool is_caught(const char* by, const F& is_right) {
  bool is_any = false;
  for (const lockstep::Order order : kOrders) {
    const Outcome outcome = outcome_of([&] { return is_right(order); });
    is_any |= outcome.status != 0 && outcome.text.find(by) != std::string::npos;
  }
  return is_any;
}

}  // namespace edge::test
